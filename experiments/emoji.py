"""Captioned pictures that need no hub: emoji packages from the npm registry, fetched, checked, read."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from experiments.errors import ConfigError, first_line

ROLES = ("train", "held_out", "unseen")
DATA_DIR = "~/.cache/pipefusion-lab"
Table = list[dict[str, Any]]
"""The rows of a package's emoji.json."""


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


@dataclass(frozen=True)
class Item:
    """One picture: its concept (lower-case name), style, file, and the role it plays in training."""

    concept: str
    style: str = ""
    file: str = ""
    role: str = "train"  # "train", "held_out" (pair) or "unseen" (concept)

    @property
    def caption(self) -> str:
        """The concept behind the style's word."""
        return f"{self.style} {self.concept}".strip()


def make_item(entry: Mapping[str, Any], package: PackageConfig, role: str = "train") -> Item:
    """The picture of a row of a package's table."""
    return Item(str(entry["name"]).lower(), package.style, f"{package.vendor}/64/{entry['image']}", role)


def fetch(package: PackageConfig, data_dir: str) -> Path:
    """Folder of the unpacked package, fetched with the user's own `npm pack` and checked the first time.

    Raises RuntimeError.
    """
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
        wanted = f"{package.name}@{package.version}"
        command = ["npm", "pack", wanted, "--silent", "--pack-destination", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.is_file():
            reason = (done.stderr.strip() or done.stdout.strip() or "no archive written").splitlines()[-1]
            raise RuntimeError(f"npm pack {wanted} failed: {reason}")
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise RuntimeError(f"checksum of {archive} is {found}, expected {package.integrity}")
    with tempfile.TemporaryDirectory(dir=root) as part, tarfile.open(archive) as tar:
        members = [m for m in tar if m.name == "package/emoji.json" or f"/img/{package.vendor}/64/" in m.name]
        tar.extractall(part, members, filter="data")
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


def read_tables(packages: Sequence[PackageConfig], data_dir: str) -> list[Table]:
    """The table of each package."""
    return [json.loads((fetch(package, data_dir) / "emoji.json").read_text()) for package in packages]


def drawn(table: Table, package: PackageConfig) -> Table:
    """The rows that the vendor has a picture of."""
    return [entry for entry in table if entry.get(f"has_img_{package.vendor}")]


def stored_packages(stored: Mapping[str, Any]) -> list[PackageConfig]:
    """The packages that a record of training names."""
    return [PackageConfig(**package) for package in stored["packages"]]


def load_listed(
    packages: Sequence[PackageConfig], data_dir: str, prompts: Mapping[str, Sequence[str]]
) -> tuple[list[Item], Tensor]:
    """The pictures of a model's prompts.json ({role: captions}), in its order, as `read_pictures` has them."""
    tables = zip(packages, read_tables(packages, data_dir), strict=True)
    found = [make_item(entry, package) for package, table in tables for entry in drawn(table, package)]
    named = {item.caption: item for item in found}
    items = [replace(named[caption], role=role) for role in ROLES for caption in prompts[role]]
    return items, read_pictures(items, packages, data_dir)


def read_pictures(items: Sequence[Item], packages: Sequence[PackageConfig], data_dir: str) -> Tensor:
    """The pictures of items on white, [n, 3, 64, 64] float32 in 0..1."""
    folders = {package.vendor: fetch(package, data_dir) / "img" for package in packages}
    images = [on_white(Image.open(folders[item.file.split("/")[0]] / item.file)) for item in items]
    return torch.stack([to_tensor(image) for image in images])


def on_white(image: Image.Image) -> Image.Image:
    """A picture without its transparency."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [3, h, w] float32 in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def resize(pictures: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Pictures [n, 3, h, w] averaged down over areas to a height and width, or to a square of `size`."""
    size = (size, size) if isinstance(size, int) else size
    return pictures if pictures.shape[2:] == size else F.interpolate(pictures, size=size, mode="area")
