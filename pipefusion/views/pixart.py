"""`diffusers.PixArtTransformer2DModel`: PixArt-alpha and -sigma. Its own modules are called and none is copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import KV, Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, linear
from pipefusion.views.sites import SelfOrCross, Site, prompt_kv
from pipefusion.views.sizes import prompt_sizes, time_embedder
from pipefusion.views.stock import (
    StockView,
    cross_attention_plan,
    patch_embedded,
    sincos_positions,
    unpatchified,
    without_variance,
)


class Text(NamedTuple):
    """Projected prompt [b, T, hs], its additive mask [b, 1, T], where used height and width [1, 2] and ratio [1, 1]."""

    hidden: Tensor
    bias: Tensor
    size: tuple[Tensor, Tensor] | None


class Modulation(NamedTuple):
    """AdaLN-single: the six shifts, scales and gates [b, 6*hs] and the time embedding [b, hs]."""

    blocks: Tensor
    embedded: Tensor


def told_size(config: Mapping[str, Any]) -> bool:
    """Whether the picture's size is an input of the model, as PixArt-alpha at 1024 px is."""
    stated = config.get("use_additional_conditions")
    return config["sample_size"] == 128 if stated is None else stated


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration (its `config.json`) on `rows` x `cols` tokens."""
    hs = config["num_attention_heads"] * config["attention_head_dim"]
    mlp, square = 4 * hs, config["patch_size"] ** 2
    channels, text = config["caption_channels"], facts["text_tokens"]
    out = config["out_channels"] or config["in_channels"]
    third = hs // 3
    sizes = 2 * time_embedder(third) if told_size(config) else 0
    block = BlockShape(
        split_params=6 * linear(hs, hs) + 2 * hs * hs + linear(hs, mlp) + mlp * hs,
        kept_params=3 * hs + 6 * hs,  # biases of the three outputs, scale_shift_table
        image_macs=6 * hs * hs + 2 * hs * mlp,
        text_macs=2 * hs * hs,
        image_reduces=3,
        cross_params=3 * linear(hs, hs) + hs * hs,
    )
    conditioning = time_embedder(hs) + linear(hs, 6 * hs) + sizes + linear(channels, hs) + linear(hs, hs)
    return DiTShape(
        heads=config["num_attention_heads"],
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=config["in_channels"],
        out_channels=out,
        blocks=(block,) * config["num_layers"],
        embed_params=linear(config["in_channels"] * square, hs),
        unembed_params=linear(hs, square * out) + 2 * hs,
        shared_params=((range(0), conditioning),),
        prompt=prompt_sizes(text, channels),
    )


class View(StockView):
    """PixArt opened up. The size that it was made for may be another: positions follow the size in use."""

    stock = "PixArtTransformer2DModel"
    attentions = ("attn1", "attn2")
    site = SelfOrCross
    embed_parts = ("pos_embed",)
    unembed_parts = ("proj_out", "scale_shift_table")
    labels: ClassVar[Mapping[str, str]] = {
        "adaln_single": "AdaLN",
        "caption_projection": "caption projection",
        "pos_embed": "patch embedding",
        "proj_out": "output projection",
        "scale_shift_table": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        if self.holds("pos_embed"):
            self.model.pos_embed.pos_embed = sincos_positions(self.model.pos_embed, self.shape, self.device)

    def tensor_plan(self, layer: int) -> TensorPlan:
        return cross_attention_plan(self.shape)

    def text(self, cond: Conditioning) -> Text:
        embeds, bias = self.masked_prompt(cond)
        size = None
        if told_size(self.model.config):
            height = self.shape.token_rows * self.shape.patch_size * self.pixels_per_latent
            width = self.shape.token_cols * self.shape.patch_size * self.pixels_per_latent
            size = (
                torch.tensor([[height, width]], device=self.device, dtype=self.dtype),
                torch.tensor([[height / width]], device=self.device, dtype=self.dtype),
            )
        return Text(self.model.caption_projection(embeds), bias, size)

    def cross(self, text: Text) -> Mapping[int, KV]:
        return {layer: prompt_kv(self.block_module(layer).attn2, text.hidden) for layer in self.layers}

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        extra = None
        if text.size:
            resolution, ratio = text.size
            extra = {"resolution": resolution.expand(batch, 2), "aspect_ratio": ratio.expand(batch, 1)}
        times = timestep.expand(batch)
        blocks, embedded = self.model.adaln_single(times, extra, batch_size=batch, hidden_dtype=self.dtype)
        return Modulation(blocks, embedded)

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        return Tokens(patch_embedded(self.model.pos_embed, self.shape, latent.to(self.dtype), rows))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block, table = self.block_module(0), given.modulation.blocks.unflatten(1, (6, -1))
        shift, scale = (block.scale_shift_table + table)[:, :2].split(1, dim=1)
        return block.norm1(tokens.image) * (1 + scale) + shift

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        hidden = self.model.transformer_blocks[layer](
            tokens.image,
            encoder_hidden_states=given.cross[layer],
            encoder_attention_mask=given.text.bias,
            timestep=given.modulation.blocks,
            cross_attention_kwargs={"image_rotary_emb": Site(attend)},
        )
        return Tokens(hidden)

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        model = self.model
        shift, scale = (model.scale_shift_table[None] + modulation.embedded[:, None]).chunk(2, dim=1)
        pixels = model.proj_out(model.norm_out(image) * (1 + scale) + shift)  # [b, t, patch*patch*C]
        latent = unpatchified(pixels, len(rows), self.shape.patch_size)
        return without_variance(latent, self.shape)
