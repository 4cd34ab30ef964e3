"""Linear attention with ReLU kernels (SANA): what a query needs of all tokens is a sum over them, and sums add up.

Tensors are [batch, tokens, heads, head_dim]; sums are float32, whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.core.attention import Attend, full
from pipefusion.core.layout import Job
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.shape import DiTShape
from pipefusion.core.states import States


def sums(k: Tensor, v: Tensor) -> Tensor:
    """Over tokens, of (v, 1) relu(k)^T: [b, H, d + 1, d] float32. The last row is for the normaliser."""
    values = F.pad(v.float().permute(0, 2, 3, 1), (0, 0, 0, 1), value=1.0)  # [b, H, d + 1, t]
    return values @ F.relu(k).float().transpose(1, 2)


def read(q: Tensor, total: Tensor) -> Tensor:
    """Attention of q to all tokens whose sums are in `total` [b, H, d + 1, d]; 0 where there are none."""
    out = total @ F.relu(q).float().permute(0, 2, 3, 1)  # [b, H, d + 1, t]
    return (out[:, :, :-1] / (out[:, :, -1:] + 1e-15)).permute(0, 3, 1, 2).to(q.dtype)


def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention of q to all of k, v."""
    return read(q, sums(k, v))


def kernel(shape: DiTShape) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The attention of a model's blocks over one set of tokens."""
    return linear if shape.linear else full


def own_attention(shape: DiTShape) -> Attend:
    """The site as the model has it: attend to one's own k, v."""

    attention = kernel(shape)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
        return attention(q, k, v)

    return attend


def summed(run: Run, states: States) -> AttendFor:
    """Queries of a job attend to the sums of all patches, of which `states` says how old they are.

    Inside a Ulysses exchange a rank sums the tokens of its neighbours too; ring ranks add up their sums of a patch.
    """
    layout, fabric, d = run.layout, run.fabric, run.shape.head_dim
    see_for = states(run, (run.batch, run.inner_heads, d + 1, d), torch.float32)
    lanes, ring = fabric.axis("ulysses").size, fabric.axis("ring").size

    def attend_for(job: Job) -> Attend:
        see, patches = see_for(job), len(job.patches)
        shares = [len(layout.shares[m]) * layout.grid.width for m in job.patches] * lanes
        sizes = shares if patches > 1 else [sum(shares)]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            parts = [sums(*pair) for pair in zip(k.split(sizes, 1), v.split(sizes, 1), strict=True)]
            own = torch.stack(parts)  # [patches, ...], one rank's after another's
            if len(parts) > patches:
                own = own.unflatten(0, (lanes, patches)).sum(0)
            if ring > 1:
                fabric.all_reduce(own, axis="ring", at=job.where(layer))
            return see(layer, own, lambda every: read(q, every.sum(0)))

        return attend

    return attend_for
