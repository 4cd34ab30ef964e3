"""A diffusion transformer as every method sees it: embed -> blocks -> unembed, on any band of token rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend


@dataclass(frozen=True)
class DiTShape:
    """The sizes that costs and checks follow from. Lengths in tokens, pixels of the latent, or elements."""

    layers: int
    heads: int
    hidden: int
    token_rows: int
    token_cols: int
    patch_size: int
    in_channels: int
    out_channels: int
    text_channels: int
    text_tokens: int
    mlp_hidden: int
    itemsize: int = 4
    size_conditions: bool = False

    @property
    def tokens(self) -> int:
        """p, the image tokens."""
        return self.token_rows * self.token_cols

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def band_tokens(self, rows: range) -> slice:
        """The image tokens of a band of token rows."""
        return slice(rows.start * self.token_cols, rows.stop * self.token_cols)

    def band_latent(self, rows: range) -> slice:
        """The latent rows of a band of token rows."""
        return slice(rows.start * self.patch_size, rows.stop * self.patch_size)


@dataclass(frozen=True)
class Conditioning:
    """Prompt embeddings [B, T, D] with mask [B, T]; the negative ones are used when guidance_scale > 1."""

    embeds: Tensor
    mask: Tensor
    guidance_scale: float = 1.0
    negative_embeds: Tensor | None = None
    negative_mask: Tensor | None = None

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1.0

    @property
    def branches(self) -> int:
        """Copies of the image in one forward: 2 with classifier-free guidance, else 1."""
        return 2 if self.guided else 1

    def to(self, device: torch.device) -> Conditioning:
        """The same on another device."""
        negative = [None if t is None else t.to(device) for t in (self.negative_embeds, self.negative_mask)]
        return Conditioning(self.embeds.to(device), self.mask.to(device), self.guidance_scale, *negative)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Embeddings and masks of all branches, unconditional first as in diffusers: [branches*B, T, D] and [.., T]."""
        if not self.guided:
            return self.embeds, self.mask
        assert self.negative_embeds is not None and self.negative_mask is not None
        return torch.cat([self.negative_embeds, self.embeds]), torch.cat([self.negative_mask, self.mask])


Shard = tuple[int, int, int]
"""(dimension, start, stop): the slice of a parameter that this rank holds."""


class DiT(Protocol):
    """A view on a stock model. It is built without data; `load` fills what `keep` and sharding have left."""

    shape: DiTShape
    model: nn.Module
    dtype: torch.dtype
    layers: range
    shards: dict[str, Shard]

    def clone(self) -> DiT:
        """An independent view that shares the tensors: for many ranks in one process."""
        ...

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        """Drop the blocks outside `layers`, and the embed and unembed parts where they are not wanted."""
        ...

    def load(self, tensors: Callable[[str, Shard | None], Tensor], device: torch.device) -> None:
        """Fill every remaining parameter with `tensors(name, shard)`."""
        ...

    def text(self, cond: Conditioning) -> Any:
        """What every block needs of the prompt; the same for all steps and patches of an image."""
        ...

    def modulation(self, timestep: Tensor, batch: int) -> Any:
        """What every block and the unembedding need of a timestep (a scalar tensor); the same for all patches."""
        ...

    def embed(self, latent: Tensor, rows: range) -> Tensor:
        """Band [b, C, rows*patch, W] -> hidden states [b, tokens of the band, hs], positions of the full image."""
        ...

    def block(self, layer: int, hidden: Tensor, modulation: Any, text: Any, attend: Attend) -> Tensor:
        """One block on a band [b, t, hs]; `attend` does its self-attention."""
        ...

    def unembed(self, hidden: Tensor, modulation: Any, rows: range) -> Tensor:
        """Hidden states of a band -> the model's prediction [b, C, rows*patch, W]."""
        ...


Sampler = Callable[[Tensor, Conditioning], Tensor | None]
"""sampler(noise [B,C,H,W], conditioning) -> latents [B,C,H,W] on rank 0 (None or the same elsewhere)."""


@dataclass(frozen=True)
class Problem:
    """Why a method cannot run a configuration: the key at fault and one sentence with what is allowed."""

    key: str
    message: str


def parameter_parts(dit: DiT) -> Mapping[str, int]:
    """Bytes of the parameters held, each tensor once, by part: `block i`, `embed`, `unembed`, `conditioning`."""
    parts: dict[str, int] = {}
    for name, parameter in dit.model.named_parameters():
        part = part_of(name)
        parts[part] = parts.get(part, 0) + parameter.numel() * parameter.element_size()
    return parts


def clone_modules(module: nn.Module) -> nn.Module:
    """A copy of a module tree that shares its parameters: replacing a module or a parameter in one leaves the other.

    Forward hooks are each tree's own as well.
    """
    twin = module.__new__(type(module))
    twin.__dict__.update(module.__dict__)  # copy.copy does the same in ten times the time
    for name in ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[name] = module.__dict__[name].copy()
    twin._modules = {
        name: None if child is None else clone_modules(child) for name, child in module._modules.items()
    }
    return twin


def part_of(name: str) -> str:
    """The part of the model that a parameter's name belongs to."""
    if name.startswith("transformer_blocks."):
        return f"block {name.split('.')[1]}"
    if name.startswith("pos_embed."):
        return "embed"
    if name.startswith(("proj_out.", "scale_shift_table")):
        return "unembed"
    return "conditioning"
