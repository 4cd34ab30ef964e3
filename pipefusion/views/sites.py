"""The self-attention sites of stock diffusers models, opened with diffusers' own attention-processor mechanism.

A processor computes q, k, v with the model's own modules and hands them to the `attend` of the method. It is stateless
but for the layer's index, so that one model can serve any method.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipefusion.core.attention import Attend, full, local
from pipefusion.core.dit import KV


class Site(NamedTuple):
    """What a processor needs from outside of its block.

    It travels as `image_rotary_emb`, the one argument that all of diffusers' DiT blocks hand through unseen.
    """

    attend: Attend = local
    turns: Tensor | None = None
    """Rotary positions: a number of size one for each pair of a head's elements, [tokens, head_dim / 2] complex64."""
    prefix: int = 0
    """Tokens of the prompt in front of the image's, where a block attends to both as one sequence."""


STOCK = Site()
"""Attention as the model has it."""


def heads(attn: Any, x: Tensor) -> Tensor:
    """[b, t, H*d] -> [b, t, H, d]; under tensor parallelism H is the rank's own number of heads."""
    return x.unflatten(-1, (-1, attn.inner_dim // attn.heads))


def normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def turned(x: Tensor, turns: Tensor | None) -> Tensor:
    """Rotary embedding of q or k [b, t, H, d], in float32: pairs of elements as complex numbers, and one product."""
    if turns is None:
        return x
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # [b, t, H, d/2]
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2).to(x.dtype)


def prompt_kv(attn: Any, prompt: Tensor) -> KV:
    """K and V of the prompt [b, T, cross] as the stock processors compute them in a cross-attention."""
    return normed(attn.norm_k, heads(attn, attn.to_k(prompt))), heads(attn, attn.to_v(prompt))


def wide_prompt_kv(attn: Any, prompt: Tensor) -> KV:
    """The same where k is normalised over all heads."""
    return heads(attn, attn.norm_k(attn.to_k(prompt))), heads(attn, attn.to_v(prompt))


class SelfOrCross:
    """Self-attention through `attend`, cross-attention to K, V of the prompt that are handed to it ready-made."""

    def __init__(self, layer: int):
        self.layer = layer

    @staticmethod
    def finish(attn: Any, norm: Any, x: Tensor, turns: Tensor | None) -> Tensor:
        """q or k as it is projected [b, t, H*d] -> [b, t, H, d], normalised in each head and turned."""
        return turned(normed(norm, heads(attn, x)), turns)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: KV | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Site | None = None,
        key_rotary_emb: None = None,  # LTX-2 hands it on, as None
    ) -> Tensor:
        site = image_rotary_emb or STOCK
        q = self.finish(attn, attn.norm_q, attn.to_q(hidden_states), site.turns)  # [b, t, H, d]
        if encoder_hidden_states is not None:
            bias = None if attention_mask is None else attention_mask.unsqueeze(1)  # [b, 1, 1, T]
            out = full(q, *encoder_hidden_states, bias)  # [b, t, H, d]
        else:
            k = self.finish(attn, attn.norm_k, attn.to_k(hidden_states), site.turns)
            out = site.attend(self.layer, q, k, heads(attn, attn.to_v(hidden_states)), site.prefix)
        return attn.to_out[1](attn.to_out[0](out.flatten(2)))  # [b, t, hs]


class AcrossHeads(SelfOrCross):
    """As `SelfOrCross`, q and k normalised over all heads."""

    @staticmethod
    def finish(attn: Any, norm: Any, x: Tensor, turns: Tensor | None) -> Tensor:
        return turned(heads(attn, norm(x)), turns)


class Joint:
    """One attention over the prompt's tokens, which come first, and the image's (MM-DiT).

    Without `encoder_hidden_states` the two are one sequence already, and its result is returned before any projection.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Site = STOCK,
        encoder_hidden_states_mask: None = None,  # Qwen-Image hands it on, as None
    ) -> Tensor | tuple[Tensor, Tensor]:
        site, text = image_rotary_emb, encoder_hidden_states
        q = normed(attn.norm_q, heads(attn, attn.to_q(hidden_states)))  # [b, t, H, d]
        k = normed(attn.norm_k, heads(attn, attn.to_k(hidden_states)))
        v = heads(attn, attn.to_v(hidden_states))
        if text is not None:
            text_q = normed(attn.norm_added_q, heads(attn, attn.add_q_proj(text)))  # [b, T, H, d]
            text_k = normed(attn.norm_added_k, heads(attn, attn.add_k_proj(text)))
            text_v = heads(attn, attn.add_v_proj(text))
            q, k, v = (torch.cat(pair, dim=1) for pair in ((text_q, q), (text_k, k), (text_v, v)))
        q, k = turned(q, site.turns), turned(k, site.turns)
        prefix = site.prefix if text is None else text.shape[1]
        out = site.attend(self.layer, q, k, v, prefix).flatten(2)  # [b, T+t, H*d]
        if text is None:
            return out
        image = attn.to_out[1](attn.to_out[0](out[:, prefix:]))  # [b, t, hs]
        text = out[:, :prefix]
        return image, text if attn.to_add_out is None else attn.to_add_out(text)  # [b, T, hs]


class Fused:
    """As `Joint` on one sequence, where q, k, v and the MLP share one projection in and one out (FLUX.2)."""

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Site = STOCK,
    ) -> Tensor:
        site, joined = image_rotary_emb, attn.to_qkv_mlp_proj(hidden_states)
        qkv, mlp = 3 * attn.inner_dim, attn.mlp_hidden_dim * attn.mlp_mult_factor
        qkv = joined.shape[-1] * qkv // (qkv + mlp)  # a rank's share of both is the same
        q, k, v = (heads(attn, part) for part in joined[..., :qkv].chunk(3, dim=-1))  # [b, T+t, H, d]
        q, k = turned(normed(attn.norm_q, q), site.turns), turned(normed(attn.norm_k, k), site.turns)
        out = site.attend(self.layer, q, k, v, site.prefix).flatten(2)  # [b, T+t, H*d]
        return attn.to_out(torch.cat([out, attn.mlp_act_fn(joined[..., qkv:])], dim=-1))  # [b, T+t, hs]


def processor(site: type[Any], layer: int) -> Any:
    """The processor of a layer's attention, its signature found once: diffusers asks for it at every call."""
    call: Any = site.__call__
    if not hasattr(call, "__signature__"):
        call.__signature__ = signature(call)  # which takes a tenth of a tiny model's block
    return site(layer)
