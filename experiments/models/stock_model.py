"""The stock transformer of a folder, as diffusers has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file
from torch import nn


def load_stock(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """The transformer in `folder`, of the class that its config.json names, with all parameters in one precision.

    Classes that keep some in float32 cannot be read by `from_pretrained` without the package accelerate.
    """
    kind = getattr(diffusers, json.loads((folder / "config.json").read_text())["_class_name"])
    if not kind._keep_in_fp32_modules:
        options = {"torch_dtype": dtype, "use_safetensors": True, "low_cpu_mem_usage": False}
        return kind.from_pretrained(folder, variant=variant, **options).eval()
    model = kind.from_config(kind.load_config(folder))
    ends = f".{variant}" if variant else ""
    model.load_state_dict(
        {name: t for path in folder.glob(f"*{ends}.safetensors") for name, t in load_file(path).items()}
    )
    return nn.Module.to(model, dtype).eval()
