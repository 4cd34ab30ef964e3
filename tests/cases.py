"""One sampling case, the same for every test: a tiny random model (PixArt unless named), a method, a grid point."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from experiments.config import ModelConfig
from experiments.difference import largest_difference
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models.model import Model, louder, open_model
from experiments.models.scheduler import build_scheduler
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

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
    "ltx2_tiny",
    "hunyuan_tiny",
    "dit_tiny",
)
"""The other architectures, as conf/model has them."""
VIDEOS = (
    "wan_tiny",
    "cogvideox_tiny",
    "hunyuan_video_tiny",
    "hunyuan_video15_tiny",
    "ltx_tiny",
    "ltx2_tiny",
)
SIZE = (12, 4)
"""Token rows, which most degrees divide, and columns."""
OVER_FRAMES, OVER_ROWS = (12, 3, 2), (3, 12, 2)
"""Latent frames, token rows and columns of a video that is cut over its frames, or over its rows."""


@dataclass(frozen=True)
class Case:
    """What varies in the grid. `method` holds the method's own keys; `gain` multiplies all matrices of the weights.

    `size` is token rows and columns, of a video latent frames before them; None: what the model was made for, and at
    the default so is DiT, which draws squares alone.
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
    size: tuple[int, ...] | None = SIZE
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


def problem(case: Case) -> Problem | None:
    """What keeps a case from running."""
    method = METHODS[case.name]
    return method.check(case_model(case).shape, case.parallel, case.steps, method.Config(**case.method))


def refused(case: Case) -> bool:
    """Whether linear attention keeps a case from running, which has no K, V. What else does, tests run into."""
    return case_model(case).shape.linear and problem(case) is not None


def case_model(case: Case) -> Model:
    return _model(case.model, tuple(sorted(case.architecture.items())), case_size(case))


def case_size(case: Case) -> tuple[int, ...] | None:
    """The case's own; where it has none, that of its model."""
    own = {"dit_tiny": None, **dict.fromkeys(VIDEOS, OVER_FRAMES)}
    return own.get(case.model, SIZE) if case.size == SIZE else case.size


@cache
def _model(name: str, changes: tuple[tuple[str, Any], ...], size: tuple[int, ...] | None = None) -> Model:
    if size is not None:
        model = _model(name, changes)
        *frames, rows, cols = size
        sides = {"height": rows * model.multiple, "width": cols * model.multiple}
        pictures = 1 + (frames[0] - 1) * model.facts["frame_factor"] if frames else None
        return replace(model, **sides, frames=pictures)
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


def loaded_view(case: Case) -> DiT:
    """A view of its own that shares the model's weights, if no rank has a share of a tensor or an axis of its own."""
    return _loaded(case.model, tuple(sorted(case.architecture.items())), case_size(case), case.gain).clone()


@cache
def _loaded(
    name: str, changes: tuple[tuple[str, Any], ...], size: tuple[int, ...] | None, gain: float
) -> DiT:
    view = _template(name, changes, size).clone()
    view.load(louder(stock_tensors(name, changes), gain), CPU)
    return view


@cache
def _template(name: str, changes: tuple[tuple[str, Any], ...], size: tuple[int, ...] | None) -> DiT:
    return _model(name, changes, size).view()


def case_weights(case: Case) -> Callable[..., Tensor]:
    return louder(stock_tensors(case.model, tuple(sorted(case.architecture.items()))), case.gain)


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


@cache
def guided_branches(case: Case) -> int:
    return inputs(case, case_model(case))[1].branches


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


def stock_network(case: Case, expert: int = 0) -> nn.Module:
    """Plain diffusers, drawn from the model's seed, or for the second expert from the one that follows."""
    model = case_model(case)
    torch.manual_seed(model.seed + expert)
    network: nn.Module = getattr(diffusers, model.class_name).from_config(model.config)
    for parameter in network.parameters():
        parameter.data *= case.gain if parameter.ndim == 2 else 1
    return network.eval().requires_grad_(False)


def case_scheduler(case: Case) -> Any:
    """A scheduler of its own, as it was before the first step."""
    return deepcopy(
        _scheduler(case.model, tuple(sorted(case.architecture.items())), case.scheduler, case.steps)
    )


@cache
def _scheduler(name: str, changes: tuple[tuple[str, Any], ...], scheduler: str, steps: int) -> Any:
    return build_scheduler(_model(name, changes), scheduler, steps)


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


def relative_error(got: Tensor | None, want: Tensor) -> float:
    """Largest difference over the largest value."""
    assert got is not None and got.shape == want.shape
    return largest_difference(got, want)
