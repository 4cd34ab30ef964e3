"""Bytes of decoding, counted without doing again what holds the same: those of real tensors, at once and by tiles."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from experiments.studies.decode_cost import decode_bytes, known_vaes, knows_tiles
from experiments.studies.repeated import shorten
from pipefusion.core.memory import PeakTracker
from pipefusion.pipelines.pictures import decode_one
from tests.experiments.tiny_pipelines import deep_vae, qwen_vae
from tests.pipefusion.test_tiles import hunyuan, patched, picture


def wan(**options: Any) -> Any:
    made = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        **options,
    )  # fmt: skip
    made.enable_tiling(64, 64, 48, 48)
    return made


def wan22() -> Any:
    """As Wan 2.2 TI2V-5B's, 16 pixels a latent row."""
    return wan(is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)


def cogvideox() -> Any:
    """What it keeps between frames it returns."""
    blocks = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4
    made = diffusers.AutoencoderKLCogVideoX(
        down_block_types=blocks[0], up_block_types=blocks[1], block_out_channels=(4, 4, 4, 4), layers_per_block=1,
        latent_channels=4, norm_num_groups=2, sample_height=64, sample_width=64,
    )  # fmt: skip
    made.enable_tiling()
    return made


def tiling(make: Callable[[], Any], *sizes: int) -> Callable[[], Any]:
    def made() -> Any:
        vae = make()
        vae.enable_tiling(*sizes)
        return vae

    return made


def peak_bytes(vae: Any, latent: Tensor, short: bool) -> int:
    with PeakTracker([latent], [*vae.parameters(), *vae.buffers()]) as tracker:
        if short:
            shorten(vae, tracker)
        decode_one(vae, latent)
    return tracker.peak_bytes


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (picture, (9, 6)),
        (wan, (3, 9, 5)),
        (hunyuan, (5, 9, 5)),
        (cogvideox, (5, 9, 6)),
        (wan22, (3, 5, 6)),
        (patched, (6, 5)),
        (tiling(qwen_vae, 64, 64, 48, 48), (9, 5)),
        (tiling(deep_vae, 64, 64, 48, 48), (9, 10)),
    ],
    ids=["kl", "wan", "hunyuan", "cogvideox", "wan22", "flux2", "qwen", "dc"],
)
@pytest.mark.fast_cases(2)
@torch.no_grad()
def test_bytes_on_meta_are_those_of_real_tensors(make: Callable[[], Any], size: tuple[int, ...]) -> None:
    vae = make().eval()
    channels = vae.config.get("z_dim", vae.config.get("latent_channels"))
    latent = torch.randn(1, channels * (4 if make is patched else 1), *size)
    assert vae.use_tiling
    for tiled in (True, False):
        if not tiled:
            vae.disable_tiling()
        empty = deepcopy(vae).to("meta")
        assert peak_bytes(empty, latent.to("meta"), short=True) == peak_bytes(vae, latent, short=False)


@pytest.mark.parametrize(
    ("model", "size"), [("pixart_alpha", (4, 64, 64)), ("wan22_ti2v_5b", (48, 3, 20, 20))]
)
@pytest.mark.fast_cases(1)
def test_tiles_hold_less_than_the_whole(model: str, size: tuple[int, ...]) -> None:
    assert decode_bytes(model, size, torch.bfloat16, tiled=True) < decode_bytes(model, size, torch.bfloat16)


def test_a_picture_of_one_tile_is_the_whole() -> None:
    assert (
        len({decode_bytes("flux_dev", (16, 128, 128), torch.bfloat16, tiled) for tiled in (True, False)}) == 1
    )


def test_sizes_of_tiles_are_known_of_every_vae_but_one() -> None:
    assert [name for name in known_vaes() if not knows_tiles(name)] == ["pixart_sigma"]
