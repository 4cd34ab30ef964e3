"""The tensors a run starts from: noise from the seed, and the encoded prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments.config import RunConfig, prompts_of
from experiments.records import replacing
from pipefusion.core.dit import DiTShape


def make_inputs(cfg: RunConfig, shape: DiTShape) -> dict[str, Tensor]:
    """`noise` [B, C, H, W] float32, `prompt_embeds` [B, T, D], `prompt_mask` [B, T], and the negative ones if guided.

    An image depends on its seed, prompt and place in the batch only, never on the method or the number of devices.
    """
    prompts = tuple(prompts_of(cfg))
    encode = random_prompts if cfg.model.text == "random" else encoded_prompts
    height, width = shape.token_rows * shape.patch_size, shape.token_cols * shape.patch_size
    generator = torch.Generator("cpu").manual_seed(cfg.seed)
    noise = torch.randn(len(prompts), shape.in_channels, height, width, generator=generator)
    embeds, mask = encode(prompts, cfg.model.text, shape.text_tokens, shape.text_channels)
    inputs = {"noise": noise, "prompt_embeds": embeds, "prompt_mask": mask}
    if cfg.guidance_scale is not None and cfg.guidance_scale > 1:
        negative = (cfg.negative_prompt,) * len(prompts)
        embeds, mask = encode(negative, cfg.model.text, shape.text_tokens, shape.text_channels)
        inputs |= {"negative_prompt_embeds": embeds, "negative_prompt_mask": mask}
    return inputs


@lru_cache(maxsize=64)
def encoded_prompts(
    prompts: tuple[str, ...], encoder: str, tokens: int, channels: int
) -> tuple[Tensor, Tensor]:
    """Prompts through a text encoder, once per process: in a sweep they rarely change.

    Raises ValueError if the encoder's width is not the model's.
    """
    from experiments.text import encode_prompts

    embeds, mask = encode_prompts(prompts, encoder, tokens)
    if embeds.shape[-1] != channels:
        raise ValueError(
            f"text encoder {encoder} gives {embeds.shape[-1]} channels, the model takes {channels}"
        )
    return embeds, mask


def random_prompts(prompts: Sequence[str], encoder: str, tokens: int, channels: int) -> tuple[Tensor, Tensor]:
    """Seeded stand-ins for models without a text encoder: different prompts differ, equal ones are equal."""
    rows = []
    for prompt in prompts:
        seed = int.from_bytes(sha256(prompt.encode()).digest()[:7], "big")
        rows.append(torch.randn(tokens, channels, generator=torch.Generator("cpu").manual_seed(seed)))
    return torch.stack(rows), torch.ones(len(rows), tokens)


def write_inputs(path: Path, inputs: dict[str, Tensor]) -> None:
    """Write inputs.safetensors whole."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, temporary)
