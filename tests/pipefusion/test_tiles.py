"""Tiles of a VAE dealt to ranks are, put together, the VAE's own tiled decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from pipefusion.core.parallel import Parallel
from pipefusion.pipelines.tiles import decode_tiles
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World
from tests.experiments.tiny_pipelines import flux2_vae
from tests.experiments.tiny_pipelines import vae as picture_vae

CPU = torch.device("cpu")


def wan() -> Any:
    made = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1)
    made.enable_tiling(64, 64, 48, 48)
    return made


def hunyuan() -> Any:
    """Tiles of frames as well."""
    blocks = ("HunyuanVideoUpBlock3D",) * 4, ("HunyuanVideoDownBlock3D",) * 4
    made = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, up_block_types=blocks[0], down_block_types=blocks[1],
        block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    made.enable_tiling(64, 64, 8, 48, 48, 4)
    return made


def picture() -> Any:
    made = picture_vae()
    made.enable_tiling()  # of 32 pixels
    return made


def patched() -> Any:
    made = flux2_vae()
    made.enable_tiling()
    return made


@pytest.mark.parametrize(
    ("make", "size", "parallel"),
    [
        (wan, (2, 9, 5), Parallel(ulysses=3)),  # two tiles, and a rank with none
        (hunyuan, (3, 9, 5), Parallel(cfg=2, pipe=2)),
        (picture, (6, 9), Parallel(cfg=2, pipe=2)),
        (patched, (6, 9), Parallel(patch=2)),
    ],
)
@torch.inference_mode()
def test_dealt_tiles_are_the_stock_decode(
    make: Callable[[], Any], size: tuple[int, ...], parallel: Parallel
) -> None:
    torch.manual_seed(0)
    vae = make().eval()
    latent = torch.randn(1, vae.config.get("z_dim", vae.config.get("latent_channels")), *size)
    want, plain = vae.decode(latent).sample, vae.decoder
    world = World(parallel.mesh(), CPU, TopologyConfig(), clocks=[FixedClock(lambda: 1e-3)] * parallel.world)
    for pixels in world.run(lambda fabric: decode_tiles(vae, latent, fabric)):
        assert torch.equal(pixels, want)
    assert vae.decoder is plain
    vae.disable_tiling()
    vae.use_framewise_decoding = False
    assert not torch.equal(vae.decode(latent).sample, want)
    sent = sum(fabric.ledger.sent_bytes for fabric in world.fabrics)
    assert sent > (parallel.world - 1) * want.nbytes  # overlaps go along


def test_a_vae_that_has_no_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="AutoencoderDC is decoded by one rank; allowed: AutoencoderKL,"):
        decode_tiles(type("AutoencoderDC", (), {})(), torch.zeros(1), None)  # type: ignore[arg-type]
