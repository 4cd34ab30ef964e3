"""One optimiser step split over threads that hardly wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

Loss = Callable[..., Tensor]


class Workers:
    """`count` threads, each with a part of the batch and a part of the weights to update.

    A CPU step is thousands of small parallel products. Split inside each product (torch's own threads), every one of
    them waits for the slower core, and on a machine with other work to do a step takes several times longer. Split by
    pictures, the threads meet twice a step. Sums run in a fixed order, so results do not depend on timing.
    """

    def __init__(self, count: int, threads: int = 0) -> None:
        """`count` parts of a batch; `threads` CPU threads in all (0: torch's choice)."""
        self.count = count
        inner = max(1, (threads or torch.get_num_threads()) // count)

        def prepare() -> None:
            torch.set_num_threads(inner)
            # Trained attention is peaked: many of its weights are below 1e-38, where a CPU is slow.
            torch.set_flush_denormal(True)

        torch.set_num_threads(inner)  # each setting is of one thread, hence `prepare` in those of the pool
        self.pool = ThreadPoolExecutor(count, initializer=prepare)

    def gradients(self, loss: Loss, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        """Set `.grad` to the gradient of the mean of loss(model, *batch) [B]; returns that mean.

        The mean is a tensor on the model's device, so that a GPU need not be waited for.

        Every tensor of `batch` has B rows. Gradients of the parts are added in order.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        rows = len(batch[0])

        def part(tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            value = loss(model, *tensors).sum() / rows
            return value.detach(), torch.autograd.grad(value, parameters)

        pieces = list(zip(*(tensor.tensor_split(self.count) for tensor in batch), strict=True))
        done = list(self.pool.map(part, [piece for piece in pieces if len(piece[0])]))
        for k, parameter in enumerate(parameters):
            parameter.grad = done[0][1][k]
            for _, others in done[1:]:
                parameter.grad += others[k]
        return torch.stack([value for value, _ in done]).sum()

    def step(self, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        """One step of every optimiser, at the same time; they share no weights."""

        def update(optimiser: torch.optim.Optimizer) -> None:
            optimiser.step()
            optimiser.zero_grad()

        list(self.pool.map(update, optimisers))
