"""Programs that could have written a bundle: the naive loop, and the real method in the simulator, bugs put in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.models.model import FACTS
from experiments.models.scheduler import choose_scheduler
from pipefusion.core.kv import StaleKV
from pipefusion.core.run import Run
from pipefusion.core.split import split_rows
from tests.cases import Case, case_model, case_scheduler, inputs, stock_network
from tests.reference import Task, denoise
from tests.sampling import simulate

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"steps": 4, "architecture": {"num_layers": 3}}
LOUD = Case("pipefusion", {"patches": 4, "warmup": 1}, guidance=4.5, gain=2.0, **SMALL)


def documented_writer() -> str:
    """The code of docs/conformance.md."""
    return (ROOT / "docs/conformance.md").read_text().split("```python\n")[1].split("```")[0]


def writer_class() -> Any:
    """`BundleWriter` as it stands there."""
    names: dict[str, Any] = {"__name__": "writer"}
    exec(documented_writer(), names)
    return names["BundleWriter"]


def bundle_content(case: Case, devices: int) -> dict[str, Any]:
    """bundle.json of a case."""
    model = case_model(case)
    chosen = choose_scheduler(model, case.scheduler)
    assert isinstance(chosen, tuple)
    facts = {key: model.facts[key] for key in FACTS & model.facts.keys() - {"guidance_scale", "resolution"}}
    recipe = {"class": model.class_name, "config": model.config, "seed": 0, "gain": case.gain, **facts}
    return {
        "model": recipe,
        "scheduler": {"class": chosen[0], "config": dict(chosen[1])},
        "steps": case.steps,
        "guidance_scale": case.guidance,
        "devices": devices,
        **case.method,
    }


def changed(**changes: Any) -> Callable[[Path], None]:
    """Changes to what a bundle says of itself; "absent" leaves a key out."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "bundle.json").read_text()) | changes
        content = {key: value for key, value in content.items() if value != "absent"}
        (folder / "bundle.json").write_text(json.dumps(content))

    return change


def write(
    folder: Path,
    case: Case,
    steps: list[Tensor],
    devices: int = 2,
    hidden: dict[str, Tensor] | None = None,
    noise: Tensor | None = None,
) -> Path:
    """A bundle: what `case` asks for, and the latents after each step, or only after the last."""
    own, cond = inputs(case, case_model(case))
    tensors = {"noise": own if noise is None else noise, **cond.prompt}
    tensors |= {f"negative_{name}": tensor for name, tensor in (cond.negative or {}).items()}
    writer = writer_class()(folder, bundle_content(case, devices), tensors)
    writer.hidden |= hidden or {}
    if len(steps) == 1:
        writer.close(steps[0])
        return folder
    for latents in steps:
        writer.after_step(latents)
    writer.close()
    return folder


def watched(scheduler: Any, record: list[Tensor], shared: bool, forgetful: bool) -> Any:
    """A scheduler that records what it returns; `shared` has no copies, `forgetful` no history."""

    class Watched(type(scheduler)):  # type: ignore[misc]
        def __deepcopy__(self, memo: Any) -> Any:
            twin = copy.copy(self)
            twin.model_outputs = [*self.model_outputs]
            return self if shared else twin

        def step(self, *args: Any, **options: Any) -> Any:
            if shared or forgetful:
                self._step_index = None  # found anew from the timestep
            if forgetful:
                self.model_outputs, self.lower_order_nums = [None] * self.config.solver_order, 0
            out = super().step(*args, **options)
            record.append(out[0])
            return out

    found = Watched.from_config(scheduler.config)
    found.set_timesteps(len(scheduler.timesteps))
    return found


def naive(
    case: Case,
    warmup: int | None = None,
    sees: str = "pipefusion",
    shared: bool = False,
    forgetful: bool = False,
    noise: Tensor | None = None,
    backwards: bool = False,
) -> list[Tensor]:
    """The naive loop's latents after each step; what is given is done differently from what the case asks for."""
    model = case_model(case)
    network = stock_network(case)
    own, cond = inputs(case, model)
    noise = own if noise is None else noise
    bands = split_rows(noise.shape[2] // model.shape.patch_size, case.method["patches"])
    record: list[Tensor] = []
    scheduler = watched(case_scheduler(case), record, shared, forgetful)
    text, mask = cond.stacked("prompt_embeds"), cond.stacked("prompt_mask")
    warmup = case.method["warmup"] if warmup is None else warmup
    with torch.inference_mode():
        patches = [list(band) for band in bands]
        task = Task(network, scheduler, noise, text, mask, case.guidance)
        denoise(task, patches, warmup, sees, backwards=backwards)
    steps = [record[i : i + len(bands)] for i in range(0, len(record), len(bands))]
    return [
        torch.cat(parts[::-1] if backwards and step >= warmup else parts, dim=2).clone()
        for step, parts in enumerate(steps)
    ]


def scheduled(case: Case, loop: Callable[..., Tensor], *rest: Any) -> list[Tensor]:
    """The last latents of a loop of `tests/reference_schedules.py`, given the rest of its arguments."""
    noise, cond = inputs(case, case_model(case))
    text, mask = cond.stacked("prompt_embeds"), cond.stacked("prompt_mask")
    with torch.inference_mode():
        task = Task(stock_network(case), case_scheduler(case), noise, text, mask, case.guidance)
        return [loop(task, *rest)]


def simulated(case: Case, devices: int = 2, images: int = 1) -> list[Tensor]:
    """The real method's last latents, of the last of several images."""
    latents = [simulate(case.on(devices))[0].latents for _ in range(images)][-1]
    assert latents is not None
    return [latents.clone()]


class Buggy(StaleKV):
    """Buffers of a method in which `seen` is wrong in patch steps. No prompt tokens: not for MM-DiTs."""

    def __init__(self, run: Run, *rest: Any):
        super().__init__(run, *rest)
        self.whole, self.rows = run.shape.tokens, run.shape.tokens // 4

    def write(self, layer: int, slots: Sequence[slice], k: Tensor, v: Tensor, prefix: int) -> None:
        self.fresh = None
        if slots[0].stop - slots[0].start == self.whole:
            super().write(layer, slots, k, v, prefix)
        else:
            self.fresh = self.patch(layer, slots[0], k, v)

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.fresh or super().read(layer)

    def patch(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        """Store K, V of a patch; what is seen instead of the buffer."""
        raise NotImplementedError

    def store(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> None:
        super().write(layer, [tokens], k, v, 0)


class Late(Buggy):
    def patch(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        old_k, old_v = super().read(layer)
        seen = old_k.clone(), old_v.clone()
        self.store(layer, tokens, k, v)
        return seen


class Alone(Buggy):
    def patch(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v


class NextPatch(Buggy):
    by = 1

    def patch(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> None:
        start = (tokens.start + self.by * self.rows) % self.whole
        self.store(layer, slice(start, start + self.rows), k, v)


class PreviousPatch(NextPatch):
    by = -1


class ReferencesKept(StaleKV):
    """Buffers in which K, V of reference pictures stay as the synchronous steps have left them."""

    def __init__(self, run: Run, *rest: Any):
        super().__init__(run, *rest)
        self.shape = run.shape

    def write(self, layer: int, slots: Sequence[slice], k: Tensor, v: Tensor, prefix: int) -> None:
        slot, size = slots[0], k.shape[1] - prefix
        if size < self.shape.tokens:
            columns = torch.arange(size) % self.shape.grid.width
            own = torch.cat([torch.ones(prefix, dtype=torch.bool), columns < self.shape.token_cols])
            place = self.prefixes[layer] + slot.start - prefix
            k, v = (
                torch.where(own[:, None, None], new, old[:, place : place + prefix + size])
                for new, old in zip((k, v), self.read(layer), strict=True)
            )
        super().write(layer, slots, k, v, prefix)


class HalvesSwapped(Buggy):
    def patch(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.store(layer, tokens, k, v)
        seen = []
        for buffer, new in zip(super().read(layer), (k, v), strict=True):
            negative, positive = buffer.chunk(2)
            swapped = torch.cat([positive, negative])
            swapped[:, tokens] = new
            seen.append(swapped)
        return seen[0], seen[1]


def kept() -> Callable[..., StaleKV]:
    """Buffers that are made once a rank and never cleared."""
    made: dict[int, StaleKV] = {}

    def make(run: Run, *rest: Any) -> StaleKV:
        rank = run.fabric.rank
        if rank not in made:
            made[rank] = StaleKV(run, *rest)
        return made[rank]

    return make
