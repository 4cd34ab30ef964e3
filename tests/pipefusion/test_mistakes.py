"""What a user of the library gets wrong: each is one ordinary exception whose message says what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.distributed as dist

from pipefusion import Denoiser, Parallel, generate, init, parallelize
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.kv import stale
from pipefusion.core.local import LocalFabric
from pipefusion.denoiser import require_prompts
from tests.experiments.tiny_pipelines import save_tiny
from tests.pipefusion.test_library import inputs
from tests.pipefusion.test_scripts import torchrun

SIDE, STEPS = 64, 3
SIZE = {"height": SIDE, "width": SIDE}


@pytest.fixture(scope="module")
def tiny_denoiser(fabric: LocalFabric, tiny_pipe: Callable[[str], Any]) -> Callable[[str], Denoiser]:
    return cache(lambda family: parallelize(tiny_pipe(family).transformer, fabric, **SIZE))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "pipefusoin"}, "method 'pipefusoin' is unknown; allowed: pipefusion, .*ulysses"),
        ({"method": "exact"}, "method 'exact' is unknown"),
        ({"method": "ulysses", "warmup": 1}, "ulysses has no warmup; allowed: heads"),
        ({"heads": "padded"}, "heads='padded' is unknown, nearest: pad; allowed: even, pad"),
        ({"method": stale, "heads": "padded"}, "heads='padded' is unknown"),
        ({"method": lambda: None}, r"too many positional arguments; allowed: a name, or a function attention\(run\)"),
        ({"method": lambda run, job: None}, r"missing a required argument: 'job'; allowed: a name, or a function"),
        ({"method": 5}, "5 is not a callable object; allowed: a name, or a function"),
        ({"method": lambda run: None, "text": "exact"}, "attention of one's own has no text; allowed: patches, warmup"),
        ({"patches": 5}, "patches=5 is outside 1..4"),
        ({"split": [1]}, r"split=\[1\] does not cut 2 layers"),
        ({"height": 60}, "60 x 64 pixels; allowed: multiples of 16"),
        ({"height": 72}, "latents of 9 x 8; allowed: multiples of 2"),
        ({"height": 0}, "latents of 0 x 8; allowed: multiples of 2"),
        ({"dtype": torch.int8}, "dtype=torch.int8; allowed: torch.float32, torch.float16, torch.bfloat16"),
    ],
)  # fmt: skip
def test_arguments_of_parallelize(
    settings: dict[str, Any], message: str, fabric: LocalFabric, tiny_pipe: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        parallelize(tiny_pipe("sd3").transformer, fabric, **SIZE | settings)


@pytest.mark.slow
def test_transformers_that_cannot_be_shared(fabric: LocalFabric, tiny_pipe: Any, tmp_path: Path) -> None:
    model = tiny_pipe("sd3").transformer
    with torch.device("meta"):
        hollow = type(model).from_config(model.config)
    quantised = type(model).from_config(model.config)
    block = quantised.transformer_blocks[0].ff.net[2]
    block.weight = torch.nn.Parameter(block.weight.to(torch.int8), requires_grad=False)
    unet = diffusers.UNet2DModel(block_out_channels=(32, 32, 32, 32))
    for source, message in [
        (unet, "UNet2DModel has no view; there are PixArt"),
        (torch.compile(model), "OptimizedModule has no view"),
        (hollow, r"has no data \(meta\); allowed: a model that is not offloaded"),
        (quantised, r"net.2.weight of the transformer is torch.int8; allowed: .* not quantised"),
        (None, "NoneType is no transformer; allowed: a module, a folder, a hub id"),
    ]:
        with pytest.raises(ValueError, match=message):
            parallelize(source, fabric, **SIZE)
    empty, half = tmp_path / "empty", tmp_path / "half"
    empty.mkdir()
    half.mkdir()
    (half / "config.json").write_text(json.dumps({**model.config, "_class_name": type(model).__name__}))
    for folder, message in [
        (tmp_path / "missing", "missing is no folder and no hub id"),
        (empty, "empty holds no config.json; allowed: a transformer's folder, or its pipeline's"),
        (half, "half holds no diffusion_pytorch_model.safetensors"),
    ]:
        with pytest.raises(FileNotFoundError, match=message):
            parallelize(folder, fabric, **SIZE)


def test_arguments_of_init(fabric: LocalFabric) -> None:
    with pytest.raises(
        ValueError, match="pipe 2 is 2 ranks, and there are 1 processes; allowed: torchrun --nproc"
    ):
        init(Parallel(pipe=2))
    with pytest.raises(ValueError, match="cfg=0; allowed: 1 or more"):
        init(Parallel(cfg=0))


def test_arguments_of_a_denoiser(fabric: LocalFabric, tiny_pipe: Any) -> None:
    denoiser = parallelize(tiny_pipe("sd3").transformer, fabric, **SIZE, warmup=STEPS + 1)
    noise, cond, scheduler = inputs(1, 8, 8)
    wider = Conditioning({**cond.prompt, "prompt_embeds": torch.ones(1, 5, 17)})
    padded = {**cond.prompt, "padding": torch.zeros(1, 5, dtype=torch.bool)}
    one_sided = Conditioning(padded, 2.0, cond.prompt)
    editing, cut = (
        Conditioning({**cond.prompt, "references": noise[:, None, :, :, :width]}) for width in (8, 4)
    )
    new = diffusers.FlowMatchEulerDiscreteScheduler()
    noisy = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    noisy.set_timesteps(STEPS)
    for arguments, message in [
        ((noise[0], cond, scheduler), r"noise \[4, 8, 8\]; allowed: \[B, 4, H, W\]"),
        ((noise.expand(2, -1, -1, -1), cond, scheduler), "has 1 rows of prompt_embeds; allowed: 2"),
        ((noise, Conditioning({"prompt_embeds": torch.ones(1, 5, 16)}), scheduler), "nothing of prompt_mask"),
        ((noise, wider, scheduler), r"has prompt_embeds \[1, 5, 17\]; allowed: \[1, 333, 16\]"),
        ((noise, one_sided, scheduler), "has nothing of padding; allowed: 1, one an image"),
        ((noise, editing, scheduler), "1 reference pictures for a SD3Transformer2DModel; allowed: 0..0"),
        ((noise, cut, scheduler), r"references \[1, 1, 4, 8, 4\]; allowed: \[1, pictures, 4, 8, 8\]"),
        ((noise, cond, new), "has no timesteps"),
        ((noise, cond, noisy), "draws noise in its steps"),
        ((noise, cond, diffusers.EulerDiscreteScheduler()), "EulerDiscreteScheduler is not supported"),
        ((noise, cond, scheduler), "warmup=4 is outside 0..3"),
    ]:
        with pytest.raises(ValueError, match=message):
            denoiser(*arguments)
    returns_nothing = parallelize(tiny_pipe("sd3").transformer, fabric, **SIZE, method=lambda run: None)
    with pytest.raises(
        TypeError, match=r"attention\(run\) returned None; allowed: a function attend_for\(job\)"
    ):
        returns_nothing(noise, cond, scheduler)


def test_a_second_encoder_s_prompt_has_one_length() -> None:
    names = (("prompt_embeds", (5, 8)), ("prompt_embeds_2", (4, 8)))

    def prompt(length: int) -> Conditioning:
        return Conditioning(
            {"prompt_embeds": torch.ones(1, 9, 8), "prompt_embeds_2": torch.ones(1, length, 8)}
        )

    require_prompts(names, prompt(4), 1)
    with pytest.raises(ValueError, match=r"has prompt_embeds_2 \[1, 3, 8\]; allowed: \[1, 4, 8\]"):
        require_prompts(names, prompt(3), 1)


LATENTS = torch.zeros(1, 4, 8, 8)


@pytest.mark.parametrize(
    ("family", "asked", "message"),
    [
        ("dit", {"prompt": "cat"}, r"prompt 'cat' is no class; allowed: 0..999, or one of 1001 names"),
        ("dit", {"negative_prompt": "cat"}, "DiTPipeline has no negative prompt here"),
        ("dit", {"height": 64, "width": 96}, "square"),
        ("flux", {"negative_prompt": "grey"}, "FluxPipeline has no negative prompt here; allowed: None"),
        ("flux", {"true_cfg_scale": 2.0}, "FluxPipeline has no true_cfg_scale here; allowed: guidance_scale"),
        ("flux2_klein", {"negative_prompt": "grey"}, "Flux2KleinPipeline has no negative prompt here"),
        ("qwen", {"guidance_scale": 2.0}, "QwenImagePipeline has no guidance_scale here; allowed: true_cfg_scale"),
        ("qwen", {"true_cfg_scale": 2.0}, "true_cfg_scale=2.0 needs a negative prompt"),
        ("sd3", {"prompt": []}, "0 texts; allowed: 1 or more prompts"),
        ("sd3", {"negative_prompt": ["a", "b"]}, "2 texts; allowed: 1 negative prompt, or 1"),
        ("sd3", {"num_images_per_prompt": 0}, "num_images_per_prompt=0; allowed: 1 or more"),
        ("sd3", {"num_inference_steps": 0}, "num_inference_steps=0; allowed: 1 or more"),
        ("sd3", {"generator": None}, "neither generator nor latents; allowed: one of them"),
        ("sd3", {"generator": [seeded()] * 2}, "2 generators; allowed: 1, or 1, one an image"),
        ("sd3", {"latents": LATENTS.flatten(2)}, r"latents \[1, 4, 64\]; allowed: \[B, C, H, W\], not packed"),
        ("sd3", {"latents": torch.cat([LATENTS] * 2)}, "latents of 2 images; allowed: 1"),
        ("sd3", {"latents": LATENTS, "height": 32}, "latents of 8 x 8 for a size of 4 x 8; allowed: the same"),
        ("sd3", {"output_type": "jpeg"}, "output_type='jpeg' is unknown; allowed: pil, np, pt, latent"),
        ("sd3", {"height": 60}, "60 pixels; allowed: multiples of 8"),
        ("hunyuan", {}, "DDPMScheduler is not supported; allowed: DPMSolver"),
    ],
)  # fmt: skip
def test_arguments_of_generate(
    family: str, asked: dict[str, Any], message: str, tiny_pipe: Any, tiny_denoiser: Any
) -> None:
    given = {
        "prompt": "dog" if family == "dit" else "red apple",
        "generator": seeded(),
        "num_inference_steps": 2,
    }
    with pytest.raises(ValueError, match=message):
        generate(tiny_pipe(family), tiny_denoiser(family), **given | asked)


def test_pipelines_that_do_not_fit(tiny_pipe: Any, tiny_denoiser: Any) -> None:
    with pytest.raises(
        ValueError, match="FluxPipeline has a FluxTransformer2DModel, and the denoiser is a SD3"
    ):
        generate(tiny_pipe("flux"), tiny_denoiser("sd3"), prompt="dog", generator=seeded())
    with pytest.raises(ValueError, match=r"NoneType is not supported; allowed: PixArtAlphaPipeline, .*, DiT"):
        generate(None, tiny_denoiser("sd3"), prompt="dog", generator=seeded())


def test_a_group_that_has_ended(fabric: LocalFabric, tiny_pipe: Any) -> None:
    gone = parallelize(tiny_pipe("sd3").transformer, fabric, **SIZE)
    dist.destroy_process_group()
    for make_another in (False, True):
        if make_another:  # in whose place the old one does not communicate
            init(Parallel(), "cpu")
        with pytest.raises(
            RuntimeError, match="the process group of this fabric has ended; allowed: a new init"
        ):
            gone(*inputs(1, 8, 8))


@pytest.mark.slow
def test_a_rank_that_calls_alone(tmp_path: Path) -> None:
    """It fails when `init`'s timeout is over, and says why."""
    save_tiny("sd3", tmp_path / "tiny", with_transformer=True)
    torchrun(
        """
import time
from datetime import timedelta
from pathlib import Path
import torch
from pipefusion import Parallel, generate, init, parallelize
from tests.experiments.tiny_pipelines import stock

fabric = init(Parallel(pipe=2), "cpu", timeout=timedelta(seconds=10))
done, pipe = Path("done"), stock(Path("tiny"))
denoiser = parallelize(pipe.transformer, fabric, height=64, width=64)
if fabric.rank == 0:
    try:
        generate(pipe, denoiser, prompt="red apple", generator=torch.Generator().manual_seed(0))
    except RuntimeError as error:
        done.write_text(str(error))
else:
    while not done.exists():
        time.sleep(0.1)
""",
        2,
        tmp_path,
    )
    message = (tmp_path / "done").read_text()
    assert (
        message.startswith("rank 0: ")
        and "took longer than the timeout, or did not make the same calls" in message
    )
