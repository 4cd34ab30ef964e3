"""A diffusion transformer as every method sees it: embed -> blocks -> unembed, on any band of token rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.convolution import Convolve, alone
from pipefusion.core.grid import Band
from pipefusion.core.shape import DiTShape


class Tokens(NamedTuple):
    """What goes from block to block for a band: image tokens [b, t, hs], of an MM-DiT also the prompt's [b, T, hs].

    Where Ulysses ranks share the prompt, T are a rank's own tokens of it.
    """

    image: Tensor
    text: Tensor | None = None

    @property
    def prefix(self) -> int:
        """Tokens of the prompt."""
        return 0 if self.text is None else self.text.shape[1]

    def share(self, prompt: range) -> Tokens:
        """The same with these of the prompt's tokens alone."""
        return self if self.text is None else Tokens(self.image, self.text[:, prompt.start : prompt.stop])


KV = tuple[Tensor, Tensor]
"""K and V, [b, tokens, heads, head_dim] each."""


class Given(NamedTuple):
    """Inputs of the blocks besides tokens, each as the view made it: the same for all layers of a job."""

    text: Any
    modulation: Any
    positions: Any
    cross: Mapping[int, KV]
    """By layer, what its cross-attention attends to; empty in a model without."""
    prompt: range
    """Which of an MM-DiT's prompt tokens are in `Tokens`: all, or a Ulysses rank's share."""
    convolve: Convolve = alone
    """What a convolution in a block does, where rows of the image lie beyond the job's."""


class PerExpert(NamedTuple):
    """What two experts make of the prompt, and which of them predicts in the step at hand."""

    texts: tuple[Any, Any]
    expert: int = 0


def for_expert(text: Any, expert: int) -> Any:
    """What a view made of the prompt, for a step in which this expert predicts; the same where there is one."""
    return text._replace(expert=expert) if isinstance(text, PerExpert) else text


Shard = tuple[int, tuple[tuple[int, int], ...]]
"""(dimension, sections): the slices (start, stop) of a parameter that this rank holds, one after the other."""


class TensorPlan(NamedTuple):
    """The linear layers of a block that tensor parallelism splits, by their name in the block.

    A fused layer is split section by section; the sections are sizes along its outputs (columns) or inputs (rows).
    `cross` names the cross-attention in the block, where it has one; `norms` the RMS norms of q and k over all heads.
    """

    columns: Mapping[str, tuple[int, ...]]
    rows: Mapping[str, tuple[int, ...]]
    cross: str | None = None
    norms: tuple[str, ...] = ()

    def without_cross(self) -> TensorPlan:
        """The same with the cross-attention left whole."""
        if self.cross is None:
            return self
        columns, rows = (
            {name: sizes for name, sizes in part.items() if not name.startswith(f"{self.cross}.")}
            for part in (self.columns, self.rows)
        )
        norms = tuple(name for name in self.norms if not name.startswith(f"{self.cross}."))
        return TensorPlan(columns, rows, norms=norms)


class DiT(Protocol):
    """A view on a stock model. It is built without data; `load` fills what `keep` and sharding have left."""

    @property
    def shape(self) -> DiTShape: ...
    @property
    def model(self) -> nn.Module: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def layers(self) -> range: ...
    @property
    def shards(self) -> dict[str, Shard]: ...
    @property
    def teacache(self) -> tuple[float, ...]:
        """TeaCache's polynomial of the relative change, highest power first: (1, 0) where none is published."""
        ...

    def transformers(self) -> tuple[DiT, ...]:
        """The transformers that it is made of: itself, or two experts."""
        ...

    def clone(self) -> DiT:
        """An independent view that shares the tensors: for many ranks in one process."""
        ...

    def cut(self, axis: str) -> None:
        """Cut patches of a video over `frames` or `rows`. Before anything is loaded."""
        ...

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        """Drop the blocks outside `layers`, and the embed and unembed parts where they are not wanted."""
        ...

    def load(self, tensors: Callable[..., Tensor], device: torch.device) -> None:
        """Fill every remaining parameter with `tensors(name, shard, dtype=..., device=...)`."""
        ...

    def adopt(self, other: DiT) -> None:
        """Take over the tensors of a view that holds the same parts: loading without a second copy."""
        ...

    def block_name(self, layer: int) -> str:
        """Where in the model the block of a layer is."""
        ...

    def tensor_plan(self, layer: int) -> TensorPlan:
        """What tensor parallelism splits in the block of a layer."""
        ...

    def parameter_part(self, name: str) -> str:
        """The part that a parameter belongs to: `block 3`, `embed`, `unembed` or `conditioning`."""
        ...

    def parameter_label(self, name: str) -> str:
        """What people call the part that a parameter belongs to: `blocks`, `AdaLN`, `patch embedding`, ..."""
        ...

    def text(self, cond: Conditioning) -> Any:
        """What the model makes of the prompt; the same for all steps and patches of an image."""
        ...

    def cross(self, text: Any) -> Mapping[int, KV]:
        """K, V of the prompt for the cross-attention of each layer held; the same for all steps and patches."""
        ...

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> Any:
        """What ends and blocks need of a timestep (a scalar on the view's device); the same for all patches.

        With the prompt's tokens, where they are others in every step and the model is entered here.
        """
        ...

    def positions(self, rows: Band, prompt: range) -> Any:
        """What the blocks need to know of the places of a band and of the prompt's tokens `prompt` (rotary tables).

        None where embed says all.
        """
        ...

    def embed(self, latent: Tensor, rows: Band, text: Any, modulation: Any) -> Tokens:
        """Band [b, C, rows*patch, W] -> tokens with the positions of the full image, and all of the prompt's."""
        ...

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        """What the self-attention of the first block is given of the image: its tokens, normed and modulated."""
        ...

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        """One block on a band; `attend` does its self-attention, `skip` [b, t, hs] comes from a layer before."""
        ...

    def unembed(self, image: Tensor, modulation: Any, rows: Band) -> Tensor:
        """Image tokens [b, t, hs] of a band -> the model's prediction [b, C, rows*patch, W]."""
        ...


Sampler = Callable[[Tensor, Conditioning, Any], Tensor | None]
"""sampler(noise [B,C,H,W], conditioning, scheduler) -> latents [B,C,H,W] on rank 0 (None or the same elsewhere).

The scheduler has its timesteps set and is not changed.
"""


class Skips(Protocol):
    """Long skip connections of one job, wherever their ends are."""

    def put(self, layer: int, image: Tensor) -> None:
        """The output of a layer, for the layer that takes it later, if any does."""
        ...

    def take(self, layer: int) -> Tensor | None:
        """What a layer takes, or None."""
        ...


class KeptSkips:
    """Skip connections of one job on a device that has all layers; they may be taken again."""

    def __init__(self, shape: DiTShape):
        self._takers = dict(shape.skips)
        self._kept: dict[int, Tensor] = {}

    def put(self, layer: int, image: Tensor) -> None:
        if layer in self._takers:
            self._kept[self._takers[layer]] = image

    def take(self, layer: int) -> Tensor | None:
        return self._kept.get(layer)


def run_blocks(
    dit: DiT, tokens: Tokens, given: Given, attend: Attend, skips: Skips, layers: range | None = None
) -> Tokens:
    """A band through these blocks; None: all that this rank holds."""
    for layer in dit.layers if layers is None else layers:
        tokens = dit.block(layer, tokens, given, attend, skips.take(layer))
        skips.put(layer, tokens.image)
    return tokens


def parameter_parts(dit: DiT) -> Mapping[str, int]:
    """Bytes of the parameters held, each tensor once, by part: `block i`, `embed`, `unembed`, `conditioning`."""
    parts: dict[str, int] = {}
    for name, parameter in dit.model.named_parameters():
        part = dit.parameter_part(name)
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
