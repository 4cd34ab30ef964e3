"""`score`: does a prompt bring back its own picture? Nearest real picture by network features and by pixels."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from experiments.features import features, similarity
from experiments.text import encode_prompts
from experiments.training import data
from experiments.training.card import score_text, write_card
from experiments.training.export import FACTS_FILE
from experiments.training.sampling import draw_noise, sample, save_sheet


@dataclass
class ScoreConfig:
    """One scoring run of a model folder (transformer/, scheduler/)."""

    name: str = "score"
    weights: str = "results/models/emoji64"
    seed: int = 1000
    steps: int = 20
    guidance_scale: float = 0.0  # 0: the model's own default, from its pipefusion_lab.json
    scheduler: str = ""  # empty: the one that is shipped; else a diffusers flow-matching scheduler class
    limit: int = 0  # training prompts to sample, evenly spaced; 0: all. The real pictures are always all
    batch: int = 32
    threads: int = 0
    dtype: str = "float32"
    device: str = "auto"
    sheet_prompts: int = 32
    publish: bool = (
        False  # put score, sheets and this guidance into the model folder and write its card again
    )
    data: data.DataConfig = field(default_factory=data.DataConfig)


def score(cfg: ScoreConfig, out: Path) -> dict[str, Any]:
    """Sample every prompt with plain diffusers, find the nearest real pictures; writes score.json and sheet.png."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    items, pictures = data.load(cfg.data)
    folder = Path(cfg.weights)
    facts = json.loads((folder / FACTS_FILE).read_text())
    guidance = cfg.guidance_scale or float(facts["guidance_scale"])
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    model = PixArtTransformer2DModel.from_pretrained(
        folder / "transformer",
        torch_dtype=getattr(torch, cfg.dtype),
        use_safetensors=True,
        low_cpu_mem_usage=False,
    ).to(device)
    stored = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    kind = getattr(diffusers, cfg.scheduler or stored["_class_name"])
    scheduler = kind.from_config(stored) if kind.__name__ == stored["_class_name"] else kind()
    roles = {
        role: [k for k, item in enumerate(items) if item.role == role]
        for role in ("train", "held_out", "unseen")
    }
    if cfg.limit:
        stride = max(1, len(roles["train"]) // cfg.limit)
        prompts = {**roles, "train": roles["train"][::stride][: cfg.limit]}
    else:
        prompts = roles
    asked = [k for part in prompts.values() for k in part]
    text, mask = encode_prompts(
        [items[k].caption for k in asked], facts["text_encoder"], facts["text_tokens"]
    )
    empty, empty_mask = encode_prompts([""], facts["text_encoder"], facts["text_tokens"])
    made = sample(
        model,
        scheduler,
        draw_noise(len(asked), facts["resolution"], cfg.seed),
        text,
        mask,
        empty,
        empty_mask,
        cfg.steps,
        guidance,
        cfg.batch,
        progress=True,
    )
    real = data.resize(pictures, facts["resolution"])
    made_by, real_by = (
        {"features": features(made), "pixels": made},
        {"features": features(real), "pixels": real},
    )
    result: dict[str, Any] = {
        "weights": cfg.weights,
        "steps": cfg.steps,
        "guidance_scale": guidance,
        "scheduler": kind.__name__,
        "seed": cfg.seed,
        "dtype": cfg.dtype,
        "distances": {
            "features": "cosine, EfficientNet-Lite0 (ImageNet), 1280-d",
            "pixels": "Euclidean, RGB",
        },
    }
    start = 0
    for role, among in (("train", "train"), ("held_out", "all"), ("unseen", "all")):
        part = torch.arange(start, start + len(prompts[role]))
        start += len(part)
        pool = roles["train"] if among == "train" else list(range(len(items)))
        answers = torch.tensor([pool.index(k) for k in prompts[role]], dtype=torch.long)
        named = f"the {len(pool)} real pictures of " + (
            "training" if among == "train" else "seen and unseen concepts"
        )
        result[role] = {"prompts": len(part), "among": named} if len(part) else "none"
        for way in ("features", "pixels") if len(part) else ():
            near = similarity if way == "features" else closeness
            result[role][way] = ranks(near(made_by[way][part], real_by[way][pool]), answers)
    result["real_neighbours"] = floor(real_by, roles["train"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "score.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [(items[k].caption, picture, real[k]) for k, picture in zip(asked, made, strict=True)]
    count = len(prompts["train"])
    save_sheet(rows[: count : max(1, count // cfg.sheet_prompts)][: cfg.sheet_prompts], out / "sheet.png")
    save_sheet(rows[count + len(prompts["held_out"]) :], out / "unseen.png")
    if cfg.publish:
        for name in ("score.json", "sheet.png", "unseen.png"):
            shutil.copy(out / name, folder / name)
        (folder / FACTS_FILE).write_text(json.dumps(facts | {"guidance_scale": guidance}, indent=1) + "\n")
        write_card(folder)
    print(score_text(result))
    return result


def ranks(closer: Tensor, answers: Tensor) -> dict[str, float]:
    """Top-1 and top-5 share and the median rank of the right column; closer [n, m] (larger is nearer), answers [n].

    Ties count against the sample.
    """
    right = closer.gather(1, answers[:, None])
    place = (closer >= right).sum(1)  # 1 for the nearest
    share = {f"top{k}": round(float((place <= k).float().mean()), 4) for k in (1, 5)}
    return share | {"median_rank": float(place.float().median())}


def closeness(made: Tensor, real: Tensor) -> Tensor:
    """Minus the Euclidean distance of pictures: [n, 3, r, r], [m, 3, r, r] -> [n, m]."""
    return -torch.cdist(made.flatten(1), real.flatten(1))


def floor(real_by: dict[str, Tensor], pool: list[int]) -> dict[str, float]:
    """How alike the real pictures are: the median similarity of one to its nearest other."""
    apart = similarity(real_by["features"][pool], real_by["features"][pool]).fill_diagonal_(-1)
    return {"median_cosine_to_nearest_other": round(float(apart.max(1).values.median()), 4)}
