"""A transformer to be shared: one that the caller holds, or one in a folder or on the hub, of which a part is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.core.dit import DiT
from pipefusion.core.shape import DiTShape
from pipefusion.core.weights import DTYPES, held, reader, stored_dtype
from pipefusion.families import (
    TEXT_TOKENS,
    VIEWS,
    diffusers_class,
    latent_patch,
    makes_videos,
    model_shape,
    most_references,
    takes_first_frame,
    whole_config,
)
from pipefusion.pipelines.pictures import latent_factor

FACTOR = 8
FACTORS = {
    "Flux2Transformer2DModel": 16,
    "HunyuanVideo15Transformer3DModel": 16,
    "LTXVideoTransformer3DModel": 32,
    "LTX2VideoTransformer3DModel": 32,
}
"""Pixels per latent row where there is no VAE to ask; of all others FACTOR."""


@dataclass(frozen=True)
class Transformer:
    """A transformer without a size of picture.

    `tensors` is what `DiT.load` reads, `tables` what it reads again for another size of picture.
    """

    class_name: str
    config: Mapping[str, Any]
    tensors: Callable[..., Tensor]
    tables: Callable[..., Tensor]
    dtype: torch.dtype
    pixels_per_latent: int

    @property
    def patch(self) -> int:
        """Latent rows per token row."""
        return latent_patch(self.class_name, self.config)

    def shape(
        self, size: Sequence[int], text_tokens: int | None, references: int = 0, first_frame: bool = False
    ) -> DiTShape:
        """Sizes for latents of this (frames,) height and width. Raises ValueError for what the model cannot have."""
        most = most_references(self.class_name)
        if references > most:
            raise ValueError(f"{references} reference pictures for a {self.class_name}; allowed: 0..{most}")
        if first_frame and not takes_first_frame(self.class_name):
            raise ValueError(f"first_frame for a {self.class_name}; allowed: none")
        *frames, height, width = size
        if len(frames) != makes_videos(self.class_name):
            kind = "frames, height, width" if makes_videos(self.class_name) else "height, width"
            raise ValueError(f"{len(size)} sides; allowed: {kind}")
        rows, cols = height // self.patch, width // self.patch
        if rows * self.patch != height or cols * self.patch != width or not rows or not cols:
            raise ValueError(f"latents of {height} x {width}; allowed: multiples of {self.patch}")
        tokens = TEXT_TOKENS.get(self.class_name, 120) if text_tokens is None else text_tokens
        facts = {"text_tokens": tokens, "frames": frames[0] if frames else None}
        facts |= {"references": references, "first_frame": first_frame}
        found = model_shape(self.class_name, self.config, rows, cols, facts, self.dtype.itemsize)
        if self.class_name == "Flux2Transformer2DModel" and found.guidance == "none":
            # Klein: base and distilled differ in their pipeline alone, and only base has branches.
            return replace(found, guidance="cfg")
        return found

    def view(self, shape: DiTShape) -> DiT:
        """The model on `meta`."""
        made: DiT = VIEWS[self.class_name].View(dict(self.config), shape, self.dtype, self.pixels_per_latent)
        return made

    def holding(self, dit: DiT) -> Transformer:
        """The same, whose parameters are those that a view holds. All others are let go."""
        own, others = dict(dit.model.named_parameters()), self.tables

        def tensors(name: str, *args: Any, **options: Any) -> Tensor:
            return own[name].data if name in own else others(name, *args, **options)

        return replace(self, tensors=tensors)


def open_transformer(
    source: nn.Module | str | Path, dtype: torch.dtype | None, variant: str | None = None
) -> Transformer:
    """A transformer in memory, in a folder, or of a hub id. No tensor is read yet. Raises ValueError and OSError."""
    if dtype is not None and dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype}; allowed: {', '.join(map(str, DTYPES.values()))}")
    if isinstance(source, nn.Module):
        return of_module(source, dtype)
    if not isinstance(source, (str, Path)):
        raise ValueError(f"{type(source).__name__} is no transformer; allowed: a module, a folder, a hub id")
    return of_folder(find_folder(source, variant), dtype, variant)


def of_module(model: Any, dtype: torch.dtype | None) -> Transformer:
    """A transformer that the caller holds."""
    name, state = known(type(model).__name__), model.state_dict()
    for key, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise ValueError(
                f"{key} of the transformer has no data (meta); allowed: a model that is not offloaded"
            )
        if not parameter.is_floating_point():
            raise ValueError(
                f"{key} of the transformer is {parameter.dtype}; allowed: a model that is not quantised"
            )
    tables = {key: tensor for key, tensor in state.items() if key in VIEWS[name].View.tables}
    config = whole_config(name, model.config)
    return Transformer(
        name, config, held(state), held(tables), dtype or model.dtype, FACTORS.get(name, FACTOR)
    )


def of_folder(folder: Path, dtype: torch.dtype | None, variant: str | None) -> Transformer:
    """A transformer in a folder; the VAE beside it says how many pixels a latent row is."""
    config, vae = json.loads((folder / "config.json").read_text()), folder.parent / "vae" / "config.json"
    name, tensors = known(diffusers_class(config)), reader(folder, variant)
    factor = latent_factor(json.loads(vae.read_text())) if vae.exists() else FACTORS.get(name, FACTOR)
    whole = whole_config(name, config)
    return Transformer(name, whole, tensors, tensors, dtype or stored_dtype(folder, variant), factor)


def known(name: str) -> str:
    """The name of a class that there is a view of. Raises ValueError."""
    if name not in VIEWS:
        raise ValueError(f"{name} has no view; there are {', '.join(VIEWS)}")
    return name


def find_folder(source: str | Path, variant: str | None = None) -> Path:
    """The transformer's folder: this one or the one in it, or in the snapshot of a hub id.

    Raises OSError, and ValueError where there are two.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or str(source).count("/") != 1:
            raise FileNotFoundError(f"{source} is no folder and no hub id")
        from huggingface_hub import snapshot_download

        patterns = [
            "transformer/*.json",
            f"transformer/*{f'.{variant}' if variant else ''}*.safetensors",
            "vae/config.json",
            "transformer_2/config.json",
        ]
        folder = Path(snapshot_download(str(source), allow_patterns=patterns))
    if (folder / "transformer_2").is_dir():
        raise ValueError(f"{source} has two transformers (experts); allowed: a pipeline with one")
    inside = folder / "transformer"
    found = inside if inside.is_dir() else folder
    if not (found / "config.json").is_file():
        raise FileNotFoundError(
            f"{found} holds no config.json; allowed: a transformer's folder, or its pipeline's"
        )
    return found
