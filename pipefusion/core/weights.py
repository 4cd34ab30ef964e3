"""Reading tensors from safetensors: only the slices that a rank holds, in hardly more memory than these need."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pipefusion.core.dit import Shard

NAME = "diffusion_pytorch_model.safetensors"
INDEX = f"{NAME}.index.json"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What weights may be stored in, by the name that safetensors has for it."""

VARIANT = re.compile(r"[^.]+\.(.+?)(-\d+-of-\d+)?\.safetensors")
"""A file, or a shard, of a second copy in another precision: `diffusion_pytorch_model.fp16.safetensors`."""

Piece = tuple[tuple[slice, ...], tuple[slice, ...], int]

WINDOW_BYTES = 4 << 20
"""The most of a file that is in memory at a time. Larger ones read no faster, smaller ones spend time on opening."""


def file_names(variant: str | None) -> tuple[str, str]:
    """The names of the one file of a transformer's weights and of the index of several."""
    if variant is None:
        return NAME, INDEX
    return NAME.replace(".", f".{variant}."), INDEX.replace(".json", f".{variant}.json")


def file_variant(file: str) -> str | None:
    """The variant that a file of weights is of; None for those that are read if none is asked for."""
    found = VARIANT.fullmatch(file)
    return found and found[1]


def variants(folder: Path) -> list[str]:
    """The variants that a folder of weights has."""
    return sorted({name for path in folder.glob("*.safetensors") if (name := file_variant(path.name))})


def weight_files(folder: Path, variant: str | None = None) -> dict[str, Path]:
    """Tensor name -> file, for a diffusers `transformer/` folder, sharded or not. Raises FileNotFoundError."""
    single, several = file_names(variant)
    index = folder / several
    if index.exists():
        names = json.loads(index.read_text())["weight_map"]
        return {name: folder / file for name, file in names.items()}
    file = folder / single
    if not file.exists():
        there = f"; there are the variants {', '.join(variants(folder))}" if variants(folder) else ""
        raise FileNotFoundError(f"{folder} holds no {single}{there}")
    with safe_open(file, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), file)


def stored_dtype(folder: Path, variant: str | None = None) -> torch.dtype:
    """What the first tensor of a folder is stored in. Raises FileNotFoundError, and KeyError for another dtype."""
    name, file = next(iter(weight_files(folder, variant).items()))
    kind = Window().describe(file, name)[1]
    if kind not in DTYPES:
        raise KeyError(f"{file} has {name} of dtype {kind}; allowed: {', '.join(DTYPES)}")
    return DTYPES[kind]


class Window:
    """Tensors of safetensors files as they lie there, of which at most WINDOW_BYTES (or one request) are in memory.

    safetensors maps a file, and what has been read of a mapping counts as this process's memory until the mapping
    goes. So the file is opened anew after that many bytes; what was taken from it must be copied and let go by then.
    """

    def __init__(self) -> None:
        self._file: Path | None = None
        self._opened: Any = None
        self._left = 0

    def take(self, file: Path, name: str, size: int) -> Any:
        """safetensors' slice object of a tensor, of which `size` bytes will be read. Not to be kept."""
        if file != self._file or size > self._left:
            self._opened = safe_open(file, framework="pt")
            self._file, self._left = file, WINDOW_BYTES
        self._left -= size
        return self._opened.get_slice(name)

    def describe(self, file: Path, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a tensor, the latter by safetensors' name."""
        stored = self.take(file, name, 0)
        return tuple(stored.get_shape()), stored.get_dtype()


def reader(folder: Path, variant: str | None = None) -> Callable[..., Tensor]:
    """`tensors(name, shard=None, *, dtype=None, device=None)` for `DiT.load`: reads from disk only what is asked for.

    A tensor is copied into new memory of its final dtype and device, so that loading a rank takes its tensors and
    WINDOW_BYTES. Without `dtype` and `device` it is as stored, on the CPU. Not for several threads at once.
    Raises KeyError for a name that is not there or a dtype that weights do not have, ValueError for a shard that
    reaches beyond the tensor.
    """
    files, window = weight_files(folder, variant), Window()

    def tensors(
        name: str,
        shard: Shard | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        if name not in files:
            raise KeyError(f"{folder} has no tensor {name}")
        file = files[name]
        shape, kind = window.describe(file, name)
        if kind not in DTYPES:
            raise KeyError(f"{file} has {name} of dtype {kind}; allowed: {', '.join(DTYPES)}")
        kept = DTYPES[kind]
        if not shape:
            return window.take(file, name, kept.itemsize)[...].to(device, dtype or kept, copy=True)
        dim, sections = shard or (0, ((0, shape[0]),))
        for start, stop in sections:
            if not 0 <= start <= stop <= shape[dim]:
                raise ValueError(
                    f"{file} has {name} of shape {list(shape)}: no {start}:{stop} in dimension {dim}"
                )
        size = sum(stop - start for start, stop in sections)
        out = torch.empty((*shape[:dim], size, *shape[dim + 1 :]), dtype=dtype or kept, device=device)
        targets = out.split([stop - start for start, stop in sections], dim)
        for (start, stop), target in zip(sections, targets, strict=True):
            bounds = [(0, length) for length in shape]
            bounds[dim] = (start, stop)
            for piece, place, nbytes in pieces(bounds, shape, kept.itemsize):
                target[place].copy_(window.take(file, name, nbytes)[piece])
        return out

    return tensors


def held(state: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """What `reader` does, of tensors that are in memory: nothing is copied that already is as it is asked for."""

    def tensors(
        name: str,
        shard: Shard | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        if name not in state:
            raise KeyError(f"the transformer has no parameter {name}; allowed: plain ones, adapters fused")
        tensor = state[name]
        if shard is not None:
            dim, sections = shard
            parts = [tensor.narrow(dim, start, stop - start) for start, stop in sections]
            tensor = torch.cat(parts, dim)  # memory of its own: a view would keep the whole
        return tensor.to(device, dtype)

    return tensors


def pieces(bounds: Sequence[tuple[int, int]], shape: Sequence[int], itemsize: int) -> Iterator[Piece]:
    """A box of a tensor of `shape`, cut along its first dimension longer than 1 so that each piece fits a window.

    A piece is its place in the tensor, its place in the box, and the bytes of the file from its first row to its last:
    of a column slice the pages of whole rows are read.
    """
    axis = next((i for i, (start, stop) in enumerate(bounds) if stop - start > 1), 0)
    row = prod(shape[axis + 1 :]) * itemsize
    step = max(1, WINDOW_BYTES // max(1, row))
    low, high = bounds[axis]
    for start in range(low, high, step):
        stop = min(start + step, high)
        piece = [slice(*each) for each in bounds]
        piece[axis] = slice(start, stop)
        place = [slice(None)] * axis + [slice(start - low, stop - low)]
        yield tuple(piece), tuple(place), (stop - start) * row
