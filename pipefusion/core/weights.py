"""Reading tensors from safetensors, one by one and only the slice that a rank holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from pipefusion.core.dit import Shard


def weight_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> file, for a diffusers `transformer/` folder, sharded or not. Raises FileNotFoundError."""
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    if index.exists():
        names = json.loads(index.read_text())["weight_map"]
        return {name: folder / file for name, file in names.items()}
    file = folder / "diffusion_pytorch_model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{folder} holds no diffusion_pytorch_model.safetensors")
    with safe_open(file, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), file)


def reader(folder: Path) -> Callable[[str, Shard | None], Tensor]:
    """`tensors(name, shard)` for `DiT.load`: reads from disk only what is asked for."""
    files = weight_files(folder)
    opened = {file: safe_open(file, framework="pt") for file in set(files.values())}

    def read(name: str, shard: Shard | None) -> Tensor:
        if name not in files:
            raise KeyError(f"{folder} has no tensor {name}")
        if shard is None:
            return opened[files[name]].get_tensor(name)
        dim, start, stop = shard
        part = opened[files[name]].get_slice(name)
        return part[start:stop] if dim == 0 else part[:, start:stop]

    return read
