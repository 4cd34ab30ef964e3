"""Captioned pictures for the small model: emoji packages from the npm registry, checked, cached, chosen by rule."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


@dataclass
class PackageConfig:
    """One vendor's pictures: an npm package laid out like `emoji-datasource-*`."""

    name: str = "emoji-datasource-google"
    version: str = "16.0.0"
    vendor: str = "google"  # folder below img/ and suffix of the has_img_ flag
    style: str = "noto"  # the word added to captions when several styles are mixed
    integrity: str = (
        "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="
    )


@dataclass
class DataConfig:
    """Which pictures are learnt, which are kept unseen."""

    packages: list[PackageConfig] = field(default_factory=lambda: [PackageConfig()])
    data_dir: str = "~/.cache/pipefusion-lab"
    concepts: int = 256
    unseen: int = 32  # concepts kept out of training altogether
    held_out_pairs: int = 0  # (concept, style) pairs kept out while the concept is seen in another style
    categories: list[str] = field(
        default_factory=lambda: [
            "Animals & Nature",
            "Food & Drink",
            "Travel & Places",
            "Activities",
            "Objects",
        ]
    )
    # Two dozen clock faces differ only in where two thin hands point.
    skip_subcategories: list[str] = field(default_factory=lambda: ["time"])


@dataclass(frozen=True)
class Item:
    """One picture: its concept (lower-case name), style word, caption, file, and the role it plays."""

    concept: str
    style: str
    caption: str
    file: str
    role: str  # "train", "held_out" (pair) or "unseen" (concept)


def fetch(package: PackageConfig, data_dir: str) -> Path:
    """Folder of the unpacked package; fetched with the user's own `npm pack` the first time, checked every time."""
    root = Path(data_dir).expanduser()
    archive = root / f"{package.name.replace('@', '').replace('/', '-')}-{package.version}.tgz"
    folder = archive.with_suffix("")
    if (folder / "emoji.json").is_file():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    if not archive.is_file():
        if shutil.which("npm") is None:
            raise RuntimeError(
                f"npm is not installed: it fetches {package.name}; or put {archive.name} in {root}"
            )
        command = [
            "npm",
            "pack",
            f"{package.name}@{package.version}",
            "--silent",
            "--pack-destination",
            str(root),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.is_file():
            reason = (done.stderr.strip() or done.stdout.strip() or "no archive written").splitlines()[-1]
            raise RuntimeError(f"npm pack {package.name}@{package.version} failed: {reason}")
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise RuntimeError(f"checksum of {archive} is {found}, expected {package.integrity}")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar if m.name == "package/emoji.json" or f"/img/{package.vendor}/64/" in m.name]
        tar.extractall(part, members=wanted, filter="data")
    (part / "package").rename(folder)
    shutil.rmtree(part, ignore_errors=True)
    return folder


def choose(tables: Sequence[Sequence[dict[str, Any]]], cfg: DataConfig) -> list[Item]:
    """The concept rule, a pure function of the packages' tables.

    Only categories of things that stand alone on a plain ground (no people, flags, symbols or faces). Candidates are
    the base emoji every vendor draws. `concepts + unseen` of them are taken, the same number from each category (one
    more from the first ones when it does not divide), evenly spaced in the Unicode sort order, so that neighbours,
    which look alike, are thinned out. Of those, every k-th is unseen. Held-out pairs go round the styles, evenly
    spaced over the seen concepts.
    """
    flags = [f"has_img_{package.vendor}" for package in cfg.packages]
    shared = set.intersection(
        *({e["unified"] for e in table if e.get(flag)} for table, flag in zip(tables, flags, strict=True))
    )
    total = cfg.concepts + cfg.unseen
    chosen: list[dict[str, Any]] = []
    for i, category in enumerate(cfg.categories):
        pool = [e for e in tables[0] if e["category"] == category and e["unified"] in shared]
        pool = [e for e in pool if e["subcategory"] not in cfg.skip_subcategories]
        pool.sort(key=lambda e: e["sort_order"])
        quota = total // len(cfg.categories) + (i < total % len(cfg.categories))
        if quota > len(pool):
            raise ValueError(f"category {category!r} has {len(pool)} concepts, {quota} are asked for")
        chosen += [pool[(2 * k + 1) * len(pool) // (2 * quota)] for k in range(quota)]
    unseen = {(2 * k + 1) * total // (2 * cfg.unseen) for k in range(cfg.unseen)}
    seen = [k for k in range(total) if k not in unseen]
    if cfg.held_out_pairs and len(cfg.packages) < 2:
        raise ValueError(
            "held_out_pairs needs at least two packages: a concept must be seen in another style"
        )
    pairs = {
        (seen[(2 * k + 1) * len(seen) // (2 * cfg.held_out_pairs)], k % len(cfg.packages))
        for k in range(cfg.held_out_pairs)
    }
    items = []
    for style, package in enumerate(cfg.packages):
        for k, entry in enumerate(chosen):
            concept = str(entry["name"]).lower()
            caption = concept if len(cfg.packages) == 1 else f"{concept}, {package.style}"
            role = "unseen" if k in unseen else "held_out" if (k, style) in pairs else "train"
            items.append(Item(concept, package.style, caption, f"{package.vendor}/64/{entry['image']}", role))
    return items


def load(cfg: DataConfig) -> tuple[list[Item], Tensor]:
    """All chosen items and their pictures [n, 3, 64, 64], float32 in 0..1, composited on white."""
    folders = [fetch(package, cfg.data_dir) for package in cfg.packages]
    items = choose([json.loads((folder / "emoji.json").read_text()) for folder in folders], cfg)
    where = {package.vendor: folder / "img" for package, folder in zip(cfg.packages, folders, strict=True)}
    return items, torch.stack([read_picture(where[item.file.split("/")[0]] / item.file) for item in items])


def read_picture(path: Path) -> Tensor:
    """One RGBA file on white: [3, h, w] float32 in 0..1."""
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return torch.from_numpy(np.array(flat)).permute(2, 0, 1).float() / 255


def resize(pictures: Tensor, resolution: int) -> Tensor:
    """Pictures [n, 3, h, w] averaged down over areas to [n, 3, resolution, resolution]."""
    return (
        pictures
        if pictures.shape[-1] == resolution
        else F.interpolate(pictures, size=resolution, mode="area")
    )
