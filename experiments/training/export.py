"""Averaged weights -> a folder that plain diffusers loads."""

from __future__ import annotations

import copy
import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from analysis.files import replacing_folder
from experiments.training.card import write_card
from experiments.training.sampling import default_scheduler

# How the harness samples the model; a score run with `publish` settles the guidance.
FACTS_FILE = "pipefusion_lab.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def export(
    model: PixArtTransformer2DModel,
    folder: Path,
    config: dict[str, Any],
    facts: dict[str, Any],
    prompts: dict[str, list[str]],
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write transformer/ (safetensors in `dtype`), scheduler/, the sampling defaults and the captions.

    All of it takes the place of what was in `folder`: a score there would be of other weights.
    `config` is the training configuration as a dict, `facts` what is known after the run (samples, seconds).
    """
    sampling = {
        "guidance_scale": config["guidance_scale"],
        "steps": 20,
        "pixel_space": True,
        "text_encoder": config["text_encoder"],
        "text_tokens": config["text_tokens"],
        "resolution": config["network"]["resolution"],
        "network": config["network"],
        "recipe": config["recipe"],
        "data": config["data"],
        "start_from": config["start_from"],
        "training": facts
        | {
            "parameters": sum(p.numel() for p in model.parameters()),
            "seed": config["seed"],
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(model.device),
            "torch": torch.__version__,
            "notes": config["notes"],
        },
    }
    with replacing_folder(folder) as fresh:
        # Module.to and not the model's own, which warns of layers to keep in float32 though this one has none.
        shipped = nn.Module.to(copy.deepcopy(model), dtype)
        shipped.save_pretrained(fresh / "transformer", safe_serialization=True)
        (fresh / "transformer" / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
        default_scheduler().save_pretrained(fresh / "scheduler")
        (fresh / FACTS_FILE).write_text(json.dumps(sampling, indent=1) + "\n")
        (fresh / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
        write_card(fresh)
    return folder


def hardware(device: torch.device) -> str:
    """What the training ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return f"{os.cpu_count()} CPU cores ({found[1] if found else platform.machine()})"
