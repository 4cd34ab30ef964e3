"""`diffusers.DiTTransformer2DModel`: DiT-XL/2, which draws classes instead of prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, NotSquare, linear
from pipefusion.views.sites import SelfOrCross, Site
from pipefusion.views.sizes import time_embedder
from pipefusion.views.stock import StockView, patch_embedded, sincos_positions, unpatchified, without_variance


class Modulation(NamedTuple):
    """Time [b] and class [b], which every block embeds for itself, and their embedding for the end [b, hs]."""

    times: Tensor
    labels: Tensor
    embedded: Tensor | None


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises NotSquare where these differ."""
    if rows != cols:  # the stock model takes the root of the number of tokens for both
        raise NotSquare("DiTTransformer2DModel draws squares only")
    hs = config["num_attention_heads"] * config["attention_head_dim"]
    mlp, square = 4 * hs, config["patch_size"] ** 2
    out, bias = config["out_channels"] or config["in_channels"], config["attention_bias"]
    embedder = time_embedder(hs) + (config["num_embeds_ada_norm"] + 1) * hs
    block = BlockShape(
        split_params=3 * linear(hs, hs, bias) + hs * hs + linear(hs, mlp) + mlp * hs,
        kept_params=2 * hs + linear(hs, 6 * hs) + embedder,
        image_macs=4 * hs * hs + 2 * hs * mlp,
        text_macs=0,
        image_reduces=2,
    )
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
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * out),
        shared_params=(),
        prompt=(("class_labels", ()),),
        borrowed_params=embedder,
        cross=False,
    )


class View(StockView):
    """DiT opened up. The end reads the embedder of time and class of block 0, so its device holds that as well."""

    stock = "DiTTransformer2DModel"
    attentions = ("attn1",)
    site = SelfOrCross
    embed_parts = ("pos_embed",)
    unembed_parts = ("proj_out_1", "proj_out_2")
    labels: ClassVar[Mapping[str, str]] = {
        "pos_embed": "patch embedding",
        "proj_out_1": "output projection",
        "proj_out_2": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        if self.holds("pos_embed"):
            self.model.pos_embed.pos_embed = sincos_positions(self.model.pos_embed, self.shape, self.device)

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        borrowed = self.model.transformer_blocks[0].norm1.emb
        super().keep(layers, embed=embed, unembed=unembed)
        if unembed and 0 not in layers:  # under the name that it has in the stock model
            norm1, block = nn.Module(), nn.Module()
            norm1.emb, block.norm1 = borrowed, norm1
            self.model.transformer_blocks[0] = block

    def parameter_part(self, name: str) -> str:
        part = super().parameter_part(name)
        return "unembed" if part == "block 0" and 0 not in self.layers else part

    def parameter_label(self, name: str) -> str:
        return "embedder of time and class" if ".norm1.emb." in name else super().parameter_label(name)

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        columns = dict.fromkeys(("attn1.to_q", "attn1.to_k", "attn1.to_v"), hs) | {"ff.net.0.proj": mlp}
        return TensorPlan(columns, {"attn1.to_out.0": hs, "ff.net.2": mlp})

    def text(self, cond: Conditioning) -> Tensor:
        return cond.stacked("class_labels").to(self.device)

    def modulation(self, timestep: Tensor, text: Tensor, batch: int) -> Modulation:
        times, embedded = timestep.repeat(batch), None
        if self.holds("proj_out_1"):
            embedder = self.model.transformer_blocks[0].norm1.emb
            embedded = embedder(times, text, hidden_dtype=self.dtype)
        return Modulation(times, text, embedded)

    def embed(self, latent: Tensor, rows: Band, text: Tensor, modulation: Modulation) -> Tokens:
        return Tokens(patch_embedded(self.model.pos_embed, self.shape, latent.to(self.dtype), rows))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        norm, conditions = self.block_module(0).norm1, (given.modulation.times, given.modulation.labels)
        return norm(tokens.image, *conditions, hidden_dtype=self.dtype)[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        hidden = self.model.transformer_blocks[layer](
            tokens.image,
            timestep=given.modulation.times,
            class_labels=given.modulation.labels,
            cross_attention_kwargs={"image_rotary_emb": Site(attend)},
        )
        return Tokens(hidden)

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        model = self.model
        assert modulation.embedded is not None
        shift, scale = model.proj_out_1(F.silu(modulation.embedded)).chunk(2, dim=1)
        pixels = model.proj_out_2(model.norm_out(image) * (1 + scale[:, None]) + shift[:, None])
        latent = unpatchified(pixels, len(rows), self.shape.patch_size)
        return without_variance(latent, self.shape)
