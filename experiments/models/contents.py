"""What a result is made of, by content: files under the same name may have changed, and under another be the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from analysis.records.record import SCHEMA
from experiments.config import RunConfig, as_dict, read_prompts
from experiments.models.inputs import text_source
from experiments.models.model import Model
from experiments.models.text import PACKAGES, encoder_folder

PARTS = ("transformer*/*.json", "scheduler", "vae", "pipefusion_lab.json")
ENCODERS = ("text_encoder*", "tokenizer*", "model_index.json")
"""Of a model's folder, besides the weights: what the latents or the pictures of a run depend on."""
NO_MATTER = ("log", "resume", "prompt", "prompt_file", "images_per_prompt")
"""Keys of a configuration that decide no result, or stand for prompts, which do."""


def run_key(cfg: RunConfig, model: Model) -> str:
    """SHA-256 over everything that decides a run's result. `cfg` as `models.resolved` gives it. Raises OSError."""
    config = {key: value for key, value in as_dict(cfg).items() if key not in NO_MATTER}
    config["model"].pop("weights")
    return hash_json([SCHEMA, config, read_prompts(cfg), model_digests(model, text_source(cfg, model))])


def model_digests(model: Model, text: str) -> dict[str, str | None]:
    """SHA-256 of the weights and of each file that a model is run with; `text` is the encoder of the prompts."""
    found: dict[str, str | None] = {"weights": weights_sha256(model.folder)}
    if model.folder is not None:
        found |= digests(model.folder, (*PARTS, "model_index.json"))
    return found | text_contents(model.folder, text)


def text_contents(folder: Path | None, text: str) -> dict[str, str | None]:
    """SHA-256 of each file of the text encoders: the model's own, or those of an installed package."""
    if text in PACKAGES:
        return digests(encoder_folder(text), ("*",))
    return digests(folder, ENCODERS) if text == "own" and folder is not None else {}


def digests(folder: Path, patterns: Iterable[str]) -> dict[str, str | None]:
    """SHA-256 by name of every file that a pattern names, or that lies in a folder that it names."""
    named = [path for pattern in patterns for path in folder.glob(pattern)]
    files = {file for path in named for file in (path, *path.rglob("*")) if file.is_file()}
    return {file.relative_to(folder).as_posix(): hash_files(file) for file in sorted(files)}


def weights_sha256(folder: Path | None) -> str | None:
    """SHA-256 over the safetensors files of a model's transformers, in the order of their names; None without."""
    return None if folder is None else hash_files(*sorted(folder.glob("transformer*/*.safetensors")))


def hash_files(*files: Path) -> str:
    """SHA-256 over files one after the other; read again only when they have changed since this process read them."""
    stats = [file.stat() for file in files]
    return _sha256(files, tuple((one.st_size, one.st_mtime_ns, one.st_ino) for one in stats))


@lru_cache(maxsize=4096)
def _sha256(files: tuple[Path, ...], changed: tuple[Any, ...]) -> str:
    digest = sha256()
    for path in files:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def hash_json(content: Any) -> str:
    """SHA-256 over plain Python, whatever the order of its keys."""
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
