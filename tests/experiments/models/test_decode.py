"""A pipeline's own VAE gives here the pictures that diffusers' pipelines give, on tiny folders of every family."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from experiments.difference import NotFinite
from experiments.models.decode import decode, latent_factor, load_vae
from experiments.pictures import write_images
from pipefusion.pipelines import pictures
from pipefusion.pipelines.pictures import decode_one
from pipefusion.pipelines.timesteps import timestep_arguments
from tests.experiments.tiny_pipelines import FAMILIES, stock

CPU = torch.device("cpu")
PROMPTS = ["Red apple", "a green dragon, a very green dragon"]
SIZE = (96, 64)  # height and width in pixels
SQUARE = (64, 64)  # of DiT's pipeline, which draws nothing else
STEPS = 3
CLASS = {
    "pixart": "PixArtTransformer2DModel",
    "sana": "SanaTransformer2DModel",
    "sd3": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
    "flux2": "Flux2Transformer2DModel",
    "hunyuan": "HunyuanDiT2DModel",
    "dit": "DiTTransformer2DModel",
    "qwen": "QwenImageTransformer2DModel",
}


@torch.no_grad()
def draw_picture(family: str, pipe: Any) -> tuple[Tensor, np.ndarray]:
    """Latents as the pipeline's scheduler has them last [2, C, H, W], and its pixels [2, h, w, 3] in 0..1."""
    stepped: list[Tensor] = []
    height, width = SIZE
    step = pipe.scheduler.step

    def recorded(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        stepped.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    pipe.scheduler.step = recorded
    options: dict[str, Any] = {"prompt": PROMPTS, "height": height, "width": width}
    if family == "dit":
        options = {"class_labels": [1, 2]}
    if family.startswith("pixart") or family in ("hunyuan", "sana"):
        options["use_resolution_binning"] = False
    generator = torch.Generator().manual_seed(0)
    images = pipe(
        **options, guidance_scale=1.0, num_inference_steps=STEPS, output_type="np", generator=generator
    ).images
    latents = stepped[-1]
    if family.startswith("flux2"):
        latents = latents.transpose(1, 2).unflatten(2, (height // 16, width // 16))
    elif family.startswith("flux"):
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    elif family == "qwen":
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)[:, :, 0]
    return latents, images


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("AutoencoderKLLTXVideo", {}),
        (
            "AutoencoderKLLTX2Video",
            {"spatial_compression_ratio": 32},
        ),  # as published: one of four cuts time alone
        ("AutoencoderKLHunyuanVideo15", {}),
    ],
)
def test_pixels_of_a_latent_row_are_those_that_a_video_vae_says(name: str, own: dict[str, int]) -> None:
    with torch.device("meta"):
        vae = getattr(diffusers, name)(**own)
    assert pictures.latent_factor({**vae.config, "_class_name": name}) == vae.spatial_compression_ratio


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.fast_cases(3)
def test_pictures_and_timesteps_are_those_of_the_pipeline(tiny_folder, family: str) -> None:
    folder = tiny_folder(family)
    pipe = stock(folder)
    latents, expected = draw_picture(family, pipe)
    height, width = SQUARE if family == "dit" else SIZE
    factor = latent_factor(folder)
    assert latents.shape[2:] == (height // factor, width // factor)

    vae = load_vae(folder, torch.float32)
    with torch.no_grad():
        pixels = torch.cat([decode_one(vae, latent) for latent in latents.split(1)])
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-5)
    pictures = decode(folder, latents, False, CPU, torch.float32)
    same = [
        np.asarray(one) == np.asarray(other)
        for one, other in zip(pictures, pipe.numpy_to_pil(expected), strict=True)
    ]
    assert np.mean(same) > 0.999  # a value on the border between two bytes may go either way

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    tokens = height // 16 * (width // 16)
    arguments = timestep_arguments(CLASS[family.partition("_")[0]], config, tokens, STEPS)
    assert json.loads(json.dumps(arguments)) == arguments
    assert ("mu" in arguments) == config.get("use_dynamic_shifting", False)
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(**arguments)
    assert torch.equal(scheduler.timesteps, pipe.scheduler.timesteps)
    if hasattr(scheduler, "sigmas"):
        assert torch.equal(scheduler.sigmas, pipe.scheduler.sigmas)


def test_a_deep_compression_autoencoder_is_read_as_what_it_is(tmp_path: Path) -> None:
    sides = {f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in (
        ("block_types", "ResBlock"), ("block_out_channels", (4, 4, 4)), ("layers_per_block", (1, 1, 1)),
        ("qkv_multiscales", ((), (), ())),
    )}  # fmt: skip
    stock_vae = diffusers.AutoencoderDC(latent_channels=4, scaling_factor=0.4, attention_head_dim=4, **sides)
    stock_vae.save_pretrained(tmp_path / "vae")
    latent = torch.randn(1, 4, 3, 5)
    with torch.no_grad():
        want = stock_vae.decode(latent / 0.4, return_dict=False)[0]
        assert torch.equal(decode_one(load_vae(tmp_path, torch.float32), latent), want)
    assert latent_factor(tmp_path) == 4 == want.shape[2] // latent.shape[2]


def test_timesteps_of_schedulers_that_the_pipeline_does_not_ship_with() -> None:
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        assert timestep_arguments("FluxTransformer2DModel", {"_class_name": name}, 256, 4) == {
            "num_inference_steps": 4
        }
    shifted = {
        "_class_name": "DPMSolverMultistepScheduler",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": True,
    }
    shifted |= {"prediction_type": "flow_prediction"}
    arguments = timestep_arguments("FluxTransformer2DModel", shifted, 4096, 4)
    assert arguments == {"num_inference_steps": 4, "mu": pytest.approx(1.15)}
    assert timestep_arguments("SD3Transformer2DModel", shifted, 4096, 4)["mu"] == pytest.approx(1.16)


@pytest.mark.parametrize("family", ["pixart_alpha", "flux2_klein"])
def test_tiles_are_those_of_the_vae(tiny_folder, family: str) -> None:
    folder, factor = tiny_folder(family), latent_factor(tiny_folder(family))
    channels = 4 if family == "pixart_alpha" else 16
    latents = torch.randn(2, channels, 8, 4, generator=torch.Generator().manual_seed(0))
    whole, tiles = (
        [np.asarray(picture) for picture in decode(folder, latents, tiled, CPU, torch.float32)]
        for tiled in (False, True)
    )
    assert [picture.shape for picture in tiles] == [(8 * factor, 4 * factor, 3)] * 2
    vae = load_vae(folder, torch.float32)
    vae.enable_tiling()
    with torch.no_grad():
        pixels = decode_one(vae, latents[:1])[0].permute(1, 2, 0)
    np.testing.assert_allclose(tiles[0], ((pixels + 1) * 127.5).clamp(0, 255), atol=0.51)
    assert not np.array_equal(tiles[0], whole[0])
    alone = decode(folder, latents[1:], False, CPU, torch.float32)
    assert np.array_equal(alone[0], whole[1])


def test_written_pictures(tmp_path: Path, tiny_folder) -> None:
    def write(latents: Tensor, folder: Path | None, pixel_space: bool) -> list[Path]:
        save_file({"latents": latents}, tmp_path / "latents.safetensors")
        model: Any = SimpleNamespace(
            folder=folder, frames=None, variant=None, facts={"pixel_space": pixel_space}
        )
        cfg: Any = SimpleNamespace(model=SimpleNamespace(tiled=False))
        return write_images(tmp_path, cfg, model)

    cfg: Any = None
    assert write_images(tmp_path, cfg, cfg) == []  # a plan has no latents
    latents = torch.randn(2, 4, 8, 8)
    assert write(latents, None, False) == write(latents, tmp_path, False) == write(latents, None, True) == []
    assert not (tmp_path / "images").exists()
    paths = write(latents, tiny_folder("pixart_alpha"), False)
    assert paths == [tmp_path / "images" / "0.png", tmp_path / "images" / "1.png"]
    assert Image.open(paths[1]).size == (64, 64)
    with pytest.raises(NotFinite, match="a picture has NaN or infinite values"):
        write(torch.full((1, 4, 8, 8), 3e38), tiny_folder("pixart_alpha"), False)
    assert Image.open(write(torch.zeros(1, 3, 8, 8), None, True)[0]).getpixel((0, 0)) == (128, 128, 128)
