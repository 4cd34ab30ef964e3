"""The files of saved weights, and how to change what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SINGLE = "diffusion_pytorch_model.safetensors"
INDEX = f"{SINGLE}.index.json"
KEY = "proj_out.bias"


def read_index(part: Path) -> dict[str, str]:
    return json.loads((part / INDEX).read_text())["weight_map"]


def write_index(part: Path, index: Any) -> None:
    (part / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def copy_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, copied: they are views of the file, which is written again."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def change(path: Path, **tensors: torch.Tensor | None) -> None:
    """Write a file again with other tensors; None leaves one out."""
    content = copy_tensors(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path)
