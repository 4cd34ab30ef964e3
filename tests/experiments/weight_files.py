"""Weights of a small model as diffusers writes them, and how to change what is in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file, save_file

SINGLE = "diffusion_pytorch_model.safetensors"
INDEX = f"{SINGLE}.index.json"
KEY = "proj_out.bias"
MODEL = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "in_channels": 3,
    "out_channels": 3, "sample_size": 16, "patch_size": 4, "caption_channels": 16, "use_additional_conditions": False,
}  # fmt: skip


def in_one_file(folder: Path) -> Path:
    PixArtTransformer2DModel(**MODEL).save_pretrained(folder / "transformer")
    return folder


def in_several(folder: Path) -> Path:
    """With an index, as diffusers shards them."""
    PixArtTransformer2DModel(**MODEL).save_pretrained(folder / "transformer", max_shard_size="20KB")
    return folder


def index_of(part: Path) -> dict[str, str]:
    return json.loads((part / INDEX).read_text())["weight_map"]


def write_index(part: Path, index: Any) -> None:
    (part / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def content_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, copied: they are views of the file, which is written again."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def change(path: Path, **tensors: torch.Tensor | None) -> None:
    """Write a file again with other tensors; None leaves one out."""
    content = content_of(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path)
