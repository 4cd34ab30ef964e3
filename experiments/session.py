"""What the cells of a study share in one process: models opened once, views on `meta`, the costs of planned blocks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from experiments.closure import Code
from experiments.config import ClusterConfig, ModelConfig, RunConfig, read_prompts
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import Model, open_model
from experiments.models.scheduler import build_scheduler
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Ledger
from pipefusion.core.shape import DiTShape, Sizes
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.plan import META, Costs, PlannedRank, plan_ranks
from pipefusion.sim.world import World

CPU = torch.device("cpu")
T = TypeVar("T")
Tensors = Callable[..., Tensor]
Wrap = Callable[[DiT, Fabric], Any]
"""What a rank's view is built as instead: a view around it."""


@dataclass
class Session:
    """Models and what is built of them. `cfg` is a resolved configuration throughout (`models.resolved`).

    `folder` is the study's, for what a cell writes beside its rows; `code` the project's code as the study began;
    `launcher` the settings of Hydra's, where cells are jobs of a cluster.
    """

    folder: Path = field(default_factory=Path)
    code: Code = field(default_factory=Code)
    launcher: dict[str, Any] | None = None
    costs: Costs = field(default_factory=Costs)
    _made: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What the cells of a study share, made by the first that asks for it."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def model(self, cfg: ModelConfig) -> Model:
        """The opened model of a configuration. Raises ValueError and OSError."""
        return self.once(("model", repr(cfg)), lambda: open_model(cfg))

    def template(self, cfg: ModelConfig) -> DiT:
        """A view of the whole model on `meta`, to be cloned."""
        return self.once(("view", repr(cfg)), lambda: self.model(cfg).view())

    def view(self, cfg: ModelConfig) -> DiT:
        """The same, the caller's own."""
        return self.template(cfg).clone()

    def tensors(self, cfg: ModelConfig) -> Tensors:
        """What parts of the model are filled with; random tensors are drawn once."""
        return self.once(("tensors", repr(cfg)), lambda: self.model(cfg).tensors())

    def scheduler(self, cfg: RunConfig) -> Any:
        """The scheduler of a run, its timesteps set."""
        return build_scheduler(self.model(cfg.model), cfg.scheduler, cfg.steps)

    def build(
        self, cfg: RunConfig, fabric: Fabric, tensors: Tensors | None = None, wrap: Wrap | None = None
    ) -> tuple[DiT, Sampler]:
        """One rank's part of the model and its sampler; without `tensors` the part stays on `meta`."""
        return build(cfg, self.view(cfg.model), fabric, tensors, wrap)

    def simulate(
        self,
        cfg: RunConfig,
        noise: Tensor,
        cond: Conditioning,
        tensors: Tensors | None = None,
        wrap: Wrap | None = None,
        device: torch.device = CPU,
    ) -> tuple[Tensor, Ledger]:
        """Latents [B, C, H, W] and the first rank's ledger, all ranks on one device; the latents on the CPU.

        `tensors` in place of the model's own. Raises `RankFailed` and `SimulationError`.
        """
        world = World(parallel_degrees(cfg).mesh(), device, cfg.cluster.topology)
        tensors = tensors or self.tensors(cfg.model)
        samplers = build_all(cfg, self.view(cfg.model), world, tensors, wrap)[1]
        noise, cond, scheduler = noise.to(device), cond.to(device), self.scheduler(cfg)
        latents = world.run(lambda fabric: samplers[fabric.rank](noise, cond, scheduler))[0]
        assert isinstance(latents, Tensor)
        return latents.cpu(), world.fabrics[0].ledger

    def plan(self, cfg: RunConfig) -> list[PlannedRank]:
        """Every rank of a run on named hardware. Raises `RankFailed` and `SimulationError`."""
        hardware, topology = machine(cfg.cluster)
        shape, method = self.model(cfg.model).shape, METHODS[cfg.method.name]
        parallel = parallel_degrees(cfg)
        assert cfg.guidance_scale is not None
        noise, cond = empty_inputs(shape, len(read_prompts(cfg)), cfg.guidance_scale)
        return plan_ranks(
            lambda dit, fabric: method.build(dit, fabric, cfg.method),
            self.template(cfg.model),
            parallel.mesh(),
            self.scheduler(cfg),
            noise,
            cond,
            hardware,
            topology,
            self.costs,
            apart=method.apart(shape, parallel.ulysses),
            steady=range(getattr(cfg.method, "warmup", 0) + 1, cfg.steps - 1),
        )


def machine(cluster: ClusterConfig) -> tuple[DeviceConfig, TopologyConfig]:
    """Device and links of named hardware, with the seconds of the chosen host."""
    assert cluster.hardware is not None
    host, device, topology = cluster.hosts.get(cluster.host), cluster.hardware, cluster.topology
    if host is None:
        return device, topology
    port = replace(topology.port, call_s=host.call_s, message_s=host.message_s, batch_s=host.batch_s)
    device = replace(device, launch_s=host.launch_s, unfused=host.unfused)
    return device, replace(topology, port=port)


def build(
    cfg: RunConfig, dit: DiT, fabric: Fabric, tensors: Tensors | None = None, wrap: Wrap | None = None
) -> tuple[DiT, Sampler]:
    """One rank's part of a whole view on `meta`, and its sampler; without `tensors` the part stays there."""
    if wrap is not None:
        dit = wrap(dit, fabric)
    sampler = METHODS[cfg.method.name].build(dit, fabric, cfg.method)
    if tensors is not None:
        dit.load(tensors, fabric.device)
    return dit, sampler


def build_all(
    cfg: RunConfig, view: DiT, world: World, tensors: Tensors, wrap: Wrap | None = None
) -> tuple[list[DiT], list[Sampler]]:
    """Every simulated rank's part of `view` and its sampler; what several ranks hold is there once."""
    shared = cache(tensors)
    pairs = [build(cfg, view.clone(), fabric, shared, wrap) for fabric in world.fabrics]
    return [dit for dit, _ in pairs], [sampler for _, sampler in pairs]


def empty_inputs(shape: DiTShape, images: int, guidance_scale: float) -> tuple[Tensor, Conditioning]:
    """Noise and conditioning on `meta`."""

    def empty(sizes: Sizes) -> dict[str, Tensor]:
        types = {"class_labels": torch.int64}
        return {name: torch.empty(images, *size, dtype=types.get(name), device=META) for name, size in sizes}

    guided = shape.guidance == "cfg" and guidance_scale > 1
    noise = torch.empty(images, *shape.latent_size, device=META)
    prompt, negative = empty(shape.prompt + shape.pictures), empty(shape.prompt) if guided else None
    return noise, Conditioning(prompt, guidance_scale, negative)


def guidance_branches(cfg: RunConfig, shape: DiTShape) -> int:
    """Guidance branches of a run: 2, or 1 without guidance."""
    return 2 if shape.guidance == "cfg" and cfg.guidance_scale is not None and cfg.guidance_scale > 1 else 1
