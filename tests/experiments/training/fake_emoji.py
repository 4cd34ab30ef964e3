"""An emoji package without the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.training.data import PackageConfig


def entry(k: int, category: str, **more: Any) -> dict[str, Any]:
    base = {
        "name": f"Thing {k}",
        "unified": f"{k:X}",
        "image": f"{k:x}.png",
        "category": category,
        "sort_order": k,
    }
    return base | {"subcategory": "plain", "has_img_google": True, "has_img_twitter": True} | more


def fake_package(root: Path, count: int) -> None:
    """An unpacked emoji package of `count` plain squares of different colours, where `fetch` looks for one."""
    package = PackageConfig()
    folder = root / f"{package.name}-{package.version}"
    (folder / "img/google/64").mkdir(parents=True)
    table = [entry(k, "Objects") for k in range(count)]
    (folder / "emoji.json").write_text(json.dumps(table))
    for k, row in enumerate(table):
        colour = (40 * k % 256, 90 * k % 256, 250 - 30 * k, 255)
        Image.new("RGBA", (64, 64), colour).save(folder / "img/google/64" / row["image"])
