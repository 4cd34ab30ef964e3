"""Weights and schedulers that cannot be used: refused in one line before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file, save_file

from experiments import cli
from experiments.compose import plan
from tests.experiments.runs import complaint


@pytest.fixture(scope="module", autouse=True)
def _schemas() -> None:
    cli.set_up()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in diffusers' layout, as small as they come."""
    folder = tmp_path_factory.mktemp("weights")
    model = PixArtTransformer2DModel(
        num_layers=1, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, in_channels=3,
        out_channels=3, sample_size=16, patch_size=4, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    model.save_pretrained(folder / "transformer")
    (folder / "scheduler").mkdir()
    text = json.dumps({"_class_name": "DDIMScheduler"})
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    (folder / "pipefusion_lab.json").write_text(json.dumps({"pixel_space": True, "text_tokens": 4}))
    return folder


FILE = "transformer/diffusion_pytorch_model.safetensors"


def truncate(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / FILE), folder / "transformer" / "diffusion_pytorch_model.bin")
    (folder / FILE).unlink()


def reshape(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    save_file({**tensors, "proj_out.bias": torch.zeros(7)}, folder / FILE)


def drop(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    del tensors["proj_out.bias"]
    save_file(tensors, folder / FILE)


def add(folder: Path) -> None:
    save_file({**load_file(folder / FILE), "extra.bias": torch.zeros(7)}, folder / FILE)


def empty(folder: Path) -> None:
    (folder / FILE).unlink()


def other_class(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))


def no_json(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_text("{")


DAMAGE = [
    (truncate, "is truncated or broken"),
    (pickle, "holds pickled weights (diffusion_pytorch_model.bin); allowed: *.safetensors"),
    (reshape, "has proj_out.bias of shape [7]; allowed: [48]"),
    (drop, "lacks proj_out.bias"),
    (add, "has extra.bias, which PixArtTransformer2DModel has not"),
    (empty, "holds no weights; allowed: *.safetensors"),
    (other_class, "is for UNet2DModel; allowed: PixArtTransformer2DModel"),
    (no_json, "is not readable as JSON"),
]


def use(folder: Path) -> list[str]:
    return ["model.text=random", f"model.weights={folder}", "devices=1"]


def test_good_weights_pass(weights: Path) -> None:
    cli.check(plan(use(weights)), [])


SCHEDULERS = [
    ({"algorithm_type": "sde-dpmsolver++"}, "algorithm_type=sde-dpmsolver++ draws noise"),
    (
        {"thresholding": True, "sample_max_value": 4.0},
        "thresholding=True, sample_max_value=4.0 steps a part of the latent otherwise",
    ),
]


@pytest.mark.parametrize(("config", "expected"), SCHEDULERS)
def test_shipped_schedulers_that_cannot_be_stepped_by_patches(
    config: dict, expected: str, weights: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(weights, tmp_path / "model")
    text = json.dumps({"_class_name": "DPMSolverMultistepScheduler", **config})
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    text = complaint(use(folder))
    assert text.startswith(f"scheduler=shipped is DPMSolverMultistepScheduler with {expected}")
    assert "allowed: " in text


@pytest.mark.parametrize(("damage", "expected"), DAMAGE, ids=[case[0].__name__ for case in DAMAGE])
def test_damaged_weights(damage, expected: str, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights, folder)
    damage(folder)
    text = complaint(use(folder))
    assert text.startswith("model.weights=")
    assert expected in text
