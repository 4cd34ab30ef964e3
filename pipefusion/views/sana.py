"""`diffusers.SanaTransformer2DModel`: SANA. Linear self-attention, cross-attention, an MLP with a convolution in it.

What tells a token where it is are the convolutions, which see the picture's borders: the models for up to 1024 px have
no positions, those for larger pictures (`interpolation_scale`) sin-cos ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.convolution import Convolve
from pipefusion.core.dit import KV, Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, linear
from pipefusion.views.sites import SelfOrCross, Site, prompt_kv
from pipefusion.views.sizes import prompt_sizes, time_embedder
from pipefusion.views.stock import (
    StockView,
    patch_embedded,
    sincos_positions,
    unpatchified,
    without_variance,
)


class Text(NamedTuple):
    """Projected prompt [b, T, hs] and its additive mask [b, 1, T]."""

    hidden: Tensor
    bias: Tensor


class Modulation(NamedTuple):
    """AdaLN-single: the six shifts, scales and gates [b, 6, hs] and the time embedding [b, hs]."""

    blocks: Tensor
    embedded: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    for key, what in {"qk_norm": "SANA 1.5", "guidance_embeds": "SANA-Sprint"}.items():
        if config[key]:
            raise ValueError(f"{key}={config[key]} ({what}) is not supported")
    hs, square = config["num_attention_heads"] * config["attention_head_dim"], config["patch_size"] ** 2
    if config["cross_attention_dim"] != hs or config["norm_elementwise_affine"]:
        raise ValueError("cross_attention_dim other than the hidden size, or affine norms, are not supported")
    mlp, bias = int(config["mlp_ratio"] * hs), config["attention_bias"]
    channels, text = config["caption_channels"], facts["text_tokens"]
    out = config["out_channels"] or config["in_channels"]
    cross, mixed = 3 * linear(hs, hs) + hs * hs, linear(hs, 2 * mlp) + 10 * 2 * mlp + mlp * hs
    block = BlockShape(
        split_params=3 * linear(hs, hs, bias) + hs * hs + cross + mixed,
        kept_params=2 * hs + 6 * hs,  # biases of both attentions' outputs, scale_shift_table
        image_macs=6 * hs * hs + 3 * hs * mlp + 9 * 2 * mlp,
        text_macs=2 * hs * hs,
        image_reduces=3,
        cross_params=cross,
    )
    conditioning = time_embedder(hs) + linear(hs, 6 * hs) + linear(channels, hs) + linear(hs, hs) + hs
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
        linear=True,
        cross_heads=config["num_cross_attention_heads"],
        convolved=2 * mlp,
    )


class View(StockView):
    """SANA opened up. A stock block hands nothing on to its attention and its convolution: its parts are called."""

    stock = "SanaTransformer2DModel"
    attentions = ("attn1", "attn2")
    site = SelfOrCross
    embed_parts = ("patch_embed",)
    unembed_parts = ("proj_out", "scale_shift_table")
    labels: ClassVar[Mapping[str, str]] = {
        "time_embed": "AdaLN",
        "caption_projection": "caption projection",
        "caption_norm": "caption projection",
        "patch_embed": "patch embedding",
        "proj_out": "output projection",
        "scale_shift_table": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        embed = self.model.patch_embed
        if self.holds("patch_embed") and embed.pos_embed is not None:
            embed.pos_embed = sincos_positions(embed, self.shape, self.device)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), self.shape.mlp_hidden
        queries = [f"attn{n}.to_{part}" for n in (1, 2) for part in "qkv"]
        columns: dict[str, tuple[int, ...]] = dict.fromkeys(queries, hs)
        columns |= dict.fromkeys(("ff.conv_inverted", "ff.conv_depth"), (mlp, mlp))
        rows = {"attn1.to_out.0": hs, "attn2.to_out.0": hs, "ff.conv_point": (mlp,)}
        return TensorPlan(columns, rows, cross="attn2")

    def text(self, cond: Conditioning) -> Text:
        embeds, bias = self.masked_prompt(cond)
        return Text(self.model.caption_norm(self.model.caption_projection(embeds)), bias)

    def cross(self, text: Text) -> Mapping[int, KV]:
        return {layer: prompt_kv(self.block_module(layer).attn2, text.hidden) for layer in self.layers}

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        times = timestep.expand(batch) * self.model.config.timestep_scale
        blocks, embedded = self.model.time_embed(times, batch_size=batch, hidden_dtype=self.dtype)
        return Modulation(blocks.unflatten(1, (6, -1)), embedded)

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        return Tokens(patch_embedded(self.model.patch_embed, self.shape, latent.to(self.dtype), rows))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block = self.block_module(0)
        shift, scale = (block.scale_shift_table + given.modulation.blocks)[:, :2].split(1, dim=1)
        return block.norm1(tokens.image) * (1 + scale) + shift

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        block, image = self.block_module(layer), tokens.image
        table = block.scale_shift_table + given.modulation.blocks
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table.split(1, dim=1)
        normed = block.norm1(image) * (1 + scale) + shift
        image = image + gate * block.attn1(normed, image_rotary_emb=Site(attend))
        image = block.attn2(image, given.cross[layer], given.text.bias) + image
        normed = block.norm2(image) * (1 + mlp_scale) + mlp_shift
        return Tokens(image + mlp_gate * self.mixed(layer, normed, given.convolve))

    def mixed(self, layer: int, x: Tensor, convolve: Convolve) -> Tensor:
        """The MLP of a block on tokens [b, t, hs], with its convolution over their rows."""
        ff = self.block_module(layer).ff
        pixels = x.unflatten(1, (-1, self.shape.token_cols)).permute(0, 3, 1, 2)  # [b, hs, h, W]
        hidden = convolve(layer, ff.conv_depth, ff.nonlinearity(ff.conv_inverted(pixels)))
        hidden, gate = hidden.chunk(2, dim=1)
        return ff.conv_point(hidden * ff.nonlinearity(gate)).flatten(2, 3).permute(0, 2, 1)

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        model = self.model
        hidden = model.norm_out(image, modulation.embedded, model.scale_shift_table)
        pixels = model.proj_out(hidden)  # [b, t, patch*patch*C]
        return without_variance(unpatchified(pixels, len(rows), self.shape.patch_size), self.shape)
