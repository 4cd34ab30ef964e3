"""The sizes of a diffusion transformer that costs, closed forms and checks follow from: numbers, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipefusion.core.grid import TokenGrid

Sizes = tuple[tuple[str, tuple[int, ...]], ...]
"""Tensors of a request by name, each with its shape without the images of the batch."""


@dataclass(frozen=True)
class BlockShape:
    """One layer. Parameters in elements; work in multiply-adds of its matrix products, attention left out."""

    split_params: int
    """What tensor parallelism divides: attention heads and MLP columns."""
    kept_params: int
    """What every device of a tensor axis holds: modulation, norms, biases behind an all-reduce."""
    image_macs: int
    """For each image token."""
    text_macs: int
    """For each prompt token: in each step of an MM-DiT, once an image for a cross-attention."""
    image_reduces: int
    """All-reduces of the image tokens under tensor parallelism."""
    text_reduces: int = 0
    """All-reduces of the prompt tokens."""
    cross_params: int = 0
    """Of `split_params` what is the cross-attention's, which an axis may leave whole."""
    wide_norms: int = 0
    """RMS norms of q and k over all heads: tensor parallelism sums the squares, one float32 an image token each."""
    wide_cross: bool = False
    """The cross-attention has two as well: of q for each image token, of k for the prompt's once an image."""
    image_only: bool = False
    """In an MM-DiT: attends to no token of the prompt (a refiner before the joint blocks): these pass by."""


@dataclass(frozen=True)
class Experts:
    """Two transformers of one configuration: the first predicts at a noise level `boundary` (0..1) and above it.

    `guidance_scale` is the second one's; None: that of the first.
    """

    boundary: float
    guidance_scale: float | None = None


@dataclass(frozen=True)
class DiTShape:
    """Lengths in tokens, rows of the latent, or elements."""

    heads: int
    hidden: int
    mlp_hidden: int
    token_rows: int
    token_cols: int
    patch_size: int
    in_channels: int
    out_channels: int
    blocks: tuple[BlockShape, ...]
    embed_params: int
    """Elements of what makes tokens of a latent and, in an MM-DiT, of the prompt."""
    unembed_params: int
    """Elements of what makes a latent of tokens."""
    shared_params: tuple[tuple[range, int], ...]
    """Elements that a device holds when it has any of these layers, or when the range is empty, always."""
    prompt: Sizes
    """The tensors that stand for one prompt, by name, with their shapes."""
    borrowed_params: int = 0
    """Elements of block 0 that the unembedding reads as well (DiT's embedder of time and class)."""
    joint: bool = False
    """MM-DiT: the prompt's tokens go through the blocks beside the image's, in one attention."""
    cross: bool = True
    """The blocks attend to the prompt's tokens in a cross-attention of their own."""
    image_filling: int = 0
    """Learned tokens that fill up the image's: in no patch, they go with the prompt's, in front of them."""
    text_filling: int = 0
    """Learned tokens that fill up the prompt's."""
    linear: bool = False
    """Self-attention is linear, with ReLU kernels: of K and V it needs sums over tokens."""
    cross_heads: int | None = None
    """Heads of the cross-attentions, where they are others than those of the self-attentions."""
    convolved: int = 0
    """Channels of a depthwise 3 x 3 convolution in each block, whose bands need a row of their neighbours'."""
    skips: tuple[tuple[int, int], ...] = ()
    """Long skip connections: (layer that gives, layer that takes)."""
    guidance: Literal["cfg", "embedded", "none"] = "cfg"
    """How a guidance scale acts: on two branches, as an input of the model, or not at all."""
    frames: int | None = None
    """Of a video: frames of tokens. None: a picture."""
    patch_axis: str = "rows"
    """What patches are cut over: `rows` or, of a video, `frames`."""
    references: int = 0
    """Pictures of the same size that the model edits: tokens beside the image's, in its lines, never denoised."""
    first_frame: bool = False
    """The first frame of a video's latents is given, with a timestep without noise; it is not denoised."""
    experts: Experts | None = None
    """Where a second transformer of these sizes takes over; both are held."""
    itemsize: int = 4

    @property
    def transformers(self) -> int:
        """How many of these sizes there are."""
        return 1 if self.experts is None else 2

    def scale(self, given: float, expert: int) -> float:
        """The guidance scale of an expert, where that of a request is `given`."""
        own = None if self.experts is None or not expert else self.experts.guidance_scale
        return given if own is None else own

    @property
    def layers(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def tokens(self) -> int:
        """p, the image tokens, those of reference pictures among them."""
        return self.token_rows * self.token_cols * self.grid.planes

    @property
    def denoised_tokens(self) -> int:
        """Tokens of what the latents are of: p, but for those of reference pictures."""
        return self.tokens // self.grid.planes * (self.grid.planes - self.references)

    @property
    def pictures(self) -> Sizes:
        """The tensors beside the prompt's in a request for one image, the same for both branches of guidance."""
        channels, *_, height, width = self.latent_size
        beside = {
            "references": (self.references, *self.latent_size) if self.references else None,
            "first_frame": (channels, 1, height, width) if self.first_frame else None,
        }
        return tuple((name, size) for name, size in beside.items() if size)

    @property
    def text_tokens(self) -> int:
        """Tokens of one prompt, all encoders together."""
        return sum(size[0] for name, size in self.prompt if name.startswith("prompt_embeds"))

    @property
    def joint_tokens(self) -> int:
        """Tokens that go through the blocks beside the image's, the prompt's and filling: 0 unless it is an MM-DiT."""
        return self.image_filling + self.text_tokens + self.text_filling if self.joint else 0

    def prefix(self, layer: int) -> int:
        """Tokens in front of the image's in a layer's self-attention."""
        return self.image_filling if self.blocks[layer].image_only else self.joint_tokens

    def own_prefix(self, layer: int, prompt: range) -> int:
        """How many of these tokens a rank has whose share of all joint ones is `prompt`."""
        return len(range(self.prefix(layer))[prompt.start : prompt.stop])

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def latent_size(self) -> tuple[int, ...]:
        """Channels, frames of a video, height and width of the latent of one image."""
        frames = () if self.frames is None else (self.frames,)
        sides = self.token_rows * self.patch_size, self.token_cols * self.patch_size
        return self.in_channels, *frames, *sides

    @property
    def grid(self) -> TokenGrid:
        """Where the image's tokens lie."""
        sizes = self.token_rows, self.token_cols, self.patch_size, self.frames
        return TokenGrid(*sizes, self.patch_axis, self.references)

    def cut(self, axis: str | None) -> DiTShape:
        """The same with patches cut over another axis; None leaves it as it is."""
        return self if axis is None else replace(self, patch_axis=axis)

    @property
    def lines(self) -> int:
        """What patches, bands and shares are cut of: token rows, or frames."""
        return self.grid.lines

    @property
    def line_name(self) -> str:
        """What lines are called."""
        return "token rows" if self.patch_axis == "rows" else "latent frames"

    def band_tokens(self, rows: range) -> slice:
        """The image tokens of consecutive lines."""
        width = self.grid.width
        return slice(rows.start * width, rows.stop * width)

    def band_latent(self, rows: range) -> slice:
        """The latent rows of consecutive token rows."""
        return slice(rows.start * self.patch_size, rows.stop * self.patch_size)


class NotSquare(ValueError):
    """A model that draws squares only was asked for another picture."""


class TooLarge(ValueError):
    """A model was asked for more tokens on an axis than it has positions for."""


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    """Elements of a linear layer."""
    return inputs * outputs + bias * outputs
