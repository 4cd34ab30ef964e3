"""An emoji package without the registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.emoji import PackageConfig


def entry(k: int, category: str = "Objects", **more: Any) -> dict[str, Any]:
    base = {"name": f"THING {k}", "unified": f"{k:X}", "image": f"{k:x}.png", "category": category}
    base |= {"sort_order": k, "subcategory": "plain", "has_img_google": True, "has_img_twitter": True}
    return base | more


def fake_package(
    root: Path, count: int, package: PackageConfig | None = None, more: Sequence[dict[str, Any]] = ()
) -> None:
    """An unpacked package of `count` plain squares of different colours and `more`, where `fetch` looks for one."""
    package = package or PackageConfig()
    folder = root / f"{package.name}-{package.version}"
    pictures = folder / "img" / package.vendor / "64"
    pictures.mkdir(parents=True)
    table = [*(entry(k) for k in range(count)), *more]
    (folder / "emoji.json").write_text(json.dumps(table))
    for k, row in enumerate(table):
        colour = (40 * k % 256, 90 * k % 256, (250 - 30 * k) % 256, 255)
        Image.new("RGBA", (64, 64), colour).save(pictures / row["image"])
