"""The model, prompts and noise that everything but the probe is measured on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from experiments.config import RunConfig, prompts_of
from experiments.inputs import draw_noise, encoded, spaced
from experiments.models import Model, open_model, scheduler_of
from experiments.staleness.settings import Setting
from experiments.staleness.trajectory import Trajectory, trajectory
from experiments.staleness.watch import Watcher
from pipefusion.core.dit import Conditioning, DiT


@dataclass(frozen=True)
class Subject:
    """What every run starts from: each picture has its prompt and a noise of its own seed."""

    model: Model
    view: DiT
    tensors: Callable[..., Tensor]
    scheduler: Any
    prompts: list[str]
    noise: Tensor
    cond: Conditioning

    def run(self, setting: Setting, watcher: Watcher | None = None) -> Trajectory:
        """The latent after every step of one method."""
        return trajectory(setting, self.view, self.tensors, self.scheduler, self.noise, self.cond, watcher)


def listed_prompts(cfg: RunConfig, model: Model) -> list[str]:
    """The prompts that the model was trained on, where its folder lists them, else the run's own."""
    path = None if model.folder is None else model.folder / "prompts.json"
    if path is None or not path.exists():
        return prompts_of(cfg)
    prompts: list[str] = json.loads(path.read_text())["train"]
    return prompts


def subject_of(cfg: RunConfig, pictures: int) -> Subject:
    """The model of a run with `pictures` prompts, evenly spaced over those listed; seeds count from the run's on."""
    model = open_model(cfg.model)
    prompts = spaced(listed_prompts(cfg, model), pictures)
    scale = float(
        model.facts.get("guidance_scale", 1.0) if cfg.guidance_scale is None else cfg.guidance_scale
    )
    guided = model.shape.guidance == "cfg" and scale > 1
    tensors = encoded(cfg, model, prompts, cfg.negative_prompt if guided else None)
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith("negative_")}
    against = {name.removeprefix("negative_"): tensors[name] for name in tensors if name not in given}
    return Subject(
        model,
        model.view(),
        cache(model.tensors()),  # ranks that hold the same share it
        scheduler_of(model, cfg.scheduler, cfg.steps),
        prompts,
        draw_noise(model.shape, [cfg.seed + picture for picture in range(len(prompts))], len(prompts)),
        Conditioning(given, scale, against or None),
    )
