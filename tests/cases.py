"""One sampling case, the same for every test: a tiny random model (PixArt unless named), a method, a grid point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments import models
from experiments.config import ModelConfig
from experiments.difference import largest_difference
from experiments.grid import model_config
from experiments.methods import METHODS, with_warmup
from experiments.models import Model, open_model
from pipefusion.core.dit import Conditioning, DiT, parameter_parts
from pipefusion.core.ledger import Span, Where
from pipefusion.core.local import LocalFabric
from pipefusion.core.memory import sampling_peak
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.plan import PlannedRank, plan_ranks
from pipefusion.sim.world import World

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "num_attention_heads": 12,
    "attention_head_dim": 4,
    "in_channels": 3,
    "out_channels": 3,
    "num_layers": 4,
    "cross_attention_dim": 48,
    "sample_size": 48,
    "patch_size": 4,
    "caption_channels": 16,
    "norm_type": "ada_norm_single",
    "use_additional_conditions": False,
    "text_tokens": 7,
}
FAMILIES = (
    "sd3_tiny",
    "sd35_tiny",
    "flux_tiny",
    "flux2_tiny",
    "qwen_tiny",
    "z_image_tiny",
    "sana_tiny",
    "wan_tiny",
    "cogvideox_tiny",
    "hunyuan_video_tiny",
    "hunyuan_video15_tiny",
    "ltx_tiny",
    "hunyuan_tiny",
    "dit_tiny",
)
"""The other architectures, as conf/model has them."""
VIDEOS = ("wan_tiny", "cogvideox_tiny", "hunyuan_video_tiny", "hunyuan_video15_tiny", "ltx_tiny")
SIZE = (12, 4)
"""Token rows, which most degrees divide, and columns."""


@dataclass(frozen=True)
class Case:
    """What varies in the grid. `method` holds the method's own keys; `gain` multiplies all matrices of the weights.

    `size` is token rows and columns, of a video as many frames as rows; None: what the model was made for. At the
    default that is also what DiT gets, which draws squares alone, and a video.
    `padded`: an MM-DiT's prompts end in padding, which nothing attends to.
    """

    name: str
    method: dict[str, Any] = field(default_factory=dict)
    steps: int = 4
    scheduler: str = "dpmsolver++"
    guidance: float = 1.0
    images: int = 1
    architecture: dict[str, Any] = field(default_factory=dict)
    model: str = "pixart"
    size: tuple[int, int] | None = SIZE
    gain: float = 1.0
    parallel: Parallel = field(default_factory=Parallel)
    padded: bool = False

    def __hash__(self) -> int:
        return hash(repr(self))

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)

    def on(self, devices: int) -> Case:
        """The same with the degrees of so many devices."""
        return self.but(parallel=degrees_in(self, devices))


@dataclass
class Result:
    """What one rank returned; `seconds` are those computing, waiting, and in all."""

    latents: Tensor | None
    rows: list[dict[str, Any]]
    spans: list[Span]
    seconds: tuple[float, float, float]
    measured: dict[str, Any]
    predicted: dict[str, Any]
    layers: range
    parts: dict[str, int]
    decisions: dict[Where, bool]
    warmup: int | None


def problem(case: Case) -> Problem | None:
    """What keeps a case from running."""
    method = METHODS[case.name]
    return method.check(case_model(case).shape, case.parallel, case.steps, method.Config(**case.method))


def refused(case: Case) -> bool:
    """Whether linear attention keeps a case from running, which has no K, V. What else does, tests run into."""
    return case_model(case).shape.linear and problem(case) is not None


def case_model(case: Case) -> Model:
    return _model(case.model, tuple(sorted(case.architecture.items())), case_size(case))


def case_size(case: Case) -> tuple[int, int] | None:
    own = case.size == SIZE and case.model in ("dit_tiny", *VIDEOS)
    return None if own else case.size


@cache
def _model(name: str, changes: tuple[tuple[str, Any], ...], size: tuple[int, int] | None = None) -> Model:
    if size is not None:
        model = _model(name, changes)
        rows, cols = size
        sides = {"height": rows * model.multiple, "width": cols * model.multiple}
        frames = None if model.frames is None else 1 + (rows - 1) * model.facts["frame_factor"]
        return replace(model, **sides, frames=frames)
    if name == "pixart":
        return open_model(ModelConfig(name="tiny", architecture=TINY | dict(changes)))
    cfg = model_config(name)
    assert cfg.architecture is not None
    return open_model(replace(cfg, architecture=cfg.architecture | dict(changes)))


@cache
def stock_tensors(name: str, architecture: tuple[tuple[str, Any], ...]) -> Callable[..., Tensor]:
    return _model(name, architecture).tensors()


def case_view(case: Case) -> DiT:
    """A view of its own; building one takes longer than running it."""
    return _template(case.model, tuple(sorted(case.architecture.items())), case_size(case)).clone()


@cache
def _template(name: str, changes: tuple[tuple[str, Any], ...], size: tuple[int, int] | None) -> DiT:
    return _model(name, changes, size).view()


def case_weights(case: Case) -> Callable[..., Tensor]:
    return models.louder(stock_tensors(case.model, tuple(sorted(case.architecture.items()))), case.gain)


def inputs(case: Case, model: Model) -> tuple[Tensor, Conditioning]:
    """Noise and prompts that depend on the seed only; the masks differ between the images."""
    draw = torch.Generator().manual_seed(7)
    noise = torch.randn(case.images, *model.shape.latent_size, generator=draw)
    prompt, negative = (prompts(model.shape, case.images, draw, kept) for kept in (5, 2))
    for name, size in model.shape.pictures:
        prompt[name] = torch.randn(case.images, *size, generator=draw)
    if case.padded:
        for side in (prompt, negative):
            masks = [mask for name, mask in side.items() if name.startswith("prompt_mask")]
            side["padding"] = torch.cat(masks, dim=1) == 0
    if model.shape.guidance != "cfg":
        return noise, Conditioning(prompt, case.guidance)
    return noise, Conditioning(prompt, case.guidance, negative)


def prompts(shape: DiTShape, images: int, draw: torch.Generator, kept: int) -> dict[str, Tensor]:
    """Random prompt tensors, of which the masks leave the first `kept` tokens."""
    found = {}
    for name, size in shape.prompt:
        if name.startswith("prompt_mask"):
            found[name] = (torch.arange(size[0]) < kept).float().repeat(images, 1)
        elif name == "class_labels":
            found[name] = torch.randint(1000, (images,), generator=draw)
        else:
            found[name] = torch.randn(images, *size, generator=draw)
    return found


def case_scheduler(case: Case, model: Model) -> Any:
    return models.build_scheduler(model, case.scheduler, case.steps)


def degrees_in(case: Case, devices: int) -> Parallel:
    """All degrees of the case on so many ranks."""
    return METHODS[case.name].parallel(devices, case.parallel)


def requests(case: Case, repeats: int) -> list[tuple[Tensor, Conditioning]]:
    """The case's inputs, and as often as said again with others in place of all images but the first."""
    noise, cond = inputs(case, case_model(case))

    def others(tensor: Tensor) -> Tensor:
        return torch.cat([tensor[:1], tensor[1:].roll(1, -1)])

    prompt, negative = (
        side and {name: others(each) for name, each in side.items()} for side in (cond.prompt, cond.negative)
    )
    return [(noise, cond), *[(others(noise), replace(cond, prompt=prompt, negative=negative))] * repeats]


def sample(case: Case, repeats: int = 0) -> Result:
    """Run a case on this rank of the running process group, and again for others of `requests`.

    Raises AssertionError if the first image depends on those beside or before it.
    """
    model, module, parallel = case_model(case), METHODS[case.name], degrees_in(case, dist.get_world_size())
    cfg = module.Config(**case.method)
    problem = module.check(model.shape, parallel, case.steps, cfg)
    assert problem is None, problem
    mesh, tensors = parallel.mesh(), case_weights(case)
    fabric = LocalFabric(mesh, CPU)
    dit = case_view(case)
    scheduler = case_scheduler(case, model)
    sampler = module.build(dit, fabric, cfg)
    dit.load(tensors, CPU)
    made = []
    for request in requests(case, repeats):
        fabric.clear()
        made.append(sampler(*request, scheduler))
    seconds = fabric.close()
    if made[0] is not None:
        same_first_image(made)
    return collect_result(case, dit, fabric, made[0], seconds)


def same_first_image(made: list[Tensor]) -> None:
    assert all(torch.equal(latents[0], made[0][0]) for latents in made), (
        "something of an image survived, or went into the one beside it"
    )


def collect_result(
    case: Case,
    dit: DiT,
    fabric: LocalFabric | SimFabric,
    latents: Tensor | None,
    seconds: tuple[float, float, float],
) -> Result:
    """What a rank is asked after it has sampled."""
    model, module, ledger, mesh = case_model(case), METHODS[case.name], fabric.ledger, fabric.mesh
    parallel, branches = degrees_in(case, mesh.size), inputs(case, model)[1].branches
    settings = with_warmup(module.Config(**case.method), ledger.warmup)
    predicted = module.predict(
        model.shape, parallel, fabric.rank, case.steps, case.images, branches, settings
    )
    sent: Counter[str] = Counter()
    for entry in ledger.entries:
        sent[entry.axis] += entry.sent_bytes
    return Result(
        latents=latents if fabric.rank == 0 else None,
        rows=[entry.row(fabric.rank) for entry in ledger.entries],
        spans=ledger.spans,
        seconds=seconds,
        measured={
            "param_bytes": sum(parameter_parts(dit).values()),
            "kv_bytes": ledger.buffer_bytes["kv"],
            "buffer_bytes": ledger.buffer_bytes["buffer"],
            "comm_bytes": ledger.buffer_bytes["comm"],
            "sent_bytes": ledger.sent_bytes,
            "recv_bytes": ledger.recv_bytes,
            "axis_bytes": {axis: count for axis, count in sent.items() if count},
        },
        predicted=asdict(predicted),
        layers=dit.layers,
        parts=dict(parameter_parts(dit)),
        decisions=dict(ledger.decisions),
        warmup=ledger.warmup,
    )


def simulate(case: Case, repeats: int = 0) -> list[Result]:
    """Run a case of the product `case.parallel` on as many simulated ranks, and again as `sample` does.

    Every stretch of work takes a millisecond, so that a run is the same every time.
    """
    torch.set_num_threads(1)
    model, module = case_model(case), METHODS[case.name]
    mesh = degrees_in(case, case.parallel.world).mesh()
    clocks = [FixedClock(lambda: 1e-3) for _ in range(mesh.size)]
    world = World(mesh, CPU, TopologyConfig(), clocks=clocks)
    cfg, scheduler, tensors = module.Config(**case.method), case_scheduler(case, model), case_weights(case)
    dits, samplers = [case_view(case) for _ in world.fabrics], []
    for dit, fabric in zip(dits, world.fabrics, strict=True):
        samplers.append(module.build(dit, fabric, cfg))
        dit.load(tensors, CPU)

    def image(*request: Any) -> list[Any]:
        return world.run(lambda fabric: (samplers[fabric.rank](*request, scheduler), fabric.close()))

    with torch.inference_mode():
        made = [image(*request) for request in requests(case, repeats)]
        same_first_image([ranks[0][0] for ranks in made])
        return [
            collect_result(case, dit, fabric, latents, seconds)
            for dit, fabric, (latents, _), (_, seconds) in zip(
                dits, world.fabrics, made[0], made[-1], strict=True
            )
        ]


def measure_peak(case: Case, devices: int, rank: int, device: torch.device) -> int:
    """Peak bytes of a rank's program run alone."""
    model, module, dit = case_model(case), METHODS[case.name], case_view(case)
    fabric = SilentFabric(degrees_in(case, devices).mesh(), rank, device)
    sampler = module.build(dit, fabric, module.Config(**case.method))
    if device == CPU:
        dit.load(case_weights(case), device)
    noise, cond = inputs(case, model)
    with torch.inference_mode():
        return sampling_peak(
            sampler, dit.model, case_scheduler(case, model), noise.to(device), cond.to(device)
        )


def planned(
    case: Case, devices: int, device: DeviceConfig | None = None, **options: Any
) -> list[PlannedRank]:
    """Every rank of the case, planned; `options` are those of `plan_ranks`."""
    model, module = case_model(case), METHODS[case.name]
    cfg, scheduler = module.Config(**case.method), case_scheduler(case, model)
    return plan_ranks(
        lambda dit, fabric: module.build(dit, fabric, cfg),
        case_view(case),
        degrees_in(case, devices).mesh(),
        scheduler,
        *inputs(case, model),
        device,
        **options,
    )


def relative_error(got: Tensor | None, want: Tensor) -> float:
    """Largest difference over the largest value."""
    assert got is not None and got.shape == want.shape
    return largest_difference(got, want)
