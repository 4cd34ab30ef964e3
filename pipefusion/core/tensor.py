"""Megatron tensor parallelism: attention heads and MLP columns split, one all-reduce behind each attention and MLP.

What cannot be split (AdaLN, embeddings, norms, biases behind an all-reduce) is held by every rank of the axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipefusion.core.dit import DiT
from pipefusion.core.fabric import Fabric
from pipefusion.core.mesh import Axis

AXIS = "tensor"


class RowParallel(nn.Module):
    """A linear layer over a part of its inputs; the sum over the axis completes it, then the bias is added once.

    Or a 1 x 1 convolution, which is one over the channels of every pixel [b, C, h, W].
    """

    def __init__(self, linear: nn.Linear | nn.Conv2d, inputs: int, fabric: Fabric, layer: int):
        super().__init__()
        self.weight = nn.Parameter(linear.weight[:, :inputs].clone(), requires_grad=False)
        self.bias = linear.bias
        self.fabric, self.layer = fabric, layer

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[2:] if self.weight.dim() == 4 else None
        tokens = x if pixels is None else x.flatten(2).transpose(1, 2)
        out = F.linear(tokens, self.weight.flatten(1))  # [b, t, hs], a partial sum
        self.fabric.all_reduce(out, axis=AXIS, at=self.fabric.place._replace(layer=self.layer))
        out = out if self.bias is None else out.add_(self.bias)
        return out if pixels is None else out.transpose(1, 2).unflatten(2, pixels)


class WideNorm(nn.Module):
    """An RMS norm over all heads, of which this rank has some: the sum of squares over the axis completes it."""

    def __init__(self, norm: nn.RMSNorm, size: int, fabric: Fabric, layer: int):
        super().__init__()
        self.weight = nn.Parameter(norm.weight[:size].clone(), requires_grad=False)
        self.size, self.eps = norm.weight.numel(), norm.eps or torch.finfo(norm.weight.dtype).eps
        self.fabric, self.layer = fabric, layer

    def forward(self, x: Tensor) -> Tensor:
        squares = x.float().square().sum(-1, keepdim=True)  # [b, t, 1]
        self.fabric.all_reduce(squares, axis=AXIS, at=self.fabric.place._replace(layer=self.layer))
        return (x.float() * torch.rsqrt(squares / self.size + self.eps)).type_as(x) * self.weight


def shares(sizes: Sequence[int], n: int, index: int) -> tuple[tuple[int, int], ...]:
    """What rank `index` of n has of consecutive sections: the same share of each."""
    parts, start = [], 0
    for size in sizes:
        parts.append((start + index * size // n, start + (index + 1) * size // n))
        start += size
    return tuple(parts)


def shard(dit: DiT, fabric: Fabric, whole_cross: bool = False) -> None:
    """Replace the linear layers of this rank's own blocks by their shards, as the view's plan names them.

    With `whole_cross` a cross-attention stays whole on every rank, as in what was published.
    """
    place = fabric.axis(AXIS)
    if place.size == 1:
        return
    for one in dit.transformers():
        shard_blocks(one, fabric, place, whole_cross)


def shard_blocks(dit: DiT, fabric: Fabric, place: Axis, whole_cross: bool) -> None:
    """The same for one transformer, on a rank that has this place on the axis."""
    for layer in dit.layers:
        prefix, plan = dit.block_name(layer), dit.tensor_plan(layer)
        plan = plan.without_cross() if whole_cross else plan
        block = dit.model.get_submodule(prefix)
        for name, sizes in plan.columns.items():
            linear, parts = block.get_submodule(name), shares(sizes, place.size, place.index)
            for which in ("weight", "bias"):
                whole = getattr(linear, which)
                if whole is not None:
                    held = whole[: sum(stop - start for start, stop in parts)].clone()
                    setattr(linear, which, nn.Parameter(held, requires_grad=False))
                    dit.shards[f"{prefix}.{name}.{which}"] = (0, parts)
            if isinstance(linear, nn.Conv2d) and linear.groups > 1:
                linear.groups = linear.weight.shape[0]
        for name, sizes in plan.rows.items():
            linear, parts = block.get_submodule(name), shares(sizes, place.size, place.index)
            assert isinstance(linear, nn.Linear | nn.Conv2d)
            inputs = sum(stop - start for start, stop in parts)
            block.set_submodule(name, RowParallel(linear, inputs, fabric, layer))
            dit.shards[f"{prefix}.{name}.weight"] = (1, parts)
        for name in plan.norms:
            norm = block.get_submodule(name)
            assert isinstance(norm, nn.RMSNorm)
            parts = shares((norm.weight.numel(),), place.size, place.index)
            size = sum(stop - start for start, stop in parts)
            block.set_submodule(name, WideNorm(norm, size, fabric, layer))
            dit.shards[f"{prefix}.{name}.weight"] = (0, parts)
