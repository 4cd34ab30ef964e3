"""Captioned pictures for the small model: emoji packages from the npm registry, checked, cached, chosen by rule."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from experiments.errors import ConfigError, first_line

ROLES = ("train", "held_out", "unseen")


@dataclass
class PackageConfig:
    """One vendor's pictures: an npm package laid out like `emoji-datasource-*`."""

    name: str = "emoji-datasource-google"
    version: str = "16.0.0"
    vendor: str = "google"  # folder below img/ and suffix of the has_img_ flag
    style: str = ""  # the word put before the concept in a caption, where it tells styles apart
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
    # Two dozen clock faces differ only in where two thin hands point, letters in boxes by the letter.
    skip_subcategories: list[str] = field(default_factory=lambda: ["time", "alphanum", "keycap"])


@dataclass(frozen=True)
class Item:
    """One picture: its concept (lower-case name), caption, file, and the role it plays."""

    concept: str
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
    with tempfile.TemporaryDirectory(dir=root) as part, tarfile.open(archive) as tar:
        wanted = [m for m in tar if m.name == "package/emoji.json" or f"/img/{package.vendor}/64/" in m.name]
        tar.extractall(part, members=wanted, filter="data")
        try:
            (Path(part) / "package").rename(folder)
        except OSError:
            if not (folder / "emoji.json").is_file():  # else another process was faster
                raise
    return folder


def check_packages(packages: Sequence[PackageConfig], data_dir: str, key: str) -> None:
    """Fetch what is not there. Raises ConfigError of `key`, the configuration's name for `data_dir`."""
    try:
        for package in packages:
            fetch(package, data_dir)
    except RuntimeError as error:
        text = f"{data_dir} has not all pictures ({first_line(error)}); allowed: a folder for them"
        raise ConfigError(key, text) from None


def choose(
    tables: Sequence[Sequence[dict[str, Any]]], cfg: DataConfig, learnt: Collection[str] = ()
) -> list[Item]:
    """The concept rule, a pure function of the packages' tables.

    Only categories of things that stand alone on a plain ground (no people, flags or letters). Candidates are the base
    emoji every vendor draws. `concepts + unseen` of them are taken, the same number from each category (a category
    that has fewer gives all, and the others more), evenly spaced in the Unicode sort order, so that neighbours, which
    look alike, are thinned out. Of those, every k-th is unseen. Held-out pairs go round the styles, evenly spaced over
    the seen concepts. Where training goes on from weights that have `learnt` captions already, none of these is kept
    out: the next concept that is new in all styles is unseen instead, the concept's next style held out.
    """
    flags = [f"has_img_{package.vendor}" for package in cfg.packages]
    shared = set.intersection(
        *({e["unified"] for e in table if e.get(flag)} for table, flag in zip(tables, flags, strict=True))
    )
    pools = []
    for category in cfg.categories:
        pool = [e for e in tables[0] if e["category"] == category and e["unified"] in shared]
        pool = [e for e in pool if e["subcategory"] not in cfg.skip_subcategories]
        pools.append(sorted(pool, key=lambda e: e["sort_order"]))
    total = cfg.concepts + cfg.unseen
    chosen: list[dict[str, Any]] = []
    for pool, quota in zip(pools, quotas([len(pool) for pool in pools], total), strict=True):
        chosen += [pool[(2 * k + 1) * len(pool) // (2 * quota)] for k in range(quota)]
    captions = [[caption_of(entry, package) for package in cfg.packages] for entry in chosen]
    new = {k for k in range(total) if not any(caption in learnt for caption in captions[k])}
    if len(new) < cfg.unseen:
        text = f"{cfg.unseen} are asked for, and {len(new)} of the concepts are new; allowed: 0..{len(new)}"
        raise ConfigError("measure.data.unseen", text)
    unseen: set[int] = set()
    for k in range(cfg.unseen):
        even = (2 * k + 1) * total // (2 * cfg.unseen)
        unseen.add(
            next(c for turn in range(total) if (c := (even + turn) % total) in new and c not in unseen)
        )
    seen = [k for k in range(total) if k not in unseen]
    if cfg.held_out_pairs and len(cfg.packages) < 2:
        text = f"{cfg.held_out_pairs} needs two styles: a concept must be seen in another one; allowed: 0"
        raise ConfigError("measure.data.held_out_pairs", text)
    able = [k for k in seen if any(caption not in learnt for caption in captions[k])]
    if cfg.held_out_pairs > len(able):
        text = f"{cfg.held_out_pairs} is more than a pair a concept that has one to keep out"
        raise ConfigError("measure.data.held_out_pairs", f"{text}; allowed: 0..{len(able)}")
    pairs = set()
    for k in range(cfg.held_out_pairs):
        concept = able[(2 * k + 1) * len(able) // (2 * cfg.held_out_pairs)]
        turns = ((k + turn) % len(cfg.packages) for turn in range(len(cfg.packages)))
        pairs.add((concept, next(style for style in turns if captions[concept][style] not in learnt)))
    items = []
    for style, package in enumerate(cfg.packages):
        for k, entry in enumerate(chosen):
            role = "unseen" if k in unseen else "held_out" if (k, style) in pairs else "train"
            file = f"{package.vendor}/64/{entry['image']}"
            items.append(Item(concept_of(entry), captions[k][style], file, role))
    return items


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """How many each pool gives so that all give `total`, as equally as their sizes allow.

    Raises ConfigError if there are not so many.
    """
    if total > sum(sizes):
        text = f"{total} with those that stay unseen, and there are {sum(sizes)}; allowed: fewer"
        raise ConfigError("measure.data.concepts", text)
    given = [0] * len(sizes)
    while sum(given) < total:
        short = [k for k, size in enumerate(sizes) if given[k] < size]
        share, more = divmod(total - sum(given), len(short))
        for place, k in enumerate(short):
            given[k] = min(sizes[k], given[k] + share + (place < more))
    return given


def concept_of(entry: dict[str, Any]) -> str:
    return str(entry["name"]).lower()


def caption_of(entry: dict[str, Any], package: PackageConfig) -> str:
    """Lower-case name behind the style's word."""
    return f"{package.style} {concept_of(entry)}".strip()


def load(cfg: DataConfig, learnt: Collection[str] = ()) -> tuple[list[Item], Tensor]:
    """All items of `choose` and their pictures [n, 3, 64, 64], float32 in 0..1, composited on white."""
    items = choose(tables_of(cfg), cfg, learnt)
    return items, read_pictures(items, cfg)


def load_listed(cfg: DataConfig, prompts: Mapping[str, Sequence[str]]) -> tuple[list[Item], Tensor]:
    """As `load`, of the captions in a model's prompts.json ({role: captions}), in their order."""
    found = {
        caption_of(entry, package): (
            concept_of(entry),
            f"{package.vendor}/64/{entry['image']}",
        )
        for package, table in zip(cfg.packages, tables_of(cfg), strict=True)
        for entry in table
        if entry.get(f"has_img_{package.vendor}")
    }
    items = [
        Item(found[caption][0], caption, found[caption][1], role)
        for role in ROLES
        for caption in prompts[role]
    ]
    return items, read_pictures(items, cfg)


def as_stored(stored: Mapping[str, Any], data_dir: str) -> DataConfig:
    """The `data` of a model's pipefusion_lab.json, with the packages where they are on this machine."""
    packages = [PackageConfig(**package) for package in stored["packages"]]
    return DataConfig(**{**stored, "packages": packages, "data_dir": data_dir})


def tables_of(cfg: DataConfig) -> list[list[dict[str, Any]]]:
    """The table of each package."""
    return [json.loads((fetch(package, cfg.data_dir) / "emoji.json").read_text()) for package in cfg.packages]


def read_pictures(items: Sequence[Item], cfg: DataConfig) -> Tensor:
    """The pictures of items [n, 3, 64, 64], float32 in 0..1."""
    where = {package.vendor: fetch(package, cfg.data_dir) / "img" for package in cfg.packages}
    return torch.stack([read_picture(where[item.file.split("/")[0]] / item.file) for item in items])


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
