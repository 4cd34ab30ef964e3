"""`diffusers.HunyuanDiT2DModel`: cross-attention to two encoders, and long skips from each layer to its mirror."""

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
from pipefusion.deferred import embeddings
from pipefusion.views.sites import SelfOrCross, Site, prompt_kv
from pipefusion.views.sizes import prompt_sizes, time_embedder
from pipefusion.views.stock import (
    StockView,
    cross_attention_plan,
    fitted,
    pair_turns,
    unpatchified,
    without_variance,
)

BASE_PIXELS = 512  # the picture that rotary positions are counted on, in its pipeline
ORIGINAL_PIXELS = 1024  # the size of the original that versions before 1.2 are given, by default


class Text(NamedTuple):
    """Tokens of both encoders, padding filled in [b, T+T2, cross], of the second as they came [b, T2, D2].

    `sizes` [1, 6] where the model is given them.
    """

    hidden: Tensor
    second: Tensor
    sizes: Tensor | None


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    if config["activation_fn"] != "gelu-approximate":
        raise ValueError(f"activation_fn {config['activation_fn']!r}; supported: gelu-approximate")
    heads, layers = config["num_attention_heads"], config["num_layers"]
    head_dim, hs = config["attention_head_dim"], heads * config["attention_head_dim"]
    mlp, square = int(hs * config["mlp_ratio"]), config["patch_size"] ** 2
    cross, second = config["cross_attention_dim"], config["cross_attention_dim_t5"]
    tokens, pooled = (config["text_len"], config["text_len_t5"]), config["pooled_projection_dim"]

    def block(skip: bool) -> BlockShape:
        joined = 4 * hs + linear(2 * hs, hs) if skip else 0
        return BlockShape(
            split_params=4 * linear(hs, hs)
            + 2 * linear(cross, hs)
            + 2 * hs * hs
            + linear(hs, mlp)
            + mlp * hs,
            kept_params=3 * hs + 6 * hs + linear(hs, hs) + 8 * head_dim + joined,
            image_macs=6 * hs * hs + 2 * hs * mlp + skip * 2 * hs * hs,
            text_macs=2 * cross * hs,
            image_reduces=3,
            cross_params=linear(hs, hs) + 2 * linear(cross, hs) + hs * hs,
        )

    pool = (tokens[1] + 1) * second + 3 * linear(second, second) + linear(second, pooled)
    style = config["use_style_cond_and_image_meta_size"]
    extra = pooled + (256 * 6 + hs if style else 0)
    embedder = time_embedder(hs) + pool + style * hs + linear(extra, 4 * hs) + linear(4 * hs, hs)
    texts = linear(second, 4 * second) + linear(4 * second, cross) + sum(tokens) * cross
    out = config["in_channels"] * (2 if config["learn_sigma"] else 1)
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=config["in_channels"],
        out_channels=out,
        blocks=tuple(block(layer > layers // 2) for layer in range(layers)),
        embed_params=linear(config["in_channels"] * square, hs),
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * out),
        shared_params=((range(0), embedder + texts),),
        prompt=(*prompt_sizes(tokens[0], cross), *prompt_sizes(tokens[1], second, "_2")),
        skips=tuple(mirror_skips(layers)),
    )


def mirror_skips(layers: int) -> list[tuple[int, int]]:
    """The first layers give, the last ones take, in mirror order: what is put away last is taken first."""
    givers = list(range(layers // 2 - 1))
    return [(givers.pop(), taker) for taker in range(layers // 2 + 1, layers)]


class View(StockView):
    """HunyuanDiT opened up. A skip is an argument of `block`; who carries it there is not the view's matter."""

    stock = "HunyuanDiT2DModel"
    stacks = ("blocks",)
    attentions = ("attn1", "attn2")
    site = SelfOrCross
    embed_parts = ("pos_embed",)
    labels: ClassVar[Mapping[str, str]] = {
        "time_extra_emb": "time and text embedding",
        "text_embedder": "text projection",
        "text_embedding_padding": "text projection",
        "pos_embed": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        rows, cols = self.shape.token_rows, self.shape.token_cols
        base = BASE_PIXELS // 8 // self.shape.patch_size
        grid = fitted((rows, cols), (base, base)), (rows, cols)
        tables = embeddings.get_2d_rotary_pos_embed(
            self.shape.head_dim, *grid, device=self.device, output_type="pt"
        )
        self.set_turns(pair_turns(*tables))

    def tensor_plan(self, layer: int) -> TensorPlan:
        return cross_attention_plan(self.shape)

    def text(self, cond: Conditioning) -> Text:
        first, second = (
            cond.stacked(name).to(self.device, self.dtype) for name in ("prompt_embeds", "prompt_embeds_2")
        )
        masks = [cond.stacked(name).to(self.device) for name in ("prompt_mask", "prompt_mask_2")]
        hidden = torch.cat([first, self.model.text_embedder(second)], dim=1)  # [b, T+T2, cross]
        there = torch.cat(masks, dim=1).unsqueeze(2).bool()
        sizes = None
        if self.model.config["use_style_cond_and_image_meta_size"]:
            target = [side * self.pixels_per_latent for side in self.shape.latent_size[1:]]
            values = [ORIGINAL_PIXELS, ORIGINAL_PIXELS, *target, 0, 0]
            sizes = torch.tensor([values], device=self.device, dtype=self.dtype)
        return Text(torch.where(there, hidden, self.model.text_embedding_padding), second, sizes)

    def cross(self, text: Text) -> Mapping[int, KV]:
        return {layer: prompt_kv(self.block_module(layer).attn2, text.hidden) for layer in self.layers}

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Tensor:
        times = timestep.to(self.dtype).expand(batch)
        sizes = style = None
        if text.sizes is not None:
            sizes = text.sizes.repeat(batch, 1)
            style = torch.zeros(batch, device=self.device, dtype=torch.long)
        return self.model.time_extra_emb(times, text.second, sizes, style, hidden_dtype=self.dtype)  # [b, hs]

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Tensor) -> Tokens:
        return Tokens(self.model.pos_embed(latent.to(self.dtype)))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.block_module(0).norm1(tokens.image, given.modulation)

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        hidden = self.model.blocks[layer](
            tokens.image,
            temb=given.modulation,
            encoder_hidden_states=given.cross[layer],
            image_rotary_emb=Site(attend, given.positions),
            skip=skip,
        )
        return Tokens(hidden)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        hidden = self.model.norm_out(image, modulation.to(torch.float32))
        pixels = self.model.proj_out(hidden)  # [b, t, patch*patch*C]
        latent = unpatchified(pixels, len(rows), self.shape.patch_size)
        return without_variance(latent, self.shape)
