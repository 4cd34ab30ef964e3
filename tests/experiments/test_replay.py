"""A run directory comes out again from its files alone: with plain diffusers, or by the reference of what is stale."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from PIL import Image
from safetensors.torch import load_file, save_file

from experiments.clips import clip_bytes, contact_sheet
from experiments.conformance.bundle import on_device, read_bundle
from experiments.conformance.compare import errors
from experiments.conformance.fields import BundleError, read_fields
from experiments.conformance.loops import denoise
from experiments.difference import largest_difference
from experiments.methods import METHODS
from experiments.models.decode import latent_factor
from experiments.replay import main, replay
from tests.cases import CPU, FAMILIES
from tests.experiments.commands import command
from tests.experiments.tiny_transformers import flux_transformer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real serial run of a small random model, guided, two prompts, a multistep solver."""
    out = tmp_path_factory.mktemp("replay") / "run"
    chosen = ["method=serial", "devices=1", "model=pixart_tiny", "steps=3", "scheduler=dpmsolver++"]
    chosen += ["prompt=[a,b]", "guidance_scale=3", "measure.repeats=1", "measure.warmup_runs=0"]
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={out}") == 0
    return out


@pytest.fixture
def changed(run_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """The run with other words in its record, or other latents."""

    def change(latents: torch.Tensor | None = None, **record: object) -> Path:
        folder = shutil.copytree(run_dir, tmp_path / "changed", dirs_exist_ok=True)
        if latents is not None:
            save_file({"latents": latents}, folder / "latents.safetensors")
        (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | record))
        return Path(folder)

    return change


def test_serial_comes_out_again_and_nothing_else(run_dir: Path, changed, capsys) -> None:
    ours, stored = replay(run_dir)
    assert stored.shape == (2, 3, 32, 32)
    assert float((ours - stored).abs().max()) <= 1e-5 * float(ours.abs().max())
    assert main([str(run_dir)]) == 0
    latents = stored.clone()
    latents[0, 0, 0, 0] += 0.1 * latents.abs().max()
    assert main([str(changed(latents))]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_never_equal(bad: float, changed, monkeypatch, capsys) -> None:
    fine = torch.ones(1, 3, 4, 4)
    for broken in ((fine * bad, fine), (fine, fine * bad), (fine * bad, fine * bad)):
        monkeypatch.setattr("experiments.replay.replay", lambda path, broken=broken: broken)
        assert main([str(changed(broken[1]))]) == 1
        assert "serial: not finite, so not compared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"status": "failed", "reason": "rank 0: MemoryError"}, "the run failed: rank 0: MemoryError"),
        ({"status": "running"}, "nothing to replay: the run died: ended without a word"),
        ({"schema": 99}, "run.json has schema 99, and this version reads up to 1"),
        ({"method": "nobody_knows"}, "method=nobody_knows is unknown; allowed: serial,"),
        ({"method": "of_others"}, "no reference"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(record, message: str, changed, monkeypatch, capsys) -> None:
    monkeypatch.setitem(METHODS, "of_others", replace(METHODS["naive_patch"], stale=None))
    folder = changed(**record)
    assert main([str(folder)]) == 2
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1
    with pytest.raises(BundleError, match=r"run\.json"):
        read_fields(folder)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is no run directory: it has no run.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "config", "exact"),
    [
        ("ring", {}, True),
        ("pipefusion", {"warmup": 1, "patches": 4}, False),
        ("pipefusion", {"warmup": 20, "patches": 4}, True),
        ("pipefusion", {"warmup": 1, "patches": 1}, True),
        ("distrifusion", {"warmup": 1}, False),
        ("naive_patch", {"warmup": 20}, True),
    ],
)
def test_what_must_equal_serial(method: str, config: dict[str, int], exact: bool) -> None:
    assert METHODS[method].never_stale(20, config) is exact


def test_nothing_of_ours_takes_part() -> None:
    ours = "m.split('.')[0] in ('pipefusion', 'baselines')"
    code = f"import sys, experiments.replay; print([m for m in sys.modules if {ours}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


COMES_OUT = [*(name for name in FAMILIES if name != "sd35_tiny"), "flux_kontext_tiny", "qwen_edit_tiny"]


@pytest.mark.parametrize("model", COMES_OUT)
@pytest.mark.fast_cases(2)
def test_every_family_comes_out_again(model: str, tmp_path: Path, monkeypatch) -> None:
    chosen = [f"model={model}", "method=pipefusion", "devices=2", "method.patches=2", "method.warmup=2"]
    chosen += ["steps=2", "cluster=sim", "guidance_scale=3", "prompt=[a,b]", "measure.memory=false"]
    assert command(monkeypatch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}") == 0
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize("model", ["pixart_tiny", "hunyuan_tiny", "qwen_tiny"])
@pytest.mark.fast_cases(1)
def test_a_picture_that_is_not_square_comes_out_again(model, tmp_path, monkeypatch) -> None:
    height, width = (96, 64) if model == "pixart_tiny" else (128, 192)
    chosen = [f"model={model}", f"model.height={height}", f"model.width={width}", "method=pipefusion"]
    chosen += ["devices=2", "steps=2", "cluster=sim", "guidance_scale=3", "log.wandb.mode=disabled"]
    chosen += ["measure.repeats=1", "measure.warmup_runs=0", "measure.memory=false"]
    assert command(monkeypatch, *chosen, f"hydra.run.dir={tmp_path}") == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert [record[key] for key in ("resolution", "height", "width")] == [None, height, width]
    latents = load_file(tmp_path / "latents.safetensors")["latents"]
    side = 1 if model == "pixart_tiny" else 8
    assert latents.shape == load_file(tmp_path / "inputs.safetensors")["noise"].shape
    assert latents.shape[2:] == (height // side, width // side)
    if model == "pixart_tiny":
        with Image.open(tmp_path / "images" / "0.png") as picture:
            assert picture.size == (width, height)
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize(("axis", "experts"), [("frames", 1), ("rows", 1), ("frames", 2)])
@pytest.mark.fast_cases(1)
def test_a_video_checkpoint_comes_out_again(
    axis: str, experts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the hub's layout: the VAE says how many pixels a latent row is, 16 in Wan 2.2 5B.

    Where a pipeline has two transformers its own configuration says at which noise level the second takes over.
    """
    folder, out = tmp_path / "wan", tmp_path / "run"
    torch.manual_seed(0)
    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "ffn_dim": 16,
        "freq_dim": 16,
    }
    channels = {"in_channels": 4, "out_channels": 4, "text_dim": 8}
    for name in ("transformer", "transformer_2")[:experts]:
        diffusers.WanTransformer3DModel(**sizes, **channels).save_pretrained(folder / name)
    if experts > 1:
        index = {"_class_name": "WanPipeline", "boundary_ratio": 0.7}
        (folder / "model_index.json").write_text(json.dumps(index))
    diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(folder / "scheduler")
    normal = {"latents_mean": [0.1] * 4, "latents_std": [0.5] * 4}
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, num_res_blocks=1, scale_factor_spatial=16, **normal)
    vae.save_pretrained(folder / "vae")
    assert latent_factor(folder) == 16
    chosen = [f"model.weights={folder}", "model=wan22_ti2v_5b", "model.text=random", "model.dtype=float32"]
    chosen += [
        "model.height=128",
        "model.width=64",
        "model.frames=13",
        f"method.patch_axis={axis}",
        "steps=3",
    ]
    chosen += ["devices=2", "cluster=sim", "guidance_scale=3", "measure.memory=false"]
    assert command(monkeypatch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={out}") == 0
    latents = load_file(out / "latents.safetensors")["latents"]
    assert latents.shape == (1, 4, 4, 8, 4)
    with torch.no_grad():
        clip = clip_bytes(vae.decode(latents * 0.5 + 0.1).sample)[0]
    with Image.open(out / "images" / "0.png") as sheet:
        assert np.array_equal(np.asarray(sheet), np.asarray(contact_sheet(clip)))
    assert len(clip) == 13 and (out / "images" / "0.mp4").stat().st_size
    record = json.loads((out / "run.json").read_text())
    assert record["frames"] == 13 and ("experts" in record) == (experts > 1)
    assert main([str(out)]) == 0


def test_a_checkpoint_that_edits_comes_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipeline says that there is a picture; the shift of the timesteps does not count the tokens of that."""
    folder, out = tmp_path / "kontext", tmp_path / "run"
    torch.manual_seed(0)
    flux_transformer().save_pretrained(folder / "transformer")
    diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline"}')
    chosen = [
        f"model.weights={folder}",
        "model=flux_tiny",
        "model.text=random",
        "method=pipefusion",
        "steps=3",
    ]
    chosen += ["model.architecture.guidance=none"]
    chosen += ["method.warmup=1", "method.patches=2", "devices=2", "cluster=sim", "measure.memory=false"]
    assert command(monkeypatch, *chosen, "log.wandb.mode=disabled", f"hydra.run.dir={out}") == 0
    noise, references = (load_file(out / "inputs.safetensors")[name] for name in ("noise", "references"))
    assert references[:, 0].shape == noise.shape == load_file(out / "latents.safetensors")["latents"].shape
    arguments = json.loads((out / "run.json").read_text())["scheduler"]["set_timesteps"]
    assert arguments["mu"] == calculate_shift(noise[0, 0].numel() // 4)
    assert main([str(out)]) == 0


STALE = [(name, "pixart_tiny", {}) for name in METHODS if not METHODS[name].exact]
STALE += [("pipefusion", "wan_tiny", {"patch_axis": axis}) for axis in ("frames", "rows")]
STALE += [("pipefusion", "sd3_tiny", {"order": "rotational", "forecast": "taylor1", "patches": 3})]
STALE += [("distrifusion", "hunyuan_tiny", {"sync_layers": "[1,6]", "compress": "int2"})]
STALE += [("ring", "pixart_tiny", {"compress": "int1"}), ("pipefusion", "sd3_tiny", {"compress": "int2"})]
STALE += [("pipefusion", "qwen_edit_tiny", {}), ("naive_patch", "flux_kontext_tiny", {})]
STALE += [("pcpp", "sd3_tiny", {"fraction": 0.3}), ("pipefusion", "sd3_tiny", {"text": "first_patch"})]


@pytest.mark.parametrize(("method", "model", "own"), STALE)
@pytest.mark.fast_cases(2)
def test_a_displaced_run_is_held_to_the_reference(method, model, own, tmp_path, monkeypatch, capsys) -> None:
    """Four simulated devices, of whose steps two have stale K, V."""
    run = tmp_path / "run"
    chosen = [f"method={method}", f"model={model}", "devices=4", "steps=3", "cluster=sim", "guidance_scale=3"]
    chosen += [f"method.{key}={value}" for key, value in own.items()]
    quick = ["measure.memory=false", "measure.repeats=1", "measure.warmup_runs=0", "log.wandb.mode=disabled"]
    assert command(monkeypatch, *chosen, *quick, f"hydra.run.dir={run}") == 0
    assert main([str(run)]) == 0
    assert "(equal; replayed with the reference of displaced methods" in capsys.readouterr().out
    if method == "asyncdiff" or (own.keys() & {"order", "compress"} and method == "pipefusion"):
        bundle = read_bundle(run)
        assert max(errors(bundle.latents, denoise(on_device(bundle, CPU), bundle.request))) <= 1e-3
    serial, stored = replay(run)
    assert largest_difference(stored, serial) > 1e-3, "serial is as near as the reference"
    save_file({"latents": stored * 1.01}, run / "latents.safetensors")
    assert main([str(run)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
