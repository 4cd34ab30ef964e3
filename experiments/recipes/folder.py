"""Model folders that plain diffusers loads, written from averaged weights."""

from __future__ import annotations

import copy
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from diffusers.models import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import nn

from analysis.records.files import replacing_folder
from experiments.environment import cpu_name
from experiments.errors import ConfigError, first_line
from experiments.recipes.cards import write_model_card
from experiments.recipes.network import NetworkConfig, build_network
from experiments.recipes.sampling import default_scheduler
from experiments.records import write_json

FACTS_FILE = "pipefusion_lab.json"
PROMPTS_FILE = "prompts.json"
WEIGHTS_FILE = "transformer/diffusion_pytorch_model.safetensors"


def export(
    model: ModelMixin,
    folder: Path,
    config: dict[str, Any],
    facts: dict[str, Any],
    prompts: dict[str, list[str]],
) -> None:
    """Write transformer/ (safetensors in bfloat16), scheduler/, the sampling defaults and the captions.

    All of it takes the place of what was in `folder`: a score there would be of other weights.
    `config` is the training configuration as a dict, `facts` what is known after the run (samples, seconds).
    """
    training = facts | {"parameters": sum(p.numel() for p in model.parameters()), "seed": config["seed"]}
    sampling = {
        "guidance_scale": config["guidance_scale"],  # until a score with `publish` settles it
        "steps": 20,
        "pixel_space": True,
        "text_encoder": config["text_encoder"],
        "text_tokens": config["text_tokens"],
        "resolution": config["network"]["resolution"],
        **{key: config[key] for key in ("network", "recipe", "data", "start_from")},
        "training": training | origin(model.device) | {"notes": config["notes"]},
    }
    if config["network"]["frames"]:
        sampling |= {key: config["network"][key] for key in ("frames", "frame_factor")}
        sampling["scenes"] = config["scenes"]
    with replacing_folder(folder) as fresh:
        # Module.to and not the model's own, which warns of layers to keep in float32 though this one has none.
        shipped = nn.Module.to(copy.deepcopy(model), torch.bfloat16)
        shipped.save_pretrained(fresh / "transformer", safe_serialization=True)
        (fresh / WEIGHTS_FILE).chmod(0o644)  # safetensors writes for the owner alone
        default_scheduler().save_pretrained(fresh / "scheduler")
        write_json(fresh / FACTS_FILE, sampling)
        write_json(fresh / PROMPTS_FILE, prompts)
        write_model_card(fresh)


def origin(device: torch.device) -> dict[str, str]:
    """When and on what something was trained."""
    cpu = f"{os.cpu_count()} CPU cores ({cpu_name()})"
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {"date": datetime.now(UTC).date().isoformat(), "hardware": hardware, "torch": torch.__version__}


def learnt_captions(start_from: str, network: NetworkConfig) -> list[str]:
    """The captions that the weights of a model folder were trained on, none of no folder; its network must be this one.

    Raises ConfigError.
    """
    if not start_from:
        return []
    key = "measure.start_from"
    path, prompts = (Path(start_from) / name for name in (WEIGHTS_FILE, PROMPTS_FILE))
    if not (path.is_file() and prompts.is_file()):
        text = f"{start_from} has no {WEIGHTS_FILE} and {PROMPTS_FILE}"
        raise ConfigError(key, f"{text}; allowed: a folder that training exported, as results/models/emoji64")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        text = f"{path} cannot be read ({first_line(error)}); allowed: whole safetensors files"
        raise ConfigError(key, text) from None
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in build_network(network, 0).state_dict().items()}
    if found != wanted:
        text = f"{start_from} is another network than measure.network; allowed: weights of the same shapes"
        raise ConfigError(key, text)
    learnt: list[str] = json.loads(prompts.read_text())["train"]
    return learnt
