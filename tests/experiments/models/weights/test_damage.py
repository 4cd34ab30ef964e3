"""Weights and schedulers that cannot be used: refused by the command in one line. test_files.py has every damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.command import cli
from experiments.command.compose import plan
from tests.experiments.commands import complaint
from tests.experiments.models.weights.files import SINGLE, change


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A folder in diffusers' layout."""
    folder = shutil.copytree(whole, tmp_path / "model")
    write_scheduler(folder, {"_class_name": "DDIMScheduler"})
    (folder / "pipefusion_lab.json").write_text(json.dumps({"pixel_space": True, "text_tokens": 4}))
    return folder


def write_scheduler(folder: Path, config: dict[str, Any]) -> None:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


def use(folder: Path) -> list[str]:
    return ["model.text=random", f"model.weights={folder}", "devices=1"]


def test_headers_and_tensors_are_checked(model: Path) -> None:
    cli.check(plan(use(model)), [])
    file = model / "transformer" / SINGLE
    change(file, proj_out__bias=torch.zeros(7))
    assert complaint(use(model)).startswith(
        f"model.weights={file} has proj_out.bias of shape [7]; allowed: [48]"
    )
    file.write_bytes(file.read_bytes()[:-4])
    assert complaint(use(model)).startswith(f"model.weights={file} is truncated or broken")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"algorithm_type": "sde-dpmsolver++"}, "algorithm_type=sde-dpmsolver++ draws noise"),
        (
            {"thresholding": True, "sample_max_value": 4.0},
            "thresholding=True, sample_max_value=4.0 steps a part of the latent otherwise",
        ),
    ],
)
def test_shipped_schedulers_that_cannot_be_stepped_by_patches(
    config: dict[str, Any], expected: str, model: Path
) -> None:
    write_scheduler(model, {"_class_name": "DPMSolverMultistepScheduler", **config})
    text = complaint(use(model))
    assert text.startswith(f"scheduler=shipped is DPMSolverMultistepScheduler with {expected}")
    assert "allowed: " in text
