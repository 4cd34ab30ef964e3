"""`diffusers.LTX2VideoTransformer3DModel`: the video stream of LTX-2 alone, as its `isolate_modalities=True` has it.

Without attention between the streams the video depends on no audio. The stream is LTX-Video's but for its positions:
each head turns the first half of its elements against the second. What only the audio needs is not held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.dit import Given, Tokens
from pipefusion.core.shape import DiTShape
from pipefusion.views import ltx
from pipefusion.views.sites import AcrossHeads, Site, heads

VIDEO = True
FRAME_FACTOR = ltx.FRAME_FACTOR
FRAME_RATE = 24.0
"""Pictures a second, which positions in time are counted by: the default of the pipeline."""
SUPPORTED = {
    "rope_type": "split",
    "norm_elementwise_affine": False,
    "ff_bias": True,
    "use_prompt_embeddings": True,
    "gated_attn": False,
    "cross_attn_mod": False,
    "audio_cross_attn_mod": False,
}
"""LTX-2.3 and later differ: gates of heads, K and V of the prompt that are others in every step."""
VIDEO_PARTS = {
    "rope", "proj_in", "caption_projection", "time_embed", "transformer_blocks", "norm_out", "proj_out",
    "scale_shift_table",
}  # fmt: skip
VIDEO_BLOCK = {"norm1", "attn1", "norm2", "attn2", "norm3", "ff", "scale_shift_table"}


def shape(config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any]) -> DiTShape:
    """The sizes of the video stream on `facts["frames"]` x `rows` x `cols` tokens. Raises ValueError."""
    for key, only in SUPPORTED.items():
        if config[key] != only:
            raise ValueError(f"{key}={config[key]} is not supported; allowed: {only}")
    return ltx.shape(config, rows, cols, facts)


def halves_turned(x: Tensor, turns: Tensor | None) -> Tensor:
    """Rotary embedding of q or k [b, t, H, d], in float32: the halves of a head are parts of complex numbers."""
    if turns is None:
        return x
    pairs = torch.complex(*x.float().chunk(2, dim=-1))  # [b, t, H, d/2]
    pairs = pairs * turns.unflatten(-1, pairs.shape[-2:])
    return torch.cat([pairs.real, pairs.imag], dim=-1).to(x.dtype)


class TurnedByHalves(AcrossHeads):
    """The first half of each head's q and k turned against the second."""

    @staticmethod
    def finish(attn: Any, norm: Any, x: Tensor, turns: Tensor | None) -> Tensor:
        return halves_turned(heads(attn, norm(x)), turns)


class View(ltx.View):
    """The video stream opened up. The stock block always runs both streams: the video's modules are called here."""

    stock = "LTX2VideoTransformer3DModel"
    site = TurnedByHalves
    teacache = (1.0, 0.0)  # none is published

    @staticmethod
    def leave_out(model: nn.Module) -> None:
        reduce_to(model, VIDEO_PARTS)
        for block in model.get_submodule("transformer_blocks").children():
            reduce_to(block, VIDEO_BLOCK)

    def turns(self) -> Tensor:
        size, rope = self.shape, self.model.rope
        axes = size.frames, size.token_rows, size.token_cols
        cos, sin = rope(rope.prepare_video_coords(1, *axes, self.device, fps=FRAME_RATE))  # [1, H, p, d/2]
        return torch.complex(cos[0], sin[0]).transpose(0, 1).flatten(1)

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        block, x = self.block_module(layer), tokens.image
        table = block.get_mod_params(block.scale_shift_table, given.modulation.blocks, len(x))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table  # [b, 1, hs] each
        site = Site(attend, given.positions)
        x = x + block.attn1(block.norm1(x) * (1 + scale) + shift, query_rotary_emb=site) * gate
        x = x + block.attn2(block.norm2(x), given.cross[layer], given.text.bias)
        return Tokens(x + block.ff(block.norm3(x) * (1 + mlp_scale) + mlp_shift) * mlp_gate)


def reduce_to(module: nn.Module, parts: set[str]) -> None:
    """Let go of all other children and parameters of a module."""
    for name in {*module._modules, *module._parameters} - parts:
        delattr(module, name)
