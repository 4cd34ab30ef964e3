"""Megatron tensor parallelism: attention heads and MLP columns split, one all-reduce behind each attention and MLP.

Every device sees all tokens of all layers. What cannot be split (AdaLN, embeddings, norms, biases behind an
all-reduce) is held by every device and counted as replicated. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, local
from pipefusion.core.checks import divides
from pipefusion.core.dit import Conditioning, DiT, DiTShape, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where
from pipefusion.core.sampler import denoise_band

COLUMNS = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "ff.net.0.proj",
)
ROWS = ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2")


@dataclass
class Config:
    """Nothing to choose."""

    name: str = "tensor"
    axis: str = "tensor"


@dataclass
class Progress:
    """The step being computed, for the ledger: a linear layer is not told."""

    step: int = 0


class RowParallel(nn.Module):
    """A linear layer over 1/n of its inputs; the sum over the axis completes it, then the bias is added once."""

    def __init__(self, linear: nn.Linear, n: int, fabric: Fabric, axis: str, layer: int, progress: Progress):
        super().__init__()
        self.weight = nn.Parameter(linear.weight[:, : linear.in_features // n].clone(), requires_grad=False)
        self.bias = linear.bias
        self.fabric, self.axis, self.layer, self.progress = fabric, axis, layer, progress

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight)  # [b, t, hs], a partial sum
        self.fabric.all_reduce(out, axis=self.axis, at=Where(self.progress.step, self.layer))
        return out if self.bias is None else out.add_(self.bias)


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Heads and MLP columns are shared out evenly."""
    return divides(devices, shape.heads, "attention heads") or divides(
        devices, shape.mlp_hidden, "MLP columns"
    )


def shard(dit: DiT, fabric: Fabric, axis: str, progress: Progress) -> None:
    """Replace the linear layers of this rank's own model by their shards, by the two tables above."""
    place = fabric.axis(axis)
    n, i = place.size, place.index
    for layer in dit.layers:
        prefix = f"transformer_blocks.{layer}"
        block = dit.model.get_submodule(prefix)
        for name in COLUMNS:
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            size = linear.out_features // n
            linear.weight = nn.Parameter(linear.weight[:size].clone(), requires_grad=False)
            dit.shards[f"{prefix}.{name}.weight"] = (0, i * size, (i + 1) * size)
            if linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias[:size].clone(), requires_grad=False)
                dit.shards[f"{prefix}.{name}.bias"] = (0, i * size, (i + 1) * size)
        for name in ROWS:
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            size = linear.in_features // n
            block.set_submodule(name, RowParallel(linear, n, fabric, axis, layer, progress))
            dit.shards[f"{prefix}.{name}.weight"] = (1, i * size, (i + 1) * size)
        for name in ("attn1", "attn2"):
            attention = block.get_submodule(name)
            assert isinstance(attention, Attention)
            attention.heads //= n  # the processor reshapes by it; without this the result is silently wrong


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Shard every block; the rest of the loop is serial's, on every device."""
    progress = Progress()
    if fabric.axis(cfg.axis).size > 1:
        shard(dit, fabric, cfg.axis, progress)

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
    """Per step 2(n-1)/n * p * hs elements for each attention and MLP.

    Table 1's 4 O(p hs) L counts one attention and one MLP a block; PixArt's cross-attention makes it 6 O(p hs) L.
    """
    reduced = 2 * (devices - 1) * forms.hidden_bytes(shape, batch) // devices
    sent = steps * shape.layers * 3 * reduced
    latent = forms.latent_bytes(shape, images)
    params = forms.held_params(shape, shape.layers, shards=devices)
    return forms.Prediction(range(shape.layers), params, 0, latent, 0, sent, sent)
