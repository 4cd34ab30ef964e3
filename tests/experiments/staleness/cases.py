"""Runs of a tiny random model on simulated devices, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from experiments.config import ModelConfig, RunConfig
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models.model import louder
from experiments.session import Session
from experiments.staleness.probe import Seen, probe
from experiments.staleness.watch import Watch, latents_by_step
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import DiTShape

STEPS = 5
PICTURES = 2
SESSION = Session()
torch.set_num_threads(1)


def case(
    method: str, devices: int = 1, *, model: str = "pixart_tiny", given: Parallel | None = None, **own: Any
) -> RunConfig:
    config = METHODS[method].Config(**own)
    prompts = ["a tree", "a house"]
    return RunConfig(
        model=small(model), method=config, devices=devices, parallel=given or Parallel(), steps=STEPS,
        guidance_scale=3.0, prompt=prompts, seed=7,
    )  # fmt: skip


def small(name: str) -> ModelConfig:
    """A model of conf/, a video's of three token rows."""
    config = model_config(name)
    return replace(config, height=48, width=32) if name == "wan_tiny" else config


def run_label(cfg: RunConfig) -> str:
    return f"{cfg.method} {cfg.devices} {cfg.parallel}"


def shape(model: str = "pixart_tiny") -> DiTShape:
    return SESSION.model(small(model)).shape


def seen(cfg: RunConfig) -> list[Seen]:
    with torch.inference_mode():
        return probe(cfg, SESSION)


def run(cfg: RunConfig, watch: Watch | None = None) -> Tensor:
    """The noise and the latent after every step."""
    with torch.inference_mode():
        return latents_by_step(cfg, SESSION, watch, louder(SESSION.tensors(cfg.model), 2.0))


@cache
def serial() -> Tensor:
    return run(case("serial"))
