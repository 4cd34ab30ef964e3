"""Muon (Jordan et al. 2024) with its products in a chosen precision and matrices of one shape side by side.

`torch.optim.Muon` orthogonalises one matrix after the other, always in bfloat16: on a CPU without bfloat16 products
that takes longer than the gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the quintic Newton-Schulz iteration."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the root mean square of an update is 0.2 lr, as AdamW's is about."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, iterations: int, dtype: torch.dtype
    ) -> None:
        super().__init__(sorted(params, key=lambda p: p.shape), {"lr": lr})
        self.iterations, self.dtype = iterations, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            for shape, same in groupby(given, key=lambda p: p.shape):
                matrices = [*same]
                update = orthogonalised(
                    torch.stack([self.push(p) for p in matrices]), self.iterations, self.dtype
                )
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for matrix, part in zip(matrices, update, strict=True):
                    matrix.sub_(part, alpha=rate)

    def push(self, matrix: nn.Parameter, momentum: float = 0.95) -> Tensor:
        """The step that momentum makes of a gradient."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        average = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalised(matrices: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
    """Matrices [n, a, b] with their singular values brought near to 1, float32."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()
