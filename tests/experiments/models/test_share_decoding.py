"""`model.share_decoding`: ranks decode a picture's tiles together, and write what one process does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from experiments.errors import ConfigError
from experiments.pictures import write_images
from experiments.runs.check import check_model
from experiments.runs.launch import execute
from pipefusion.core.parallel import Parallel
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World
from tests.experiments.commands import config

SIDE = 64
SHARED = ["model.tiled=true", "model.share_decoding=true"]


def drawn(run_dir: Path) -> np.ndarray:
    return np.asarray(Image.open(run_dir / "images" / "0.png"))


def wan_folder(folder: Path) -> Path:
    """A folder with nothing but a small causal VAE, of tiles of 256 pixels."""
    torch.manual_seed(0)
    made = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1, latents_mean=[0.1] * 4, latents_std=[0.9] * 4
    )
    made.save_pretrained(folder / "vae")
    return folder


@pytest.mark.parametrize(("video", "size"), [(False, (8, 8)), (True, (2, 33, 4))])
@torch.inference_mode()
def test_ranks_together_write_what_one_process_does(
    video: bool, size: tuple[int, ...], tmp_path: Path, tiny_folder
) -> None:
    folder = wan_folder(tmp_path) if video else tiny_folder("pixart_alpha")
    facts = {"pixel_space": False, "frame_factor": 4}
    model: Any = SimpleNamespace(folder=folder, frames=5 if video else None, variant=None, facts=facts)
    cfg: Any = SimpleNamespace(model=SimpleNamespace(tiled=True))
    latents = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
    world = World(
        Parallel(ulysses=3).mesh(),
        torch.device("cpu"),
        TopologyConfig(),
        clocks=[FixedClock(lambda: 1e-3)] * 3,
    )
    found = []
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
        save_file({"latents": latents}, tmp_path / name / "latents.safetensors")
        if name == "alone":
            write_images(tmp_path / name, cfg, model)
        else:
            written = world.run(lambda fabric: write_images(tmp_path / "together", cfg, model, fabric))
            assert [len(paths) for paths in written] == [1 + video, 0, 0]
        found.append(drawn(tmp_path / name))
    assert np.array_equal(*found)
    assert all(fabric.ledger.sent_bytes for fabric in world.fabrics)


@pytest.mark.slow
def test_a_run_on_real_ranks_draws_what_one_process_decodes(tmp_path: Path, tiny_folder) -> None:
    """9 tiles of 32, 32, 16 pixels a side: rank 0 decodes those at even places of the table, rank 1 the others."""
    common = ["model=pixart_alpha", f"model.weights={tiny_folder('pixart_alpha')}", "model.architecture=null"]
    common += ["model.dtype=float32", f"model.resolution={SIDE}", "devices=2", "measure.memory=false"]
    found = []
    for name, keys in {"alone": ["model.tiled=true"], "together": SHARED}.items():
        record = execute(config(*common, *keys), tmp_path / name)
        assert record["status"] == "ok", record["reason"]
        found.append(drawn(tmp_path / name).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1  # the ranks have one thread
    ranks = pd.read_csv(tmp_path / "together" / "ranks.csv")
    sides = (32, 32, 16)
    areas = [height * width for height in sides for width in sides]
    pixels, shapes = 3 * max(sum(areas[0::2]), sum(areas[1::2])), len(areas) * 5
    assert list(ranks.decode_sent_bytes) == list(ranks.decode_recv_bytes) == [4 * pixels + 8 * shapes] * 2
    assert (ranks.sent_bytes == ranks.predicted_sent_bytes).all()
    assert "decode_sent_bytes" not in pd.read_csv(tmp_path / "alone" / "ranks.csv")


def test_a_vae_whose_tiles_are_not_dealt_is_refused(tiny_folder) -> None:
    weights = [f"model.weights={tiny_folder('sana')}", "model.architecture=null", "model.resolution=64"]
    with pytest.raises(ConfigError) as error:
        check_model(config("model=sana_1600m", *weights, *SHARED))
    text = "model.share_decoding=true needs a VAE whose tiles can be dealt, and sana_1600m has AutoencoderDC"
    assert str(error.value).startswith(f"{text}; allowed: false, or weights with AutoencoderKL, ")
