"""diffusers alone, beside which the bench times this project: the stock model in a plain loop, whole or shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor

from experiments.models.model import Model
from experiments.models.stock_sampling import predict
from pipefusion.core.conditioning import Conditioning
from pipefusion.schedulers import make_scheduler

DIFFUSERS = "diffusers"  # on rank 0
NATIVE_ULYSSES = "diffusers_ulysses"  # its own `enable_parallelism`, on all ranks
PEERS = (DIFFUSERS, NATIVE_ULYSSES)


def shareable(model: Model) -> bool:
    """Whether diffusers can share out the tokens of the model's class."""
    return getattr(getattr(diffusers, model.class_name), "_cp_plan", None) is not None


def stock(model: Model) -> Any:
    """The stock model with its random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        network = getattr(diffusers, model.class_name).from_config(model.config)
    return network.eval()


@contextmanager
def cpu_for_accelerator(ranks: int) -> Iterator[None]:
    """Torch's answer to which accelerator there is: a CPU, `ranks` times.

    diffusers places its ranks on the accelerator and has none on a CPU, though all that it calls afterwards works
    there. Nothing but its set-up runs within this context.
    """
    accelerator = mock.patch.object(torch._C, "_get_accelerator", return_value=torch.device("cpu"))
    with accelerator, mock.patch.object(torch.accelerator, "device_count", return_value=ranks):
        yield


def peer(
    name: str, model: Model, noise: Tensor, cond: Conditioning, chosen: tuple[str, dict[str, Any]], steps: int
) -> Callable[[], Tensor]:
    """A function that samples one image in the loop that the model's own pipeline runs."""
    network: Any = stock(model)
    if name == NATIVE_ULYSSES:
        ranks = torch.distributed.get_world_size()
        with cpu_for_accelerator(ranks):
            network.enable_parallelism(config=diffusers.ContextParallelConfig(ulysses_degree=ranks))

    def run() -> Tensor:
        scheduler, latent = make_scheduler(*chosen, steps), noise
        size = (model.height, model.width)
        for timestep in scheduler.timesteps:
            prediction = predict(network, latent, timestep, cond.prompt, cond.guidance_scale, size)
            latent = scheduler.step(prediction, timestep, latent, return_dict=False)[0]
        return latent

    return run
