"""`diffusers.LTXVideoTransformer3DModel`: LTX-Video, text to video, a latent pixel a token."""

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
from pipefusion.views.sites import AcrossHeads, Site, heads, turned, wide_prompt_kv
from pipefusion.views.sizes import prompt_sizes, time_embedder
from pipefusion.views.stock import StockView, cross_attention_plan, pair_turns, video_table

VIDEO = True
FRAME_FACTOR = 8
FRAME_RATE = 25
"""Pictures a second, which positions in time are counted by: the default of the pipeline."""
SUPPORTED = {"patch_size": 1, "patch_size_t": 1, "activation_fn": "gelu-approximate"}


class Text(NamedTuple):
    """The prompt's tokens [b, T, hs], and the bias that masks some of them [b, 1, T]."""

    hidden: Tensor
    bias: Tensor


class Modulation(NamedTuple):
    """Six shifts, scales and gates for the blocks [b, 1, 6*hs], and the time embedding [b, 1, hs]."""

    blocks: Tensor
    embedded: Tensor


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of a configuration on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    hs = config["num_attention_heads"] * config["attention_head_dim"]
    for key, only in (SUPPORTED | {"cross_attention_dim": hs}).items():
        if config[key] != only:
            raise ValueError(f"{key}={config[key]} is not supported; allowed: {only}")
    mlp, bias, text = 4 * hs, config["attention_bias"], config["caption_channels"]
    attention = 3 * linear(hs, hs, bias) + hs * hs + 2 * hs  # and the norms of q and k
    block = BlockShape(
        split_params=2 * attention + linear(hs, mlp) + mlp * hs,
        kept_params=(2 * config["attention_out_bias"] + 1 + 6 + 2 * config["norm_elementwise_affine"]) * hs,
        image_macs=6 * hs * hs + 2 * hs * mlp,
        text_macs=2 * hs * hs,
        image_reduces=3,
        cross_params=attention,
        wide_norms=2,
        wide_cross=True,
    )
    channels, out = config["in_channels"], config["out_channels"] or config["in_channels"]
    time = time_embedder(hs) + linear(hs, 6 * hs)
    return DiTShape(
        heads=config["num_attention_heads"],
        hidden=hs,
        mlp_hidden=mlp,
        token_rows=rows,
        token_cols=cols,
        patch_size=1,
        in_channels=channels,
        out_channels=out,
        blocks=(block,) * config["num_layers"],
        embed_params=linear(channels, hs),
        unembed_params=linear(hs, out) + 2 * hs,
        shared_params=((range(0), time + linear(text, hs) + linear(hs, hs)),),
        prompt=prompt_sizes(facts["text_tokens"], text),
    )


class TurnedWhole(AcrossHeads):
    """q and k turned over all heads, each head otherwise."""

    @staticmethod
    def finish(attn: Any, norm: Any, x: Tensor, turns: Tensor | None) -> Tensor:
        return heads(attn, turned(norm(x).unsqueeze(2), turns).squeeze(2))


class View(StockView):
    """LTX-Video opened up. Positions are those of the pipeline's frame rate."""

    stock = "LTXVideoTransformer3DModel"
    attentions = ("attn1", "attn2")
    site: ClassVar[type[Any]] = TurnedWhole
    embed_parts = ("proj_in",)
    unembed_parts = ("norm_out", "proj_out", "scale_shift_table")
    teacache: ClassVar[tuple[float, ...]] = (  # TeaCache's own
        21.4700694, -12.8016453, 2.31279151, 0.792487521, 0.00969274326,
    )  # fmt: skip
    labels: ClassVar[Mapping[str, str]] = {
        "time_embed": "time embedding",
        "caption_projection": "caption projection",
        "proj_in": "patch embedding",
        "proj_out": "output projection",
        "scale_shift_table": "output projection",
    }

    def make_tables(self, tensors: Callable[..., Tensor] | None) -> None:
        size = self.shape
        turns = torch.empty(size.tokens, size.hidden // 2, dtype=torch.complex64, device=self.device)
        if self.device.type != "meta":
            turns = video_table(size, self.turns())
        self.set_turns(turns)

    def turns(self) -> Tensor:
        """Rotary positions by frame, row and column [p, hs/2]."""
        size, pixels = self.shape, self.pixels_per_latent
        axes, there = (size.frames, size.token_rows, size.token_cols), torch.empty(1, device=self.device)
        cos, sin = self.model.rope(there, *axes, (FRAME_FACTOR / FRAME_RATE, pixels, pixels))
        return pair_turns(cos[0], sin[0])

    def positions(self, rows: Band, prompt: range) -> Tensor:
        turns = super().positions(rows, prompt)
        assert turns is not None
        shards = (parts for name, (_, parts) in self.shards.items() if name.endswith("attn1.to_q.weight"))
        ((start, stop),) = next(shards, ((0, self.shape.hidden),))  # of this rank's heads
        return turns[:, start // 2 : stop // 2]

    def tensor_plan(self, layer: int) -> TensorPlan:
        norms = tuple(f"attn{n}.norm_{part}" for n in (1, 2) for part in "qk")
        return cross_attention_plan(self.shape)._replace(norms=norms)

    def text(self, cond: Conditioning) -> Text:
        embeds, bias = self.masked_prompt(cond)
        return Text(self.model.caption_projection(embeds), bias)

    def cross(self, text: Text) -> Mapping[int, KV]:
        return {layer: wide_prompt_kv(self.block_module(layer).attn2, text.hidden) for layer in self.layers}

    def modulation(self, timestep: Tensor, text: Text, batch: int) -> Modulation:
        times = timestep.expand(batch)
        blocks, embedded = self.model.time_embed(times, batch_size=batch, hidden_dtype=self.dtype)
        return Modulation(blocks.unsqueeze(1), embedded.unsqueeze(1))

    def embed(self, latent: Tensor, rows: Band, text: Text, modulation: Modulation) -> Tokens:
        pixels = self.shape.grid.in_line(latent.to(self.dtype).movedim(1, -1))  # [b, t, C]
        return Tokens(self.model.proj_in(pixels))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        block = self.block_module(0)
        table = block.scale_shift_table + given.modulation.blocks.unflatten(-1, (6, -1))  # [b, 1, 6, hs]
        shift, scale = table[:, :, :2].unbind(2)
        return block.norm1(tokens.image) * (1 + scale) + shift

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        site, block = Site(attend, given.positions), self.block_module(layer)
        return Tokens(block(tokens.image, given.cross[layer], given.modulation.blocks, site, given.text.bias))

    def unembed(self, image: Tensor, modulation: Modulation, rows: Band) -> Tensor:
        model = self.model
        shift, scale = (model.scale_shift_table + modulation.embedded[:, :, None]).unbind(2)
        pixels = model.proj_out(model.norm_out(image) * (1 + scale) + shift)
        return self.shape.grid.in_frames(pixels).movedim(-1, 1)  # [b, C, F, h, w]
