"""What is drawn and what it is held against: prompts in an order of which every beginning is a fair sample, and real
pictures, of the model's own training data or of a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from experiments.config import RunConfig, read_prompts
from experiments.emoji import (
    check_packages,
    load_listed,
    on_white,
    resize,
    stored_packages,
    to_tensor,
)
from experiments.errors import ConfigError
from experiments.models.contents import hash_files, hash_json
from experiments.models.model import Model

ROLES = ("train", "held_out")
"""Prompts of a model that ships its own: those learnt, and pairs kept out whose concept was seen in another style."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Prompts:
    """Texts, and of each the role it has for the model (empty where it has none)."""

    texts: tuple[str, ...]
    roles: tuple[str, ...]


def prompts_for(cfg: RunConfig, model: Model) -> Prompts:
    """The lines of `prompt_file`, or the captions that came with the model's weights; always in the same random order.

    Raises ConfigError if there are neither.
    """
    if cfg.prompt_file is not None:
        found = [(text, "") for text in read_prompts(cfg)]
    else:
        listed = model.prompts
        if listed is None:
            text = "null, and the model's weights came with no prompts.json; allowed: a text file, a prompt a line"
            raise ConfigError("prompt_file", text)
        found = [(text, role) for role in ROLES for text in listed[role]]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    texts, roles = zip(*(found[k] for k in order), strict=True)
    return Prompts(texts, roles)


@dataclass(frozen=True)
class Real:
    """Real pictures, to be read batch by batch. `captions` are the prompts of them, where that is known."""

    what: str
    files: list[Path] = field(default_factory=list)
    pictures: Tensor | None = None
    captions: list[str] | None = None

    @property
    def digest(self) -> str:
        """Tells these pictures from others."""
        drawn = None if self.pictures is None else sha256(self.pictures.numpy().tobytes()).hexdigest()
        return hash_json([self.what, [hash_files(path) for path in self.files], drawn, self.captions])

    def __len__(self) -> int:
        return len(self.files) if self.pictures is None else len(self.pictures)

    def read(self, size: tuple[int, int], batch: int) -> Iterator[Tensor]:
        """Pictures [b, 3, *size] in 0..1, averaged over areas (our own data) or cut to shape and resized (files)."""
        if self.pictures is not None:
            yield from resize(self.pictures, size).split(batch)
            return
        for first in range(0, len(self.files), batch):
            yield torch.stack([read_fitted(path, size) for path in self.files[first : first + batch]])


def open_real(given: str | None, data_dir: str, model: Model) -> Real:
    """The folder `measure.real`, or what the model was trained on. Raises ConfigError if there is neither."""
    if given is not None:
        folder = Path(given).expanduser()
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if len(files) < 8:  # halves of four, for the floor
            text = f"{folder} has {len(files)} pictures; allowed: a folder of 8 or more ({', '.join(sorted(SUFFIXES))})"
            raise ConfigError("measure.real", text)
        return Real(f"{len(files)} pictures of {folder.name}", files)
    facts = None if model.folder is None else model.folder / "pipefusion_lab.json"
    if facts is None or not facts.is_file() or "data" not in json.loads(facts.read_text()):
        text = "null, and the model's weights do not say what they were trained on; allowed: a folder of pictures"
        raise ConfigError("measure.real", text)
    wanted = (model.prompts or {}) | {"unseen": []}
    packages = stored_packages(json.loads(facts.read_text())["data"])
    check_packages(packages, data_dir, "measure.data_dir")
    items, pictures = load_listed(packages, data_dir, wanted)
    return Real(
        f"the {len(items)} pictures of its prompts", pictures=pictures, captions=[i.caption for i in items]
    )


def read_fitted(path: Path, size: tuple[int, int]) -> Tensor:
    """One file as [3, height, width] in 0..1: on white, the largest part of that shape in the middle, with Lanczos."""
    height, width = size
    with Image.open(path) as image:
        flat = on_white(ImageOps.exif_transpose(image))
    return to_tensor(ImageOps.fit(flat, (width, height), Image.Resampling.LANCZOS))
