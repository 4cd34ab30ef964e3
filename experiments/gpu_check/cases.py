"""What the checks run: every method on the tiny model of every family, and the same on the CPU to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import ClusterConfig, LatencyConfig, RunConfig
from experiments.errors import config_names
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models.inputs import as_inputs, make_inputs
from experiments.models.model import open_model, resolved
from experiments.runs.device import choose_device
from experiments.session import Session
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.ledger import Ledger
from pipefusion.core.predict import Prediction

TOLERANCES = {"float32": 5e-5, "float16": 1e-2, "bfloat16": 1e-1}
"""The largest distance to float32 on the CPU, over the norm of that. CPU runs in these are within 2e-6, 3e-3, 3e-2;
a stale K, V too many or too few makes 3e-4 or more."""
BUFFERS = ("kv_bytes", "buffer_bytes", "comm_bytes")
BYTES = (*BUFFERS, "sent_bytes", "recv_bytes")
"""Of a rank's ledger, each with a closed form."""
STEPS = 3
"""One synchronous step, and two that are displaced: the second reads what the first has sent."""


class Failed(Exception):
    """A check that did not pass, and why, in one line."""


class NotPossible(Exception):
    """A check that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Check:
    """What is checked, of what, on how many devices, and what does it in a directory of its own."""

    what: str
    of: str
    devices: int
    run: Callable[[RunConfig, Path], Found]


@dataclass
class Found:
    """What a check that passed found: a line, and numbers or rows to keep."""

    detail: str
    numbers: dict[str, Any] = field(default_factory=dict)


def families() -> list[str]:
    """The tiny models of `conf/model`; a test sees to it that every architecture has one."""
    return [name for name in config_names("model") if name.endswith("_tiny")]


def method_run(
    cfg: RunConfig, method: str, model: str, devices: int, dtype: str = "float32", steps: int = STEPS
) -> RunConfig:
    """A run of one method with its own defaults on real ranks. Raises NotPossible if the method cannot do it."""
    module, opened = METHODS[method], replace(model_config(model), dtype=dtype)
    one = replace(
        cfg,
        model=opened,
        method=module.Config(),
        devices=1 if method == "serial" else devices,
        steps=steps,
        cluster=ClusterConfig(device=cfg.cluster.device, timeout_s=cfg.measure.timeout_s / 2),
        measure=LatencyConfig(repeats=1, images=False),
        log=replace(cfg.log, progress=False),
    )
    subject = open_model(opened)
    problem = module.problem(subject.shape, one.devices, steps, one.method)
    if problem:
        raise NotPossible(f"{model} on {one.devices} devices: {problem.key}={problem.message}")
    return resolved(one, subject)


def family_runs(cfg: RunConfig, method: str, devices: int) -> tuple[list[RunConfig], list[str]]:
    """A method's run of every family, and why there is none of the others."""
    runs, skipped = [], []
    for family in families():
        try:
            runs.append(method_run(cfg, method, family, devices))
        except NotPossible as reason:
            skipped.append(str(reason))
    return runs, skipped


def device_inputs(run: RunConfig, device: torch.device) -> tuple[Tensor, Conditioning]:
    """Noise and prompts of a run."""
    assert run.guidance_scale is not None
    noise, cond = as_inputs(make_inputs(run, open_model(run.model)), run.guidance_scale)
    return noise.to(device), cond.to(device)


def simulated(run: RunConfig, device: str) -> Tensor:
    """Latents of a run with all its ranks on one device, in turn."""
    cluster = ClusterConfig(name="sim", world="sim", device=device)
    inputs = device_inputs(run, torch.device("cpu"))
    with torch.inference_mode():
        return Session().simulate(replace(run, cluster=cluster), *inputs, device=choose_device(device))[0]


def reference(run: RunConfig) -> Tensor:
    """What the run should give: all its ranks on the CPU, in float32."""
    return simulated(replace(run, model=replace(run.model, dtype="float32")), "cpu")


def distance(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; NaN if anything is."""
    return float((found.cpu().float() - wanted).norm() / wanted.norm())


def within(found: float, dtype: str) -> bool:
    """Whether a distance is tolerable; NaN is not."""
    return found <= TOLERANCES[dtype]


def usable_dtypes(device: torch.device) -> list[str]:
    """Those of `model.dtype` that the device computes in; bfloat16 takes compute capability 8.0."""
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return [name for name in TOLERANCES if not (old and name == "bfloat16")]


class Tally:
    """Results of one check over families and dtypes: the worst distance of each dtype, what failed, what cannot be."""

    def __init__(self, skipped: Sequence[str] = ()) -> None:
        self.worst: dict[str, float] = {}
        self.count = 0
        self.failures: list[str] = []
        self.skipped = skipped

    def add(self, name: str, dtype: str, found: float) -> None:
        """A distance that was found."""
        self.count += 1
        self.worst[dtype] = max(found, self.worst.get(dtype, 0.0))
        if not within(found, dtype):
            self.failures.append(f"{name} {dtype}: {found:.1e} from float32 on the CPU")

    def found(self) -> Found:
        """The whole. Raises Failed or, if nothing could be run, NotPossible."""
        if self.failures:
            raise Failed("; ".join(self.failures))
        worst = ", ".join(f"{dtype} {value:.1e}" for dtype, value in self.worst.items())
        runs = f"{self.count} run{'s' * (self.count > 1)}"
        text = f"{runs}, at most from float32 on the CPU: {worst}"
        return found_in(text, self.count, self.skipped, {"worst": self.worst})


def found_in(text: str, count: int, skipped: Sequence[str], numbers: dict[str, Any] | None = None) -> Found:
    """What `count` runs found, and why there are no others. Raises NotPossible if there is none."""
    why = "; ".join(skipped)
    if not count:
        raise NotPossible(why)
    return Found(f"{text}; not possible: {why}" if why else text, numbers or {})


def other_bytes(ledger: Ledger, forecast: Prediction, keys: Sequence[str]) -> list[str]:
    """Bytes of a rank's ledger that its closed form has otherwise."""
    buffers = {f"{kind}_bytes": count for kind, count in ledger.buffer_bytes.items()}
    counted = buffers | {"sent_bytes": ledger.sent_bytes, "recv_bytes": ledger.recv_bytes}
    pairs = {key: (counted.get(key, 0), getattr(forecast, key)) for key in keys}
    return [
        f"{key} is {found}, predicted {wanted}" for key, (found, wanted) in pairs.items() if found != wanted
    ]
