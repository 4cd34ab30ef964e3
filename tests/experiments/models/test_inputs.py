"""The tensors a run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.config import RunConfig
from experiments.models import components
from experiments.models.inputs import make_inputs
from experiments.models.model import open_model
from experiments.tensors import write_tensors
from tests.experiments.commands import config
from tests.experiments.tiny_pipelines import save_tiny


def run_inputs(cfg: RunConfig) -> dict[str, torch.Tensor]:
    return make_inputs(cfg, open_model(cfg.model))


def test_shapes_and_names(tmp_path: Path) -> None:
    write_tensors(
        tmp_path / "inputs.safetensors", run_inputs(config("prompt=[a fox,a bee]", "guidance_scale=2"))
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
    assert set(run_inputs(config("guidance_scale=1"))) == {"noise", "prompt_embeds", "prompt_mask"}


def test_depend_on_seed_and_prompt_only() -> None:
    first, again = (
        run_inputs(config("prompt=a fox")),
        run_inputs(config("prompt=a fox", "devices=2", "method=ring")),
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"], run_inputs(config("prompt=a fox", "seed=1"))["noise"])
    other = run_inputs(config("prompt=a bee"))
    assert torch.equal(first["noise"], other["noise"])
    assert not torch.equal(first["prompt_embeds"], other["prompt_embeds"])


def test_runs_of_a_sweep_encode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls, encode = save_tiny("pixart_alpha", tmp_path, with_transformer=True), [], components.encode
    monkeypatch.setattr(components, "encode", lambda *given: calls.append(given) or encode(*given))
    names = [f"model.weights={folder}", "model.architecture=null", "model.resolution=64"]
    first, again = (run_inputs(config(*names, f"method={method}")) for method in ("serial", "ring"))
    assert len(calls) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)
    run_inputs(config(*names, "prompt=a bee"))
    assert len(calls) == 2


def test_a_picture_depends_on_its_seed_alone() -> None:
    both = run_inputs(config("prompt=[a fox,a bee]", "seed=[5,7]"))
    alone = run_inputs(config("prompt=a bee", "seed=7"))
    for name, tensor in alone.items():
        assert torch.equal(tensor[0], both[name][1]), name


def test_several_pictures_of_each_prompt_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a fox\n\n  a bee \n")
    inputs = run_inputs(config(f"prompt_file={path}", "images_per_prompt=2", "seed=[1,2,3,4]"))
    listed = run_inputs(config("prompt=[a fox,a fox,a bee,a bee]", "seed=[1,2,3,4]"))
    assert all(torch.equal(inputs[name], listed[name]) for name in listed)


LISTING = ["sd3_tiny", "flux_tiny", "flux2_tiny", "qwen_edit_tiny", "hunyuan_tiny", "dit_tiny"]


@pytest.mark.parametrize("model", LISTING)
def test_every_model_gets_the_tensors_that_it_lists(model: str) -> None:
    cfg = config(f"model={model}", "prompt=[a fox,a bee]", "guidance_scale=3")
    shape, inputs = open_model(cfg.model).shape, run_inputs(cfg)
    names = [name for name, _ in shape.prompt]
    guided = [f"negative_{name}" for name in names] if shape.guidance == "cfg" else []
    assert set(inputs) == {"noise", *names, *guided, *dict(shape.pictures)}
    for name, size in shape.prompt + shape.pictures:
        assert inputs[name].shape == (2, *size)
        assert name.startswith("prompt_mask") or not torch.equal(inputs[name][0], inputs[name][1])
