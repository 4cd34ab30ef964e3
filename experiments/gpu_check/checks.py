"""The one list of checks. A new check is a function beside those that are here, and its row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from experiments.gpu_check.alone import answers, on_one, serial
from experiments.gpu_check.cases import Check, families
from experiments.gpu_check.endings import ends_as_it_should, killed, poisoned
from experiments.gpu_check.judge import in_ranks
from experiments.gpu_check.ranks import edges, on_ranks, whole_run
from experiments.gpu_check.silent import memory, no_synchronisation
from experiments.methods import METHODS

FIRST = ("pipefusion", "ring")
"""Two steps of these before all else: messages that wait for each other, round a pipeline and round a ring."""


def checks(devices: int) -> list[Check]:
    """All of them, in order; `devices` are the ranks of those that take several."""
    return [*on_one_device(), *on_several(devices)]


def on_one_device() -> Iterator[Check]:
    """Where one device is enough, whatever a run takes: its ranks are simulated, or run alone."""
    yield Check("the device answers", "every dtype", 1, partial(in_ranks, answers, 0))
    for family in families():
        yield Check(
            "serial, two steps, is that of the CPU", family, 1, partial(in_ranks, partial(serial, family), 0)
        )
    for what, program in (
        ("no rank's host waits for its device", no_synchronisation),
        ("memory is what was predicted", memory),
        ("simulated ranks on one device give what they give on the CPU", on_one),
    ):
        for method in METHODS:
            yield Check(what, method, 1, partial(in_ranks, partial(program, method), 0))


def on_several(devices: int) -> Iterator[Check]:
    """A device a rank."""
    for method in FIRST:
        yield Check(
            "two steps on two devices, as run.py makes them", method, 2, partial(whole_run, method, 2)
        )
    yield Check("bandwidth and latency of every edge", "ring of ranks", 2, partial(in_ranks, edges, devices))
    for method in METHODS:
        ranks = 1 if method == "serial" else devices
        program = partial(on_ranks, method, ranks)
        what = "ranks with a device each give what they give on the CPU"
        yield Check(what, method, 2, partial(in_ranks, program, ranks))
    for method in FIRST:
        killing = partial(ends_as_it_should, killed, "rank 1 was killed by SIGKILL", method, 2)
        yield Check("a rank that is killed is named, and the run ends", method, 2, killing)
    for method in FIRST:
        finding = partial(ends_as_it_should, poisoned, r"latents not finite: rank \d+, step 0", method, 2)
        yield Check("a NaN among the weights is named with its step", method, 2, finding)
