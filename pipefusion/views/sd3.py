"""`diffusers.SD3Transformer2DModel`: Stable Diffusion 3 and 3.5 large, an MM-DiT of double blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Given, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import BlockShape, DiTShape, TooLarge, linear
from pipefusion.views.sites import Joint, Site
from pipefusion.views.sizes import double_block, prompt_sizes, time_embedder
from pipefusion.views.stock import StockView, patch_embedded, unpatchified


class Text(NamedTuple):
    """The prompt's tokens as they enter the blocks [b, T, hs] (where the model is entered), and its summary [b, P]."""

    tokens: Tensor | None
    pooled: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `rows` x `cols` tokens. Raises ValueError for what is not supported."""
    if config["dual_attention_layers"]:
        raise ValueError("dual_attention_layers (SD3.5 medium) are not supported: a second attention a block")
    most = config["pos_embed_max_size"]
    if max(rows, cols) > most:
        count = f"{rows} token rows" if rows >= cols else f"{cols} token columns"
        text = f"positions end at {most} of them, {most * config['patch_size'] * 8} px"
        raise TooLarge(f"{count} are too many: its {text}")
    heads, head_dim, layers = (
        config[key] for key in ("num_attention_heads", "attention_head_dim", "num_layers")
    )
    hs, mlp, square = heads * head_dim, 4 * heads * head_dim, config["patch_size"] ** 2
    channels, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
    norms = 4 * head_dim if config["qk_norm"] else 0
    block = double_block(hs, mlp, norms)
    last = BlockShape(  # the prompt's tokens end with its attention
        split_params=6 * linear(hs, hs) + hs * hs + linear(hs, mlp) + mlp * hs,
        kept_params=2 * hs + linear(hs, 6 * hs) + linear(hs, 2 * hs) + norms,
        image_macs=4 * hs * hs + 2 * hs * mlp,
        text_macs=3 * hs * hs,
        image_reduces=2,
    )
    out = config["out_channels"] or config["in_channels"]
    return DiTShape(
        heads=heads,
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=config["patch_size"],
        in_channels=config["in_channels"],
        out_channels=out,
        blocks=(block,) * (layers - 1) + (last,),
        embed_params=linear(config["in_channels"] * square, hs)
        + linear(channels, config["caption_projection_dim"]),
        unembed_params=linear(hs, 2 * hs) + linear(hs, square * out),
        shared_params=((range(0), time_embedder(hs) + linear(pooled, hs) + linear(hs, hs)),),
        prompt=(*prompt_sizes(facts["text_tokens"], channels), ("pooled_prompt_embeds", (pooled,))),
        joint=True,
        cross=False,
    )


class View(StockView):
    """SD3 opened up. Its table of positions is part of the weights, for the largest image; the middle of it is used."""

    stock = "SD3Transformer2DModel"
    site = Joint
    embed_parts = ("pos_embed", "context_embedder")
    labels: ClassVar[Mapping[str, str]] = {
        "time_text_embed": "time and text embedding",
        "context_embedder": "text embedding",
        "pos_embed": "patch embedding",
        "norm_out": "output projection",
        "proj_out": "output projection",
    }
    tables = frozenset({"pos_embed.pos_embed"})

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        if not self.holds("pos_embed"):
            return
        name, rows, cols = "pos_embed.pos_embed", self.shape.token_rows, self.shape.token_cols
        most, embed = self.model.config["pos_embed_max_size"], self.model.pos_embed
        if tensors is None:
            embed.pos_embed = torch.empty(1, rows * cols, self.shape.hidden, dtype=self.dtype, device="meta")
            return
        top, left = (most - rows) // 2, (most - cols) // 2
        shard = (1, ((top * most, (top + rows) * most),))
        band = tensors(name, shard, dtype=self.dtype, device=self.device).unflatten(1, (rows, most))
        embed.pos_embed = band[:, :, left : left + cols].flatten(1, 2)  # [1, p, hs]

    def tensor_plan(self, layer: int) -> TensorPlan:
        hs, mlp = (self.shape.hidden,), (self.shape.mlp_hidden,)
        queries = [f"attn.{name}" for part in "qkv" for name in (f"to_{part}", f"add_{part}_proj")]
        columns = dict.fromkeys(queries, hs) | {"ff.net.0.proj": mlp}
        rows = {"attn.to_out.0": hs, "ff.net.2": mlp}
        if layer < self.shape.layers - 1:
            columns |= {"ff_context.net.0.proj": mlp}
            rows |= {"attn.to_add_out": hs, "ff_context.net.2": mlp}
        return TensorPlan(columns, rows)

    def text(self, cond: Conditioning) -> Text:
        pooled = cond.stacked("pooled_prompt_embeds").to(self.device, self.dtype)
        if not self.holds("context_embedder"):
            return Text(None, pooled)
        embeds = cond.stacked("prompt_embeds").to(self.device, self.dtype)
        return Text(self.model.context_embedder(embeds), pooled)

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Tensor:
        return self.model.time_text_embed(timestep.expand(batch), text.pooled)  # [b, hs]

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Tensor) -> Tokens:
        return Tokens(
            patch_embedded(self.model.pos_embed, self.shape, latent.to(self.dtype), rows), text.tokens
        )

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        return self.block_module(0).norm1(tokens.image, emb=given.modulation)[0]

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        text, image = self.model.transformer_blocks[layer](
            hidden_states=tokens.image,
            encoder_hidden_states=tokens.text,
            temb=given.modulation,
            joint_attention_kwargs={"image_rotary_emb": Site(attend)},
        )
        return Tokens(image, text)

    def unembed(self, image: Tensor, modulation: Tensor, rows: Band) -> Tensor:
        pixels = self.model.proj_out(self.model.norm_out(image, modulation))  # [b, t, patch*patch*C]
        return unpatchified(pixels, len(rows), self.shape.patch_size)
