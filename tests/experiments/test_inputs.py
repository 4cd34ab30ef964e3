"""The tensors a run starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from experiments.config import RunConfig
from experiments.inputs import make_inputs, write_inputs
from experiments.models import open_model
from tests.experiments.runs import config


def inputs_of(cfg: RunConfig) -> dict[str, torch.Tensor]:
    return make_inputs(cfg, open_model(cfg.model).shape)


def test_shapes_and_names(tmp_path: Path) -> None:
    write_inputs(
        tmp_path / "inputs.safetensors", inputs_of(config("prompt=[a fox,a bee]", "guidance_scale=2"))
    )
    stored = load_file(tmp_path / "inputs.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        "noise": (2, 3, 32, 32),
        "prompt_embeds": (2, 12, 16),
        "prompt_mask": (2, 12),
        "negative_prompt_embeds": (2, 12, 16),
        "negative_prompt_mask": (2, 12),
    }
    assert stored["noise"].dtype == torch.float32
    assert torch.equal(stored["noise"], torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_no_negative_prompt_without_guidance() -> None:
    assert set(inputs_of(config("guidance_scale=1"))) == {"noise", "prompt_embeds", "prompt_mask"}


def test_depend_on_seed_and_prompt_only() -> None:
    first, again = (
        inputs_of(config("prompt=a fox")),
        inputs_of(config("prompt=a fox", "devices=2", "method=ring")),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], inputs_of(config("prompt=a fox", "seed=1"))["noise"])
    other = inputs_of(config("prompt=a bee"))
    assert torch.equal(first["noise"], other["noise"])
    assert not torch.equal(first["prompt_embeds"], other["prompt_embeds"])
