"""What comes with a transformer in a pipeline's folder: text encoders and class names.

A folder in the hub's layout has a `model_index.json`, which names the diffusers pipeline and the class of each part.
The pipeline's own `encode_prompt` is used, on one with tokenizers and text encoders only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.records.files import read_json
from experiments.errors import ConfigError, nearest
from experiments.models.text import quiet
from pipefusion.pipelines import prompts
from pipefusion.pipelines.prompts import CLASSES, PIPELINES

KNOWN = [name for name in PIPELINES if name not in ("QwenImagePipeline", "FluxKontextPipeline")]
"""Qwen-Image's masks padding and rescales guidance, and a run does neither; FLUX.1 Kontext's has a picture to edit."""

INDEX = "model_index.json"


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json. Raises ConfigError if it is missing or of a pipeline that is unknown here."""
    path = folder / INDEX
    allowed = f"allowed: {', '.join(KNOWN)}"
    try:
        index = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("model.weights", f"{path} cannot be read ({error}); {allowed}") from None
    name = index.get("_class_name")
    if name not in KNOWN:
        raise ConfigError("model.weights", f"{path} is for {name}; {allowed}; any with model.text=random")
    return index


def has_encoders(folder: Path) -> bool:
    """Whether `encode` has what it needs: for DiT its index, for others all tokenizers and text encoders."""
    if not (folder / INDEX).exists():
        return False
    count = PIPELINES[read_index(folder)["_class_name"]].encoders
    ends = ("", "_2", "_3")[:count]
    return all((folder / f"{part}{end}").is_dir() for part in ("tokenizer", "text_encoder") for end in ends)


def encode(
    folder: Path,
    texts: Sequence[str],
    negative: str | None,
    device: torch.device,
    dtype: torch.dtype,
    variant: str | None = None,
) -> dict[str, Tensor]:
    """Texts as the folder's own text encoders have them. These are gone when this returns.

    `prompts.encode` says what comes out. Pickled encoders are refused. Raises ConfigError for an unknown pipeline or
    class name, OSError for missing files.
    """
    index = read_index(folder)
    if index["_class_name"] == "DiTPipeline":
        labels = torch.tensor([class_label(index, prompt) for prompt in texts])
        return prompts.labelled(labels, negative is not None)
    found = prompts.encode(load_encoders(folder, index, dtype, variant).to(device), texts, negative, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def load_encoders(folder: Path, index: dict[str, Any], dtype: torch.dtype, variant: str | None) -> Any:
    """The folder's diffusers pipeline with tokenizers and text encoders; all other parts are None, and not read."""
    # Here and not at the top: importing transformers takes seconds, and most commands encode nothing.
    import diffusers
    from diffusers.utils import logging

    name = index["_class_name"]
    with quiet():
        pipeline = getattr(diffusers, name)
    # Mistral's processor takes pictures too and needs torchvision; for text it is its tokenizer.
    processor = name == "Flux2Pipeline"
    read = ("text_encoder",) if processor else ("text_encoder", "tokenizer")
    parts = {"transformer", "vae", "scheduler"} | {
        part for part, kind in index.items() if isinstance(kind, list)
    }
    options: dict[str, Any] = {part: None for part in parts if not part.startswith(read)}
    if name == "HunyuanDiTPipeline":
        options["requires_safety_checker"] = False  # or it warns of having none
    options["variant"] = variant
    logging.disable_progress_bar()
    pipe = pipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, **options
    )
    if processor:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        pipe.register_modules(tokenizer=tokenizer)
    return pipe


def class_label(index: Mapping[str, Any], prompt: str) -> int:
    """The class that a prompt means: a number, or one of the names in `id2label`. Raises ConfigError."""
    if prompt.strip().isdecimal() and int(prompt) < CLASSES:
        return int(prompt)
    id2label: dict[str, str] = index.get("id2label", {})
    labels = {name.strip(): int(key) for key, names in id2label.items() for name in names.split(",")}
    if prompt.strip() in labels:
        return labels[prompt.strip()]
    allowed = f"allowed: 0..{CLASSES - 1}" + (f", or one of {len(labels)} names" if labels else "")
    raise ConfigError("prompt", f"{prompt!r} is no class{nearest(prompt, labels)}; {allowed}")
