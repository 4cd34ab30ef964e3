"""`measure=score`: does a prompt bring back its own picture? Nearest real picture by network features and by pixels.

Of a video model: its own sprite and motion (clip_score.py).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from analysis.records.files import replacing_folder
from experiments.config import RunConfig
from experiments.emoji import DATA_DIR, check_packages, load_listed, resize, stored_packages
from experiments.errors import ConfigError, check_known
from experiments.features import features, similarity
from experiments.models.stock_model import load_stock
from experiments.models.text import encode_prompts
from experiments.recipes.cards import render, score_template, write_model_card
from experiments.recipes.clip_score import score_clips
from experiments.recipes.folder import FACTS_FILE, PROMPTS_FILE, WEIGHTS_FILE
from experiments.recipes.sampling import draw_noise, sample, save_sheet
from experiments.records import write_json
from experiments.runs.check import CHOICES, check_cuda
from experiments.runs.device import device_type
from experiments.spaced import spaced
from pipefusion.core.domain import Cores, Count, Guidance, Natural, Seed, Steps

SCHEDULER_FILE = "scheduler/scheduler_config.json"
SHEETS = {"train": "sheet.png", "held_out": "held_out.png", "unseen": "unseen.png"}
FEW = 256
"""Right pictures are easier to find among fewer: scores of models of different size are compared among this many."""


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
    publish: bool = False  # put score, sheets and this guidance into the model folder, write its card again
    data_dir: str = DATA_DIR


def check_score(cfg: RunConfig) -> None:
    """A folder without a trained model, a scheduler that does not exist. Raises ConfigError."""
    options: ScoreConfig = cfg.measure
    folder = Path(options.weights)
    for part in (FACTS_FILE, PROMPTS_FILE, WEIGHTS_FILE, SCHEDULER_FILE):
        if not (folder / part).is_file():
            text = f"{folder} has no {part}; allowed: a folder that training exported"
            raise ConfigError("measure.weights", text)
    check_known(cfg, {"measure.dtype": CHOICES["model.dtype"], "measure.device": CHOICES["cluster.device"]})
    check_cuda(cfg, "measure.device")
    kind: Any = getattr(diffusers, options.scheduler or "SchedulerMixin", None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        text = f"{options.scheduler!r} is no scheduler of diffusers; allowed: one for flow matching"
        raise ConfigError("measure.scheduler", f"{text}, as FlowMatchEulerDiscreteScheduler")
    facts = json.loads((folder / FACTS_FILE).read_text())
    check_packages(stored_packages(facts["data"]), options.data_dir, "measure.data_dir")


def score(run: RunConfig, out: Path) -> str:
    """Sample prompts with plain diffusers, find the nearest real pictures or clips; writes score.json and sheets."""
    cfg: ScoreConfig = run.measure
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    folder = Path(cfg.weights)
    facts, listed = (json.loads((folder / name).read_text()) for name in (FACTS_FILE, PROMPTS_FILE))
    guidance = cfg.guidance_scale or float(facts["guidance_scale"])
    stored = json.loads((folder / SCHEDULER_FILE).read_text())
    kind = getattr(diffusers, cfg.scheduler or stored["_class_name"])
    scheduler = kind.from_config(stored) if kind.__name__ == stored["_class_name"] else kind()
    result: dict[str, Any] = {
        "weights": cfg.weights,
        "steps": cfg.steps,
        "guidance_scale": guidance,
        "scheduler": kind.__name__,
        "seed": cfg.seed,
        "dtype": cfg.dtype,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name in SHEETS.values():
        (out / name).unlink(missing_ok=True)  # of an earlier score

    def draw(captions: Sequence[str]) -> Tensor:
        model = load_stock(folder / "transformer", getattr(torch, cfg.dtype)).to(device_type(cfg.device))
        texts = [
            encode_prompts(part, facts["text_encoder"], facts["text_tokens"]) for part in (captions, [""])
        ]
        embeds, mask = (torch.cat(parts) for parts in zip(*texts, strict=True))
        noise = draw_noise(len(captions), latent_size(facts), cfg.seed)
        return sample(model, scheduler, noise, embeds, mask, cfg.steps, guidance, cfg.batch, progress=True)

    if "frames" in facts:
        result |= score_clips(cfg.limit, cfg.sheet_prompts, cfg.data_dir, facts, draw, out)
    else:
        result |= score_pictures(cfg, facts, listed, draw, out)
    write_json(out / "score.json", result)
    if cfg.publish:
        with replacing_folder(folder) as fresh:
            shutil.copytree(folder, fresh, dirs_exist_ok=True)
            for path in (out / name for name in ("score.json", *SHEETS.values())):
                if path.exists():
                    shutil.copy(path, fresh)
            write_json(fresh / FACTS_FILE, facts | {"guidance_scale": guidance})
            write_model_card(fresh)
    print(render(score_template(facts), score=result))
    return "ok"


def latent_size(facts: dict[str, Any]) -> tuple[int, ...]:
    """Channels, frames of a clip, height and width of a model's latents in pixel space."""
    side, factor = facts["resolution"], facts.get("frame_factor", 1)
    return (3 * factor, *([facts["frames"] // factor] if "frames" in facts else []), side, side)


def score_pictures(
    cfg: ScoreConfig,
    facts: dict[str, Any],
    listed: dict[str, list[str]],
    draw: Callable[[Sequence[str]], Tensor],
    out: Path,
) -> dict[str, Any]:
    """How often the nearest real picture is the right one, by role; writes a sheet of each."""
    items, pictures = load_listed(stored_packages(facts["data"]), cfg.data_dir, listed)
    roles = {role: [k for k, item in enumerate(items) if item.role == role] for role in SHEETS}
    prompts = {role: spaced(whole, cfg.limit or len(whole)) for role, whole in roles.items()}
    asked = sorted(set().union(*prompts.values()))
    made = draw([items[k].caption for k in asked])
    real = resize(pictures, facts["resolution"])
    closer = {"features": similarity(features(made), features(real)), "pixels": closeness(made, real)}
    ways = {"features": "cosine, EfficientNet-Lite0 (ImageNet), 1280-d", "pixels": "Euclidean, RGB"}
    result: dict[str, Any] = {"few": FEW, "distances": ways}
    for role, chosen in prompts.items():
        if not chosen:
            result[role] = "none"
            continue
        pool = roles["train"] if role == "train" else [*range(len(items))]
        named = "training" if role == "train" else "all prompts"
        rows = [asked.index(k) for k in chosen]
        answers = torch.tensor([pool.index(k) for k in chosen])
        found = {way: ranks(closer[way][rows][:, pool], answers) for way in ways}
        result[role] = {"prompts": len(chosen), "among": f"the {len(pool)} real pictures of {named}"} | found
        shown = spaced(chosen, cfg.sheet_prompts)
        save_sheet([(items[k].caption, made[asked.index(k)], real[k]) for k in shown], out / SHEETS[role])
    return result


def place(closer: Tensor, answers: Tensor) -> Tensor:
    """Rank of the right column of each row [n] (1: the nearest; ties against); closer [n, m], larger is nearer."""
    return (closer >= closer.gather(1, answers[:, None])).sum(1)


def shares(places: Tensor, name: str) -> dict[str, float]:
    """How often the right one is the nearest, and among the five nearest."""
    return {f"{name}{k}": round(float((places <= k).float().mean()), 4) for k in (1, 5)}


def ranks(closer: Tensor, answers: Tensor) -> dict[str, float]:
    """Top-1 and top-5 share and the median rank of the right column; closer [n, m], answers [n].

    With m > FEW also the top-1 share expected among the right one and FEW - 1 of the others, drawn at random.
    """
    places = place(closer, answers)
    found = shares(places, "top")
    others = closer.shape[1] - 1
    if others >= FEW:
        # None of the place - 1 nearer ones is drawn.
        draws = math.comb(others, FEW - 1)
        odds = [math.comb(others - nearer, FEW - 1) / draws for nearer in (places - 1).tolist()]
        found["top1_of_few"] = round(sum(odds) / len(odds), 4)
    return found | {"median_rank": float(places.float().median())}


def closeness(made: Tensor, real: Tensor) -> Tensor:
    """Minus the Euclidean distance of pictures: [n, 3, r, r], [m, 3, r, r] -> [n, m]."""
    return -torch.cdist(made.flatten(1), real.flatten(1))
