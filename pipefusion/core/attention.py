"""Self-attention sites of a stock diffusers model, opened with its own attention-processor mechanism.

Every tensor here is [batch, tokens, heads, head_dim].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v) -> output, q's shape: what a method does at the self-attention site of one layer."""


def full(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of q to all of k, v. `mask` is a bias [batch, 1 or heads, 1 or q tokens, k tokens]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def local(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The site as the model has it: attend to one's own k, v."""
    return full(q, k, v)


def with_logsumexp(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores, [b, t, H, d] and [b, t, H, 1] float32, to merge partial results."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.device.type == "cuda" and q.dtype == torch.float32:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    elif q.device.type == "cuda":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    else:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    lse = lse[..., : q.shape[2]].float()  # the CUDA kernel pads the query length
    return out.transpose(1, 2), lse.transpose(1, 2).unsqueeze(-1)


def merge(out: Tensor, lse: Tensor, new_out: Tensor, new_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Online softmax: attention over the union of two disjoint sets of keys, from the two partial results."""
    # sigmoid(new - old) is the new part's share of the softmax mass; it cannot overflow.
    out = out - torch.sigmoid(new_lse - lse) * (out - new_out)
    return out, lse - F.logsigmoid(lse - new_lse)


class SiteProcessor:
    """Attention processor of one layer that hands self-attention to the `attend` it is called with.

    Cross-attention is computed as in the stock processor. Stateless but for the layer's index, so that one model can
    serve any method; `attend` travels through the block's `cross_attention_kwargs`.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        attend: Attend = local,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))  # [b, t, H, d]
        k = attn.to_k(source).unflatten(-1, (attn.heads, -1))  # [b, s, H, d]
        v = attn.to_v(source).unflatten(-1, (attn.heads, -1))  # [b, s, H, d]
        if encoder_hidden_states is None:
            out = attend(self.layer, q, k, v)  # [b, t, H, d]
        else:
            bias = None if attention_mask is None else attention_mask.unsqueeze(1)  # [b, 1, 1, s]
            out = full(q, k, v, bias)  # [b, t, H, d]
        return attn.to_out[1](attn.to_out[0](out.flatten(2)))  # [b, t, hs]
