"""Megatron tensor parallelism: attention heads and MLP columns split, one all-reduce behind each attention and MLP.

Every device sees all tokens of all layers. What cannot be split (AdaLN, embeddings, norms, biases behind an
all-reduce) is held by every device and counted as replicated. A cross-attention is split as well (`cross: split`) or
left on every device, as what was published has it (`cross: whole`): more parameters, one all-reduce less. Exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, local
from pipefusion.core.checks import divides, one_of
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band
from pipefusion.core.shape import DiTShape

CROSS = ("split", "whole")


@dataclass
class Config:
    """`cross`: whether the cross-attention of a block that has one is split too, or whole on every device."""

    name: str = "tensor"
    axis: str = "tensor"
    cross: str = "split"


@dataclass
class Progress:
    """The step being computed, for the ledger: a linear layer is not told."""

    step: int = 0


class RowParallel(nn.Module):
    """A linear layer over a part of its inputs; the sum over the axis completes it, then the bias is added once."""

    def __init__(
        self, linear: nn.Linear, inputs: int, fabric: Fabric, axis: str, layer: int, progress: Progress
    ):
        super().__init__()
        self.weight = nn.Parameter(linear.weight[:, :inputs].clone(), requires_grad=False)
        self.bias = linear.bias
        self.fabric, self.axis, self.layer, self.progress = fabric, axis, layer, progress

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight)  # [b, t, hs], a partial sum
        self.fabric.all_reduce(out, axis=self.axis, at=Where(self.progress.step, self.layer))
        return out if self.bias is None else out.add_(self.bias)


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Heads and MLP columns are shared out evenly."""
    return (
        one_of("method.cross", cfg.cross, CROSS)
        or divides(devices, shape.heads, "attention heads")
        or divides(devices, shape.mlp_hidden, "MLP columns")
    )


def shares(sizes: Sequence[int], n: int, index: int) -> tuple[tuple[int, int], ...]:
    """What rank `index` of n has of consecutive sections: the same share of each."""
    parts, start = [], 0
    for size in sizes:
        parts.append((start + index * size // n, start + (index + 1) * size // n))
        start += size
    return tuple(parts)


def shard(dit: DiT, fabric: Fabric, cfg: Config, progress: Progress) -> None:
    """Replace the linear layers of this rank's own model by their shards, as the view's plan names them."""
    axis, place = cfg.axis, fabric.axis(cfg.axis)
    for layer in dit.layers:
        prefix, plan = dit.block_name(layer), dit.tensor_plan(layer)
        plan = plan.without_cross() if cfg.cross == "whole" else plan
        block = dit.model.get_submodule(prefix)
        for name, sizes in plan.columns.items():
            linear, parts = block.get_submodule(name), shares(sizes, place.size, place.index)
            for which in ("weight", "bias"):
                whole = getattr(linear, which)
                if whole is not None:
                    held = whole[: sum(stop - start for start, stop in parts)].clone()
                    setattr(linear, which, nn.Parameter(held, requires_grad=False))
                    dit.shards[f"{prefix}.{name}.{which}"] = (0, parts)
        for name, sizes in plan.rows.items():
            linear, parts = block.get_submodule(name), shares(sizes, place.size, place.index)
            assert isinstance(linear, nn.Linear)
            inputs = sum(stop - start for start, stop in parts)
            block.set_submodule(name, RowParallel(linear, inputs, fabric, axis, layer, progress))
            dit.shards[f"{prefix}.{name}.weight"] = (1, parts)


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Shard every block; the rest of the loop is serial's, on every device."""
    progress = Progress()
    if fabric.axis(cfg.axis).size > 1:
        shard(dit, fabric, cfg, progress)

    def attend_at(step: int) -> Attend:
        progress.step = step
        return local

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        place = fabric.axis(cfg.axis)
        rows = range(dit.shape.token_rows)
        return denoise_band(dit, fabric, scheduler, noise, cond, rows, attend_at, place.ranks[place.index])

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Per step 2(n-1)/n * p * hs elements for each attention and MLP, and as much for each of an MM-DiT's prompt.

    Table 1's 4 O(p hs) L counts one attention and one MLP a block; a split cross-attention makes it 6 O(p hs) L.
    """
    image, text = forms.hidden_bytes(shape, batch), forms.text_bytes(shape, batch)
    whole = cfg.cross == "whole"
    reduced = sum(
        (block.image_reduces - (whole and block.cross_params > 0)) * image + block.text_reduces * text
        for block in shape.blocks
    )
    sent = steps * 2 * (devices - 1) * reduced // devices
    latent = forms.latent_bytes(shape, images)
    params = forms.held_params(shape, range(shape.layers), shards=devices, whole_cross=whole)
    return forms.Prediction(range(shape.layers), params, 0, latent, 0, sent, sent)
