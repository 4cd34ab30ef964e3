"""Within the steps of an image no method makes the host wait for its device: nothing is read from it or sent to it."""

from __future__ import annotations

import weakref
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.methods import METHODS
from pipefusion.core import sampler as sampling
from pipefusion.core.memory import scheduler_tensors
from pipefusion.core.mesh import Mesh
from pipefusion.core.silent import SilentFabric
from pipefusion.schedulers import SCHEDULERS
from pipefusion.sim.plan import META
from tests.cases import FAMILIES, Case, case_model, case_scheduler, case_view, case_weights, inputs

CPU = torch.device("cpu")
READS = {"item", "_local_scalar_dense", "is_nonzero", "nonzero", "equal", "resolve_conj"}
"""What a scalar, a truth value, an index list and `tolist` read."""


class Steps(SilentFabric):
    """Knows when the first step has begun."""

    begun = False

    def begin(self, at):
        super().begin(at)
        self.begun = True


def run(case: Case, devices: int, rank: int, device: torch.device, watch: Any) -> None:
    """One rank's program, alone, under `watch(fabric, scheduler)`."""
    model, module = case_model(case), METHODS[case.name]
    cfg, scheduler = module.Config(**case.method), case_scheduler(case)
    fabric, dit = Steps(module.parallel(devices).mesh(), rank, device), case_view(case)
    sampler = module.build(dit, fabric, cfg)
    if device == CPU:
        dit.load(case_weights(case), device)
    noise, cond = inputs(case, model)
    noise, cond = noise.to(device), cond.to(device)
    with torch.inference_mode(), watch(fabric, scheduler):
        sampler(noise, cond, scheduler)


class Copies(TorchFunctionMode):
    """Refuses to make a tensor of the device from the host's numbers, with `meta` for the device.

    To read a tensor on `meta` is an error of torch's own.
    """

    def __init__(self, fabric: Steps, scheduler: Any):
        super().__init__()
        self.fabric = fabric

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self.fabric.begun and isinstance(out, Tensor) and out.is_meta:
            made = name in ("tensor", "as_tensor", "asarray", "from_numpy")
            # Arithmetic takes a scalar of the host as an argument of the kernel; anything larger has to be copied.
            mixed = [
                one for one in given if not one.is_meta and (one.dim() or name in ("to", "copy_", "cuda"))
            ]
            assert not made and not mixed, f"{name} copies from the host in a step"
        return out


class Reads(TorchDispatchMode):
    """Refuses to read what depends on anything but the scheduler's tables, which are the host's."""

    def __init__(self, fabric: Steps, scheduler: Any):
        super().__init__()
        self.fabric = fabric
        self.tables = scheduler_tensors(scheduler)
        self.host = {table.untyped_storage()._cdata for table in self.tables}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        hosts = bool(given) and all(one.untyped_storage()._cdata in self.host for one in given)
        name = func.overloadpacket.__name__
        if self.fabric.begun and name in READS:
            assert hosts, f"{name} reads from the device in a step"
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and hosts:
                storage = leaf.untyped_storage()
                self.host.add(storage._cdata)
                weakref.finalize(storage, self.host.discard, storage._cdata)
        return out


def watch_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let notes of finite latents be taken on `meta` as well, and leave out the one read after the last step."""

    def begin(self, steps, where):
        self._data, self._bad = True, torch.zeros(steps, dtype=torch.bool, device=where)

    monkeypatch.setattr(sampling.Finite, "__init__", begin)
    monkeypatch.setattr(sampling.Finite, "require", lambda self, rank: None)


def make_case(name: str, family: str, **settings: Any) -> Case:
    keys = {key.name for key in fields(METHODS[name].Config)}
    method = {key: value for key, value in {"patches": 3, "warmup": 1}.items() if key in keys}
    return Case(name, method, model=family, **({"steps": 2, "guidance": 4.5} | settings))


GRID = [(name, "pixart") for name in METHODS] + [("pipefusion", family) for family in FAMILIES]


@pytest.mark.parametrize(("name", "family"), [*GRID, ("pipefusion", "pixart_sizes")])
@pytest.mark.fast_cases(6)
def test_no_step_copies_from_the_host(monkeypatch, name, family):
    watch_notes(monkeypatch)
    case = make_case(name, family.removesuffix("_sizes"))
    if family == "pixart_sizes":
        case = case.but(architecture={"use_additional_conditions": True})
    devices = 1 if name == "serial" else 2
    for rank in range(devices):
        run(case, devices, rank, META, Copies)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", ["serial", "pipefusion"])
def test_no_step_reads_from_the_device(monkeypatch, name, scheduler):
    """The last stage applies guidance and the scheduler."""
    watch_notes(monkeypatch)
    devices = 1 if name == "serial" else 2
    run(make_case(name, "pixart", scheduler=scheduler), devices, devices - 1, CPU, Reads)


def test_the_watches_see_what_they_are_for():
    fabric, scheduler = (
        Steps(Mesh({"a": 1}), 0, META),
        case_scheduler(make_case("serial", "pixart")),
    )
    for change in (lambda: torch.tensor([1.0], device=META), lambda: scheduler.timesteps[0].to(META)):
        fabric.begun = False
        with Copies(fabric, scheduler):
            change()
            fabric.begun = True
            with pytest.raises(AssertionError, match="copies from the host"):
                change()
    flag = torch.zeros(3, dtype=torch.bool)
    for read in (
        lambda: bool(flag.any()),
        lambda: flag.tolist(),
        lambda: flag.nonzero(),
        lambda: flag[0].item(),
    ):
        with torch.inference_mode(), Reads(fabric, scheduler):
            bool(scheduler.timesteps[0] > 1)
            with pytest.raises(AssertionError, match="reads from the device"):
                read()
