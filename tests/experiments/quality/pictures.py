"""Real pictures of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_pictures(folder: Path, count: int = 9) -> Path:
    """`count` pictures of several sizes in a folder."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for k in range(count):
        pixels = draw.integers(0, 255, (40 + k, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.jpg")
    return folder
