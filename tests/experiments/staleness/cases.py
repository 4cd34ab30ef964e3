"""A tiny random model on simulated devices, for the tests of this folder."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from experiments.grid import model_config
from experiments.inputs import draw_noise, random_prompts
from experiments.models import Model, louder, open_model, scheduler_of
from experiments.staleness.probe import Seen, probe
from experiments.staleness.settings import Setting
from experiments.staleness.trajectory import Trajectory, trajectory
from experiments.staleness.watch import Watcher
from pipefusion.core.dit import Conditioning

STEPS = 5
PICTURES = 2
torch.set_num_threads(1)


@cache
def model(name: str = "pixart_tiny") -> Model:
    return open_model(model_config(name))


@cache
def _parts(name: str) -> tuple[Any, Any, Any]:
    one = model(name)
    return one.view(), cache(louder(one.tensors(), 2.0)), scheduler_of(one, "shipped", STEPS)


def seen(setting: Setting, name: str = "pixart_tiny") -> list[Seen]:
    view, _, scheduler = _parts(name)
    return probe(view, setting, scheduler)


def run(setting: Setting, watcher: Watcher | None = None, name: str = "pixart_tiny") -> Trajectory:
    view, tensors, scheduler = _parts(name)
    shape = model(name).shape
    negative = random_prompts([""] * PICTURES, shape) if shape.guidance == "cfg" else None
    cond = Conditioning(random_prompts(["a tree", "a house"], shape), 3.0, negative)
    return trajectory(setting, view, tensors, scheduler, draw_noise(shape, 7, PICTURES), cond, watcher)


@cache
def serial(name: str = "pixart_tiny") -> Trajectory:
    return run(Setting("serial"), name=name)
