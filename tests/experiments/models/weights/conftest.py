"""Weights of a small model as diffusers writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import PixArtTransformer2DModel

MODEL = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "in_channels": 3,
    "out_channels": 3, "sample_size": 16, "patch_size": 4, "caption_channels": 16, "use_additional_conditions": False,
}  # fmt: skip


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one file."""
    return saved(tmp_path_factory.mktemp("whole"), "1GB")


@pytest.fixture(scope="package")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several files with an index, as diffusers shards them."""
    return saved(tmp_path_factory.mktemp("parts"), "20KB")


def saved(folder: Path, largest_file: str) -> Path:
    PixArtTransformer2DModel(**MODEL).save_pretrained(folder / "transformer", max_shard_size=largest_file)
    return folder
