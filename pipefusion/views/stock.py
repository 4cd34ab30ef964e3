"""What all views have in common: a stock model on `meta`, cut to a rank's part, then filled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import KV, DiT, Shard, TensorPlan, clone_modules
from pipefusion.core.grid import Band
from pipefusion.core.shape import DiTShape
from pipefusion.deferred import diffusers, embeddings
from pipefusion.views.sites import processor


class StockView:
    """A diffusers transformer built on `meta`. A view says where its blocks and ends are, and how they are called."""

    stock: ClassVar[str]
    """Its class in diffusers."""
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    """The lists of blocks, in the order of the layers."""
    attentions: ClassVar[tuple[str, ...]] = ("attn",)
    """The attentions in a block, which all get a processor: `site(layer)`."""
    site: ClassVar[type[Any]]
    embed_parts: ClassVar[tuple[str, ...]]
    unembed_parts: ClassVar[tuple[str, ...]] = ("norm_out", "proj_out")
    labels: ClassVar[Mapping[str, str]]
    """What people call the parts, by the first word of a parameter's name."""
    teacache: ClassVar[tuple[float, ...]] = (1.0, 0.0)
    tables: ClassVar[frozenset[str]] = frozenset()
    """Buffers of the state dict that the view makes itself."""

    def __init__(
        self, config: dict[str, Any], shape: DiTShape, dtype: torch.dtype, pixels_per_latent: int = 1
    ):
        stock = getattr(diffusers, self.stock)
        with diffusers.models.modeling_utils.no_init_weights(), torch.device("meta"):
            self.model = stock.from_config(config).eval()
        self.leave_out(self.model)
        nn.Module.to(self.model, dtype)  # diffusers' own `to` warns about modules that not every model has
        self.model.requires_grad_(False)
        self.shape, self.dtype, self.pixels_per_latent = shape, dtype, pixels_per_latent
        self.layers = range(shape.layers)
        self.shards: dict[str, Shard] = {}
        self.device = torch.device("meta")
        self._names = [
            f"{stack}.{index}"
            for stack in self.stacks
            for index in range(len(self.model.get_submodule(stack)))
        ]
        self.open_sites()
        self.make_tables(None)

    @staticmethod
    def leave_out(model: nn.Module) -> None:
        """Let go of what a stock model has and its view neither holds nor computes."""

    def open_sites(self) -> None:
        """Give every attention of every block its processor."""
        for layer in self.layers:
            for name in self.attentions:
                self.block_module(layer).get_submodule(name).set_processor(processor(self.site, layer))

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        """Make what depends on the size of the image, such as positions, on `self.device`."""

    def served_layers(self, name: str) -> range | None:
        """The layers that a shared part serves, where not all do."""
        return None

    def set_turns(self, turns: Tensor) -> None:
        """Keep rotary positions, those of the prompt's tokens first, as a buffer of the model: they count as held."""
        self.model.register_buffer("turns", turns, persistent=False)

    def positions(self, rows: Band, prompt: range) -> Any:
        turns = self.model._buffers.get("turns")
        if turns is None:
            return None
        image = self.shape.grid.take_tokens(turns, rows, offset=self.shape.joint_tokens)
        return torch.cat([turns[prompt.start : prompt.stop], image]) if prompt else image

    def masked_prompt(self, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Embeddings of the prompt [b, T, width], and the bias [b, 1, T] by which stock models mask some of it."""
        embeds, mask = (
            cond.stacked(name).to(self.device, self.dtype) for name in ("prompt_embeds", "prompt_mask")
        )
        return embeds, ((1 - mask) * -10000.0).unsqueeze(1)

    def cross(self, text: Any) -> Mapping[int, KV]:
        return {}

    def references(self, cond: Conditioning) -> Tensor | None:
        """Latents of the reference pictures [b, R, C, H, W], if the model edits any."""
        if not self.shape.references:
            return None
        return cond.stacked("references").to(self.device, self.dtype)

    def transformers(self) -> tuple[Self]:
        return (self,)

    def clone(self) -> Self:
        twin = copy.copy(self)
        twin.model = clone_modules(self.model)
        twin.shards = dict(self.shards)
        return twin

    def cut(self, axis: str) -> None:
        self.shape = self.shape.cut(axis)  # tables are made in the order of its tokens when they are loaded

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        self.layers = layers
        for layer, name in enumerate(self._names):
            if layer not in layers:
                self.model.set_submodule(name, nn.Identity())
        gone = [] if embed else [*self.embed_parts]
        gone += [] if unembed else self.unembed_parts
        for name, _ in self.model.named_children():
            served = self.served_layers(name)
            if served is not None and not set(served) & set(layers):
                gone.append(name)
        for name in gone:
            is_module = isinstance(getattr(self.model, name), nn.Module)
            setattr(self.model, name, nn.Identity() if is_module else None)

    def holds(self, name: str) -> bool:
        """Whether `keep` has left a part of the model here."""
        part = getattr(self.model, name)
        return part is not None and not isinstance(part, nn.Identity)

    def load(self, tensors: Callable[..., Tensor], device: torch.device) -> None:
        self.device = device
        self.make_tables(tensors)  # first: what making them takes is gone when the parameters come
        state = {
            name: tensors(name, self.shards.get(name), dtype=self.dtype, device=device)
            for name, _ in self.model.named_parameters()
        }
        missing, unexpected = self.model.load_state_dict(state, assign=True, strict=False)
        if unexpected or not self.tables.issuperset(missing):
            raise KeyError(f"not filled: {missing}; not known: {unexpected}")

    def adopt(self, other: DiT) -> None:
        self.model.load_state_dict(dict(other.model.named_parameters()), assign=True, strict=False)
        for name, table in other.model.named_buffers():
            owner, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, table)
        self.device = other.device

    def block_name(self, layer: int) -> str:
        return self._names[layer]

    def block_module(self, layer: int) -> Any:
        """The stock block of a layer."""
        return self.model.get_submodule(self._names[layer])

    def parameter_part(self, name: str) -> str:
        first, *rest = name.split(".")
        if first in self.stacks:
            return f"block {self._names.index(f'{first}.{rest[0]}')}"
        if first in self.embed_parts:
            return "embed"
        return "unembed" if first in self.unembed_parts else "conditioning"

    def parameter_label(self, name: str) -> str:
        return self.labels.get(name.split(".")[0], "blocks")


def sincos_positions(module: Any, shape: DiTShape, device: torch.device) -> Tensor:
    """Sin-cos positions of the full image [1, p, hs], as a `PatchEmbed` makes them, for the size in use."""
    if device.type == "meta":
        return torch.empty(1, shape.tokens, shape.hidden, device=device)
    table = embeddings.get_2d_sincos_pos_embed(
        shape.hidden,
        (shape.token_rows, shape.token_cols),
        base_size=module.base_size,
        interpolation_scale=module.interpolation_scale,
        output_type="pt",
        device=torch.device("cpu"),
    )
    return table.float().unsqueeze(0).to(device)


def patch_embedded(module: Any, shape: DiTShape, latent: Tensor, rows: Band) -> Tensor:
    """A band of the latent [b, C, rows*patch, W] through a `PatchEmbed`, with its positions if any: [b, t, hs]."""
    hidden = module.proj(latent).flatten(2).transpose(1, 2)  # [b, t, hs]
    if module.pos_embed is not None:
        hidden = hidden + shape.grid.take_tokens(module.pos_embed, rows, 1)
    return hidden.to(latent.dtype)


def cross_attention_plan(shape: DiTShape) -> TensorPlan:
    """What tensor parallelism splits in a block of self-attention, cross-attention and MLP."""
    hs, mlp = (shape.hidden,), (shape.mlp_hidden,)
    queries = [f"attn{n}.to_{part}" for n in (1, 2) for part in "qkv"]
    columns = dict.fromkeys(queries, hs) | {"ff.net.0.proj": mlp}
    return TensorPlan(columns, {"attn1.to_out.0": hs, "attn2.to_out.0": hs, "ff.net.2": mlp}, cross="attn2")


def fitted(tokens: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column of a picture that is fitted into the middle of one of `base` tokens."""
    scale = min(most / size for most, size in zip(base, tokens, strict=True))
    rows, cols = (round(scale * size) for size in tokens)
    top, left = round((base[0] - rows) / 2), round((base[1] - cols) / 2)
    return (top, left), (top + rows, left + cols)


def pair_turns(cos: Tensor, sin: Tensor) -> Tensor:
    """Turns [tokens, head_dim / 2] from diffusers' rotary tables [tokens, head_dim], in which every angle is twice."""
    return torch.complex(cos[:, ::2], sin[:, ::2])


def video_table(shape: DiTShape, table: Tensor) -> Tensor:
    """A table of a video's tokens by frame, row and column [F*h*w, n] in the order in which they lie."""
    sizes = shape.frames or 1, shape.token_rows, shape.token_cols
    return shape.grid.in_line(table.view(1, *sizes, -1))[0]


def grid_ids(shape: DiTShape, axes: int, device: torch.device, apart: int = 1) -> Tensor:
    """Positions of the image's tokens [p, axes]: row on axis 1, column on axis 2, the others 0.

    Reference pictures are so far apart on axis 0, the first of them from the picture too.
    """
    planes, rows, cols = sizes = shape.grid.planes, shape.token_rows, shape.token_cols
    ids = torch.zeros(*sizes, axes, device=device)
    ids[..., 0] += apart * torch.arange(planes, device=device)[:, None, None]
    ids[..., 1] += torch.arange(rows, device=device)[:, None]
    ids[..., 2] += torch.arange(cols, device=device)[None]
    return shape.grid.in_line(ids[None])[0]


def picture_tokens(
    shape: DiTShape, latent: Tensor, rows: Band, references: Tensor | None, patch: int
) -> Tensor:
    """A band [b, C, h, W] and that of all `references` [b, R, C, H, W] as pixels of tokens [b, t, C*patch*patch]."""
    if references is None:
        return patchified(latent, patch)
    pictures = [latent, *(shape.grid.take_latent(each, rows) for each in references.unbind(1))]
    tokens = torch.stack(
        [patchified(each, patch) for each in pictures], dim=1
    )  # [b, 1+R, h*w, C*patch*patch]
    return shape.grid.in_line(tokens.unflatten(2, (len(rows), -1)))


def patchified(latent: Tensor, patch: int, channels_last: bool = False) -> Tensor:
    """[b, C, h*patch, w*patch] -> [b, h*w, C*patch*patch]; `channels_last` is the order in a token."""
    parts = latent.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [b, C, h, patch, w, patch]
    order = (0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5)
    return parts.permute(order).flatten(3).flatten(1, 2)


def unpatchified(pixels: Tensor, rows: int, patch: int, channels_last: bool = True) -> Tensor:
    """[b, rows*cols, patch*patch*C] -> [b, C, rows*patch, cols*patch]; `channels_last` is the order in a token."""
    grid = pixels.unflatten(1, (rows, -1))  # [b, rows, cols, patch*patch*C]
    if channels_last:
        latent = grid.unflatten(-1, (patch, patch, -1)).permute(0, 5, 1, 3, 2, 4)
    else:
        latent = grid.unflatten(-1, (-1, patch, patch)).permute(0, 3, 1, 4, 2, 5)
    return latent.flatten(4, 5).flatten(2, 3)  # [b, C, rows*patch, cols*patch]


def video_unpatchified(pixels: Tensor, patch: int, channels_last: bool = True) -> Tensor:
    """[b, F, h, w, patch*patch*C] -> [b, C, F, h*patch, w*patch]; `channels_last` is the order in a token."""
    if channels_last:
        latent = pixels.unflatten(-1, (patch, patch, -1)).permute(0, 6, 1, 2, 4, 3, 5)
    else:
        latent = pixels.unflatten(-1, (-1, patch, patch)).permute(0, 4, 1, 2, 5, 3, 6)
    return latent.flatten(5, 6).flatten(3, 4)


def without_variance(latent: Tensor, shape: DiTShape) -> Tensor:
    """The prediction [b, C, h, W] without the learned variance that may follow it in the channels."""
    return latent[:, : shape.in_channels] if shape.out_channels == 2 * shape.in_channels else latent
