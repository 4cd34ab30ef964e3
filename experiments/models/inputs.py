"""The tensors a run starts from: noise from the seeds of its pictures, and the encoded prompts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from analysis.presentation.line import one_line
from experiments.config import RunConfig, read_prompts
from experiments.models import components
from experiments.models.model import Model
from experiments.models.text import encode_prompts, too_long
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.shape import DiTShape, Sizes

CLASSES = 1000  # of ImageNet; the one after them means "no class"
Encode = Callable[[RunConfig, Model, Sequence[str], str | None], dict[str, Tensor]]
"""Run, model, prompts and the negative one (None: no guidance) to the model's prompt tensors."""


def make_inputs(cfg: RunConfig, model: Model, encode: Encode | None = None) -> dict[str, Tensor]:
    """`noise` [B, C, H, W] float32 and the model's prompt tensors, the negative ones too if guidance needs them.

    A model that edits pictures has `references` [B, R, C, H, W] besides: seeded numbers in place of encoded pictures.

    Nothing depends on the method or the number of devices. With a list of seeds a picture depends on its own seed and
    prompt alone, whatever else is in the batch. `encode` in place of `encoded`.
    """
    prompts, shape = read_prompts(cfg), model.shape
    inputs = {"noise": draw_noise(shape, cfg.seed, len(prompts))} | stand_ins(prompts, shape.pictures)
    scale = cfg.guidance_scale
    negative = cfg.negative_prompt if shape.guidance == "cfg" and scale is not None and scale > 1 else None
    return inputs | (encode or encoded)(cfg, model, prompts, negative)


def draw_noise(shape: DiTShape, seed: int | Sequence[int], pictures: int) -> Tensor:
    """Noise [B, C, H, W] float32: from one CPU generator for the batch, or from one a picture."""
    if isinstance(seed, int):
        return torch.randn(pictures, *shape.latent_size, generator=torch.Generator("cpu").manual_seed(seed))
    return torch.cat([draw_noise(shape, each, 1) for each in seed])


def encoded(cfg: RunConfig, model: Model, prompts: Sequence[str], negative: str | None) -> dict[str, Tensor]:
    """The prompts as the model's text encoders, the project's own encoder, or seeded numbers have them."""
    text, shape = text_source(cfg, model), model.shape
    if text == "own":
        assert model.folder is not None
        return dict(own_prompts(model.folder, tuple(prompts), negative, model.variant))

    def tensors(texts: Sequence[str]) -> dict[str, Tensor]:
        if text == "random":
            return stand_ins(texts, shape.prompt)
        sizes = dict(shape.prompt)["prompt_embeds"]
        embeds, mask = encoded_prompts(tuple(texts), text, *sizes)
        return {"prompt_embeds": embeds, "prompt_mask": mask}

    found = tensors(prompts)
    if negative is not None:
        against = tensors([negative] * len(prompts))
        found |= {f"negative_{name}": tensor for name, tensor in against.items()}
    return found


def text_source(cfg: RunConfig, model: Model) -> str:
    """`model.text`, where `auto` is what came with the weights, and `random` for random ones."""
    if cfg.model.text != "auto":
        return cfg.model.text
    return model.facts.get("text_encoder") or ("random" if model.folder is None else "own")


@lru_cache(maxsize=4)
def own_prompts(
    folder: Path, prompts: tuple[str, ...], negative: str | None, variant: str | None
) -> dict[str, Tensor]:
    """Prompts through a pipeline's own encoders, on the CPU; once for all runs of a sweep, as loading takes minutes."""
    return components.encode(folder, prompts, negative, torch.device("cpu"), torch.float32, variant)


@lru_cache(maxsize=64)
def encoded_prompts(
    prompts: tuple[str, ...], encoder: str, tokens: int, channels: int
) -> tuple[Tensor, Tensor]:
    """Prompts through a text encoder, once per process: in a sweep they rarely change. Says which of them are cut.

    Raises ValueError if the encoder's width is not the model's.
    """
    embeds, mask = encode_prompts(prompts, encoder, tokens)
    if embeds.shape[-1] != channels:
        raise ValueError(
            f"text encoder {encoder} gives {embeds.shape[-1]} channels, the model takes {channels}"
        )
    for text in too_long(prompts, encoder, tokens):
        line = f"warning: prompt {text!r} is cut: the model takes {tokens} tokens, two of them start and end"
        print(one_line(line), file=sys.stderr, flush=True)
    return embeds, mask


def stand_ins(prompts: Sequence[str], sizes: Sizes) -> dict[str, Tensor]:
    """Seeded numbers for what has no encoder here: different prompts differ, equal ones are equal."""
    return {name: torch.stack([stand_in(prompt, name, size) for prompt in prompts]) for name, size in sizes}


def stand_in(prompt: str, name: str, size: tuple[int, ...]) -> Tensor:
    """One tensor of one prompt: a class of 1000 (none for the empty prompt), a full mask, or numbers from its text."""
    key = prompt if name == "prompt_embeds" else f"{name}: {prompt}"
    seed = int.from_bytes(sha256(key.encode()).digest()[:7], "big")
    if name == "class_labels":
        return torch.tensor(seed % CLASSES if prompt else CLASSES)
    if name.startswith("prompt_mask"):
        return torch.ones(size)
    return torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed))


def read_inputs(path: Path, guidance_scale: float, device: torch.device) -> tuple[Tensor, Conditioning]:
    """Noise [B,C,H,W] and conditioning from `inputs.safetensors`."""
    return as_inputs(load_file(path, device=str(device)), guidance_scale)


def as_inputs(tensors: dict[str, Tensor], guidance_scale: float) -> tuple[Tensor, Conditioning]:
    """Noise and conditioning, of tensors by their names in `inputs.safetensors`."""
    tensors = dict(tensors)
    noise, lead = tensors.pop("noise"), "negative_"
    negative = {name.removeprefix(lead): tensors.pop(name) for name in [*tensors] if name.startswith(lead)}
    return noise, Conditioning(tensors, guidance_scale, negative or None)
