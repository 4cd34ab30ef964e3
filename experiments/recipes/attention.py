"""An attention processor that is fast to train with; the mathematics is the stock one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.views.sites import normed, turned
from pipefusion.views.stock import pair_turns


class TrainAttention:
    """Self-attention in float32 on a CPU, cross-attention by hand.

    With 16-wide heads the bfloat16 CPU attention kernel spends most of a training step (its backward alone is four
    times the float32 one), and for a dozen text tokens three plain products beat any fused kernel. Set with
    `model.set_attn_processor(TrainAttention())`; it holds no weights, so what is saved stays a stock model.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> Tensor:
        """Image tokens [B, P, D], text [B, T, D] or None, additive bias [B, 1, T] or None -> [B, P, D].

        `rotary_emb`: cosines and sines [1, P, 1, d] of the self-attention of a video.
        """
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        rows = normed(attn.norm_q, attn.to_q(hidden_states)), normed(attn.norm_k, attn.to_k(source))
        turns = None if rotary_emb is None else pair_turns(*(table[0, :, 0] for table in rotary_emb))
        query, key = (turned(row.unflatten(-1, (attn.heads, -1)), turns).transpose(1, 2) for row in rows)
        value = attn.to_v(source).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        if encoder_hidden_states is None:
            if query.device.type == "cpu":
                with torch.autocast("cpu", enabled=False):
                    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
                out = exact.to(query.dtype)
            else:
                out = F.scaled_dot_product_attention(query, key, value)
        else:
            # [B, heads, T, P]: a softmax over rows of a dozen numbers is slow, over columns it is vectorised.
            scores = key @ (query * query.shape[-1] ** -0.5).transpose(-1, -2)
            if attention_mask is not None:
                scores = scores + attention_mask[:, None].to(scores.dtype).transpose(-1, -2)
            out = (value.transpose(-1, -2) @ scores.softmax(-2).to(value.dtype)).transpose(-1, -2)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
