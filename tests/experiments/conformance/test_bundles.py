"""Bundles are refused in one line that says what is wrong; the command, and runs of this project as bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.conformance.bundle import read_bundle
from experiments.conformance.fields import BundleError
from tests.experiments.commands import command
from tests.experiments.conformance.engines import LOUD, changed, naive, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is right, with hidden states of one place."""
    case = LOUD.but(steps=3, images=2, size=None)
    tokens = torch.zeros(4, 144, 48)
    return write(tmp_path_factory.mktemp("bundle"), case, naive(case), hidden={"step0.whole.layer0": tokens})


def recipe(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        changed(model=json.loads((folder / "bundle.json").read_text())["model"] | changes)(folder)

    return change


def tensors(name: str, **changes: Any) -> Callable[[Path], None]:
    """Another value of a tensor, None to leave it out, or a function of what is there."""

    def change(folder: Path) -> None:
        content = load_file(folder / f"{name}.safetensors")
        for key, value in changes.items():
            content[key] = value(content[key]) if callable(value) else value
        kept = {key: value.contiguous() for key, value in content.items() if value is not None}
        save_file(kept, folder / f"{name}.safetensors")

    return change


WRONG: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: (folder / "bundle.json").unlink(), "bundle.json: is missing; allowed: a folder with bundle.json"),
    (lambda folder: (folder / "latents.safetensors").unlink(), "latents.safetensors: is missing; allowed"),
    (lambda folder: (folder / "inputs.safetensors").write_bytes(b"x"), "inputs.safetensors: cannot be read"),
    (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json: cannot be read"),
    (changed(warmup="absent"), "bundle.json: warmup is missing; allowed: 0 or more synchronous steps"),
    (changed(format=2), "bundle.json: format=2 is unknown; allowed: 1"),
    (changed(step=3), "bundle.json: step is unknown, nearest: steps; allowed: format, model"),
    (changed(patches=13), r"bundle.json: patches=13 is outside 1..12 .*; allowed: 1..12"),
    (changed(warmup=4), r"bundle.json: warmup=4 is outside 0..3 .*; allowed: 0..3"),
    (changed(devices="2"), "bundle.json: devices='2' is of the wrong type; allowed: 1 or more"),
    (changed(steps=0), "bundle.json: steps=0 is too small; allowed: 1..10000"),
    (changed(text="stale"), "bundle.json: text=.*allowed: exact, first_patch"),
    (changed(split=[1, 3]), "bundle.json: split=.*allowed"),
    (changed(split=["a", 2]), "bundle.json: split=.*allowed"),
    (changed(dtype="int8"), "bundle.json: dtype='int8' is unknown; allowed: float32"),
    (changed(tolerance=-1), "bundle.json: tolerance=-1 is too small; allowed"),
    (changed(tolerance=float("nan")), "bundle.json: tolerance=nan is of the wrong type; allowed"),
    (changed(tolerance=2.0), "bundle.json: tolerance=2.0 is too large; allowed"),
    (changed(guidance_scale=1e308), "bundle.json: guidance_scale=1e.308 is too large; allowed: 0..1000"),
    (recipe(gain=1e300), "bundle.json: model.gain=1e.300 is too large; allowed"),
    (recipe(seed=2**64), "bundle.json: model.seed=18446744073709551616 is too large; allowed"),
    (changed(scheduler={"class": "DDIM"}), "bundle.json: scheduler.class=DDIM is unknown.*allowed: DPM"),
    (changed(scheduler="absent"), "bundle.json: scheduler is missing; allowed"),
    (changed(scheduler={"class": "DDIMScheduler", "set_timesteps": {"num_inference_steps": 2}}), "makes 2; allowed"),
    (changed(scheduler={"class": "DPMSolverMultistepScheduler", "config": {"algorithm_type": "sde-dpmsolver++"}}),
     r"scheduler is DPMSolverMultistepScheduler with algorithm_type=sde-dpmsolver\+\+ draws noise.*allowed"),
    (recipe(**{"class": "UNet"}), "bundle.json: model.class=UNet: is unknown.*allowed: PixArt"),
    (recipe(folder="/nowhere/at/all"), "bundle.json: model has both a folder and a class"),
    (recipe(**{"class": None, "folder": "/nowhere/at/all"}), "bundle.json: model.folder=/nowhere.*allowed"),
    (recipe(config={"layers": 3}), "bundle.json: model.class=.*takes no layers; allowed"),
    (recipe(text_tokens=9), r"inputs.safetensors: negative_prompt_embeds is \[2, 7, 16\]; allowed: \[2, 9"),
    (tensors("inputs", noise=torch.zeros(2, 3, 46, 48)), "inputs.safetensors: noise is 46 x 48; allowed: .* 4"),
    (tensors("inputs", noise=torch.zeros(2, 4, 48, 48)), r"inputs.safetensors: noise is .*allowed: \[2, 3, 48, 48\]"),
    (tensors("inputs", noise=None), "inputs.safetensors: noise is missing"),
    (tensors("inputs", prompt_embeds=None), "inputs.safetensors: prompt_embeds is missing; allowed"),
    (tensors("inputs", negative_prompt_embeds=None), "negative_prompt_embeds is missing, which guidance_scale=4.5"),
    (tensors("inputs", prompt_masks=torch.ones(2, 7)), "prompt_masks is unknown, nearest: prompt_mask; allowed: noise"),
    (tensors("inputs", prompt_mask=torch.ones(2, 8)), r"prompt_mask is \[2, 8\]; allowed: \[2, 7\]"),
    (tensors("latents", latents=None), "latents.safetensors: latents is missing; allowed"),
    (tensors("latents", latents=lambda x: x * torch.nan), "latents.safetensors: latents has NaN or infinite values"),
    (tensors("latents", latents=torch.zeros(1, 3, 48, 48)), r"latents is \[1, 3, 48, 48\]; allowed: \[2, 3, 48, 48\]"),
    (tensors("inputs", prompt_mask=torch.full((2, 7), 1e38)), "prompt_mask has other numbers than 0 and 1; allowed"),
    (tensors("latents", latents=torch.full((2, 3, 48, 48), 1e300, dtype=torch.double)), "has NaN or infinite values"),
    (tensors("latents", steps=torch.zeros(2, 2, 3, 48, 48)), r"latents.safetensors: steps is \[2, 2"),
    (tensors("latents", steps=lambda x: x + 1), "latents is not the last of steps"),
    (tensors("hidden", layer0=torch.zeros(1)), "hidden.safetensors: layer0 is unknown; allowed: step0..2"),
    (tensors("hidden", **{"step0.patch4.layer0": torch.zeros(1)}), "step0.patch4.layer0 is unknown"),
    (tensors("hidden", **{"step1.patch0.layer0": torch.zeros(1)}), r"patch0.layer0 is \[1\]; allowed: \[4, 36, 48\]"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_a_wrong_bundle_is_refused_in_one_line(index: int, whole: Path, tmp_path: Path) -> None:
    change, text = WRONG[index]
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(BundleError, match=text) as error:
        read_bundle(tmp_path)
    assert "\n" not in str(error.value) and "allowed: " in str(error.value)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def judge(out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command on a bundle, its record in `out`; the exit code."""
    arguments = ["experiment=conformance", "cluster=sim", "log.wandb.mode=disabled", f"hydra.run.dir={out}"]
    return lambda *more: command(monkeypatch, *arguments, *more)


@pytest.mark.slow
def test_the_command(judge, out: Path, tmp_path: Path, capsys) -> None:
    wrong, right = (write(tmp_path / str(n), LOUD, naive(LOUD, warmup=n)) for n in (2, 1))
    for keys, message in (
        ([], "error: bundle=null has nothing to judge; allowed:"),
        ([f"bundle={out}"], f"error: bundle={out}: "),
        ([f"bundle={right}", "measure.tolerance=0"], "error: measure.tolerance=0.0 is too small; allowed: above 0"),
    ):  # fmt: skip
        assert judge(*keys) == 2 and not out.exists()
        error = capsys.readouterr().err
        assert error.startswith(message) and error.count("\n") == 1

    assert judge(f"bundle={wrong}") == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("not equal: they part in latents at step 1, patch 0 (by ") and error.count("\n") == 1
    )
    assert "explained by W+1 (one synchronous step too many" in error
    record = json.loads((out / "conformance.json").read_text())
    assert (record["equal"], record["explained_by"]) == (False, ["W+1"])

    assert judge(f"bundle={right}") == 0
    assert "equal: all 4 steps agree to" in capsys.readouterr().out


def test_what_is_not_finite_is_neither_equal_nor_different(judge, out: Path, tmp_path: Path, capsys) -> None:
    bundle = write(tmp_path / "bundle", LOUD, naive(LOUD))
    tensors("inputs", prompt_embeds=lambda embeds: torch.full_like(embeds, 3e38))(bundle)
    assert judge(f"bundle={bundle}") == 1
    assert capsys.readouterr().err.startswith("not finite, so neither equal nor different: the reference")
    assert json.loads((out / "conformance.json").read_text())["equal"] is False


def test_a_run_of_this_project_is_a_bundle(judge, tmp_path: Path, monkeypatch, capsys) -> None:
    keys = [
        "cluster=sim",
        "model=sd3_tiny",
        "devices=2",
        "method.patches=3",
        "method.text=first_patch",
        "steps=4",
    ]
    keys += ["measure.repeats=1", "measure.warmup_runs=0", "measure.memory=false", "log.wandb.mode=disabled"]
    assert command(monkeypatch, *keys, "log.progress=false", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert judge(f"bundle={tmp_path / 'run'}") == 0
    assert "equal: the last latents agree" in capsys.readouterr().out
