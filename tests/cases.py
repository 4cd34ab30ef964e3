"""One sampling case, the same for every test: a tiny random PixArt, a method, a grid point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.config import ModelConfig
from experiments.methods import METHODS
from experiments.models import Model, choose_scheduler, open_model
from pipefusion.core.dit import Conditioning, Shard, parameter_parts
from pipefusion.core.local import LocalFabric
from pipefusion.core.memory import sampling_peak
from pipefusion.core.mesh import Mesh
from pipefusion.core.sampler import make_scheduler
from pipefusion.core.silent import SilentFabric

TINY: dict[str, Any] = {
    "num_attention_heads": 12,
    "attention_head_dim": 4,
    "in_channels": 3,
    "out_channels": 3,
    "num_layers": 6,
    "cross_attention_dim": 48,
    "sample_size": 48,
    "patch_size": 4,
    "caption_channels": 16,
    "norm_type": "ada_norm_single",
    "use_additional_conditions": False,
    "text_tokens": 7,
}


@dataclass(frozen=True)
class Case:
    """What varies in the grid. `method` holds the method's own keys."""

    name: str
    method: dict[str, Any] = field(default_factory=dict)
    steps: int = 4
    scheduler: str = "dpmsolver++"
    guidance: float = 1.0
    images: int = 1
    architecture: dict[str, Any] = field(default_factory=dict)
    peak: bool = False

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)


@dataclass
class Result:
    """What one rank returned."""

    latents: Tensor | None
    rows: list[dict[str, Any]]
    measured: dict[str, int]
    predicted: dict[str, Any]
    layers: range
    parts: dict[str, int]
    peak_bytes: int
    predicted_peak_bytes: int


def model_of(case: Case) -> Model:
    return _model(tuple(sorted(case.architecture.items())))


@cache
def _model(changes: tuple[tuple[str, Any], ...]) -> Model:
    return open_model(ModelConfig(name="tiny", architecture=TINY | dict(changes)))


@cache
def tensors_of(architecture: tuple[tuple[str, Any], ...]) -> Callable[[str, Shard | None], Tensor]:
    return _model(architecture).tensors()


def inputs(case: Case, model: Model) -> tuple[Tensor, Conditioning]:
    """Noise and prompts that depend on the seed only; the masks differ between the images."""
    draw = torch.Generator().manual_seed(7)
    shape, b = model.shape, case.images
    side = shape.token_rows * shape.patch_size
    noise = torch.randn(b, shape.in_channels, side, side, generator=draw)
    embeds = torch.randn(2, b, shape.text_tokens, shape.text_channels, generator=draw)
    mask = torch.ones(2, b, shape.text_tokens)
    mask[0, :, 2:], mask[1, :, 5:] = 0, 0
    return noise, Conditioning(embeds[1], mask[1], case.guidance, embeds[0], mask[0])


def scheduler_of(case: Case, model: Model) -> Any:
    chosen = choose_scheduler(model, case.scheduler)
    assert isinstance(chosen, tuple)
    return make_scheduler(*chosen, case.steps)


def sample(case: Case) -> Result:
    """Run a case on this rank of the running process group, twice: buffers must not survive an image."""
    model, module, n = model_of(case), METHODS[case.name], dist.get_world_size()
    cfg = module.Config(**case.method)
    problem = module.check(model.shape, n, case.steps, cfg)
    assert problem is None, problem
    noise, cond = inputs(case, model)
    mesh, tensors = Mesh({cfg.axis: n}), tensors_of(tuple(sorted(case.architecture.items())))
    fabric = LocalFabric(mesh, torch.device("cpu"))
    dit = model.view()
    scheduler = scheduler_of(case, model)
    sampler = module.build(dit, fabric, cfg, scheduler)
    dit.load(tensors, torch.device("cpu"))
    first = sampler(noise, cond)
    fabric.clear()
    latents = sampler(noise, cond)
    fabric.close()
    assert latents is None or torch.equal(latents, first), "something survived from one image to the next"
    batch = case.images * cond.branches
    ledger = fabric.ledger
    return Result(
        latents=latents if fabric.rank == 0 else None,
        rows=[entry.row(fabric.rank) for entry in ledger.entries],
        measured={
            "param_bytes": sum(parameter_parts(dit).values()),
            "kv_bytes": ledger.buffer_bytes["kv"],
            "buffer_bytes": ledger.buffer_bytes["buffer"],
            "comm_bytes": ledger.buffer_bytes["comm"],
            "sent_bytes": ledger.sent_bytes,
            "recv_bytes": ledger.recv_bytes,
        },
        predicted=asdict(module.predict(model.shape, n, fabric.rank, case.steps, batch, case.images, cfg)),
        layers=dit.layers,
        parts=dict(parameter_parts(dit)),
        peak_bytes=peak_of(case, model, mesh, fabric.rank, "cpu") if case.peak else 0,
        predicted_peak_bytes=peak_of(case, model, mesh, fabric.rank, "meta") if case.peak else 0,
    )


def peak_of(case: Case, model: Model, mesh: Mesh, rank: int, device: str) -> int:
    """Peak bytes of a rank's program run alone on a device."""
    module, dit, scheduler = METHODS[case.name], model.view(), scheduler_of(case, model)
    fabric = SilentFabric(mesh, rank, torch.device(device))
    sampler = module.build(dit, fabric, module.Config(**case.method), scheduler)
    if device != "meta":
        dit.load(tensors_of(tuple(sorted(case.architecture.items()))), fabric.device)
    noise, cond = inputs(case, model)
    return sampling_peak(sampler, dit.model, scheduler, noise.to(device), cond.to(fabric.device))


def relative_error(got: Tensor | None, want: Tensor) -> float:
    """Largest difference over the largest value."""
    assert got is not None and got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())
