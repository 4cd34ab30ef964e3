"""`score`: does a prompt bring back its own picture? Nearest real picture by network features and by pixels."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from analysis.files import replacing_folder
from experiments.features import features, similarity
from experiments.records import write_json
from experiments.text import encode_prompts
from experiments.training import data
from experiments.training.card import score_text, write_card
from experiments.training.export import FACTS_FILE
from experiments.training.sampling import draw_noise, sample, save_sheet
from pipefusion.core.domain import Cores, Count, Guidance, Natural, Seed, Steps


@dataclass
class ScoreConfig:
    """One scoring run of a model folder (transformer/, scheduler/)."""

    name: str = "score"
    weights: str = "results/models/emoji64"
    seed: Seed = 1000
    steps: Steps = 20
    guidance_scale: Guidance = 0.0  # 0: the model's own default, from its pipefusion_lab.json
    scheduler: str = ""  # empty: the one that is shipped; else a diffusers flow-matching scheduler class
    limit: Natural = 0  # prompts of a role to sample, evenly spaced; 0: all. The real pictures are always all
    batch: Count = 32
    threads: Cores = 0
    dtype: str = "float32"
    device: str = "auto"
    sheet_prompts: Count = 32
    publish: bool = (
        False  # put score, sheets and this guidance into the model folder and write its card again
    )
    data_dir: str = "~/.cache/pipefusion-lab"


AMONG = {
    "train": ("train", "the {} real pictures of training"),
    "held_out": ("all", "the {} real pictures of all prompts"),
    "unseen": ("all", "the {} real pictures of all prompts"),
}
"""Which real pictures a role's samples are looked for among, and how the card calls them."""
FEW = 256
"""Right pictures are easier to find among fewer: scores of models of different size are compared among this many."""


def score(cfg: ScoreConfig, out: Path) -> dict[str, Any]:
    """Sample every prompt with plain diffusers, find the nearest real pictures; writes score.json and sheet.png."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    folder = Path(cfg.weights)
    facts = json.loads((folder / FACTS_FILE).read_text())
    listed = json.loads((folder / "prompts.json").read_text())
    items, pictures = data.load_listed(data.as_stored(facts["data"], cfg.data_dir), listed)
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
    place = {item.caption: k for k, item in enumerate(items)}
    roles = {role: [place[caption] for caption in listed.get(role, [])] for role in AMONG}
    prompts = {role: spaced(whole, cfg.limit) for role, whole in roles.items()}
    asked = sorted(set().union(*prompts.values()))
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
        "few": FEW,
        "distances": {
            "features": "cosine, EfficientNet-Lite0 (ImageNet), 1280-d",
            "pixels": "Euclidean, RGB",
        },
    }
    for role, (among, named) in AMONG.items():
        part = torch.tensor([asked.index(k) for k in prompts[role]], dtype=torch.long)
        pool = list(range(len(items))) if among == "all" else roles[among]
        answers = torch.tensor([pool.index(k) for k in prompts[role]], dtype=torch.long)
        result[role] = {"prompts": len(part), "among": named.format(len(pool))} if len(part) else "none"
        for way in ("features", "pixels") if len(part) else ():
            near = similarity if way == "features" else closeness
            result[role][way] = ranks(near(made_by[way][part], real_by[way][pool]), answers)
    result["real_neighbours"] = floor(real_by, roles["train"])
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "score.json"]
    write_json(written[0], result)
    made_of = dict(zip(asked, made, strict=True))
    for name, role in (("sheet", "train"), ("held_out", "held_out"), ("unseen", "unseen")):
        shown = spaced(prompts[role], cfg.sheet_prompts)
        sheet = out / f"{name}.png"
        if shown:
            save_sheet([(items[k].caption, made_of[k], real[k]) for k in shown], sheet)
            written.append(sheet)
        else:
            sheet.unlink(missing_ok=True)  # of an earlier score
    if cfg.publish:
        with replacing_folder(folder) as fresh:
            shutil.copytree(folder, fresh, dirs_exist_ok=True)
            for path in written:
                shutil.copy(path, fresh)
            write_json(fresh / FACTS_FILE, facts | {"guidance_scale": guidance})
            write_card(fresh)
    print(score_text(result))
    return result


def spaced(whole: list[int], limit: int) -> list[int]:
    """At most `limit` of them (0: all), evenly spaced."""
    if not limit or len(whole) <= limit:
        return whole
    return [whole[(2 * k + 1) * len(whole) // (2 * limit)] for k in range(limit)]


def ranks(closer: Tensor, answers: Tensor) -> dict[str, float]:
    """Top-1 and top-5 share and the median rank of the right column; closer [n, m] (larger is nearer), answers [n].

    With m > FEW also the top-1 share expected among the right one and FEW - 1 of the others, drawn at random.
    Ties count against the sample.
    """
    right = closer.gather(1, answers[:, None])
    place = (closer >= right).sum(1)  # 1 for the nearest
    share = {f"top{k}": round(float((place <= k).float().mean()), 4) for k in (1, 5)}
    others = closer.shape[1] - 1
    if others >= FEW:
        # None of the place - 1 nearer ones is drawn.
        odds = [
            math.comb(others - nearer, FEW - 1) / math.comb(others, FEW - 1)
            for nearer in (place - 1).tolist()
        ]
        share["top1_of_few"] = round(sum(odds) / len(odds), 4)
    return share | {"median_rank": float(place.float().median())}


def closeness(made: Tensor, real: Tensor) -> Tensor:
    """Minus the Euclidean distance of pictures: [n, 3, r, r], [m, 3, r, r] -> [n, m]."""
    return -torch.cdist(made.flatten(1), real.flatten(1))


def floor(real_by: dict[str, Tensor], pool: list[int]) -> dict[str, float]:
    """How alike the real pictures are: the median similarity of one to its nearest other."""
    apart = similarity(real_by["features"][pool], real_by["features"][pool]).fill_diagonal_(-1)
    return {"median_cosine_to_nearest_other": round(float(apart.max(1).values.median()), 4)}
