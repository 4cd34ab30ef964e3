"""What a method does at a self-attention site. Every tensor here is [batch, tokens, heads, head_dim]."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attend(Protocol):
    """The self-attention of one layer, as a method does it.

    The first `prefix` tokens are the prompt's where an MM-DiT attends to both (0 elsewhere), a Ulysses rank's own share
    of them; the others are a band of the image. What comes back has q's shape. K and V of the prompt are never stale.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor: ...


def full(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of q to all of k, v. `mask` is a bias [batch, 1 or heads, 1 or q tokens, k tokens]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if mask is None:
        return run_kernel(pick_kernel(q.device, q.dtype), q, k, v)[0].transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def local(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
    """The site as the model has it: attend to one's own k, v."""
    return full(q, k, v)


def with_logsumexp(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores, [b, t, H, d] and [b, t, H, 1] float32, to merge partial results.

    `mask` is a bias [batch, 1, 1, k tokens].
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    kernel = pick_kernel(q.device, q.dtype)
    if mask is not None and kernel == "flash":  # which takes none
        kernel = "efficient"
    out, lse = run_kernel(kernel, q, k, v, mask)
    lse = lse[..., : q.shape[2]].float()  # the efficient kernel pads the query length
    return out.transpose(1, 2), lse.transpose(1, 2).unsqueeze(-1)


def pick_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """The kernel of attention without a mask, one for all methods: `flash`, `efficient` or `cpu` (also of `meta`).

    Flash attention is for 16 bits and compute capability 8.0.
    """
    if device.type != "cuda":
        return "cpu"
    flash = dtype.itemsize == 2 and torch.cuda.get_device_capability(device) >= (8, 0)
    return "flash" if flash else "efficient"


def run_kernel(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention [b, H, t, d] by a named kernel, and its log-sum-exp [b, H, t or more].

    Both kernels of CUDA want a head size that is a multiple of 8; zeros behind it change no score. `efficient` wants a
    bias of that shape in rows of a multiple of 16.
    """
    size, scale = q.shape[-1], q.shape[-1] ** -0.5
    if kernel == "cpu":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
        return out, lse
    if size % 8:
        q, k, v = (F.pad(x, (0, -size % 8)) for x in (q, k, v))
    if kernel == "flash":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)
    else:
        if mask is not None:
            tokens = mask.shape[-1]
            mask = F.pad(mask, (0, -tokens % 16)).expand(*q.shape[:3], -1)[..., :tokens]
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, mask, True, scale=scale
        )
    return out[..., :size], lse


def merge(out: Tensor, lse: Tensor, new_out: Tensor, new_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Online softmax: attention over the union of two disjoint sets of keys, from the two partial results."""
    # sigmoid(new - old) is the new part's share of the softmax mass; it cannot overflow.
    out = torch.lerp(out.float(), new_out.float(), torch.sigmoid(new_lse - lse))
    return out, lse - F.logsigmoid(lse - new_lse)
