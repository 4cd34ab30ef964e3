"""The plan world's bookkeeping: replayed blocks cost and hold what run ones do, and peaks are those of the program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.methods import METHODS
from pipefusion.core.residuals import COMPRESS
from pipefusion.sim.cost import EMPTY, Segment
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.memo import MemoView
from pipefusion.sim.meter import DeviceClock
from pipefusion.sim.part import AtStep
from tests.cases import TINY, Case, case_model, refused
from tests.contract.covering import cover, pairs, pairs_apart
from tests.contract.oracle import ARCHITECTURES
from tests.sampling import planned

DEVICE = DeviceConfig(
    "toy", peak_flops_16=3e9, peak_flops_32=1e9, peak_bandwidth=2e9, kernel_s=3e-6, launch_s=7e-6
)


class EveryTime(MemoView):
    """The same view without its memory."""

    def block(self, layer, tokens, given, attend, skip=None):
        assert isinstance(given.modulation, AtStep)
        return self.view.block(layer, tokens, given._replace(modulation=given.modulation.inner), attend, skip)

    def _once(self, key, call):
        return call()


def make_case(name: str, **settings) -> Case:
    method = {key: value for key, value in {"patches": 5, "warmup": 1}.items() if METHODS[name].has(key)}
    return Case(name, method, **settings)


GRID = [make_case(name, guidance=4.5, images=2, steps=3) for name in METHODS]
GRID += [case.but(model=model).on(3) for model in ARCHITECTURES for case in GRID if case.name != "serial"]
GRID = [case for case in GRID if not refused(case)]


@pytest.mark.parametrize("case", cover(GRID, pairs_apart, pairs))
@pytest.mark.fast_cases(7)
def test_a_replayed_block_costs_what_it_did_and_holds_what_it_did(case):
    both = (planned(case, case.parallel.world, DEVICE, view=view) for view in (MemoView, EveryTime))
    for rank, (replayed, run) in enumerate(zip(*both, strict=True)):
        for number in ("matmul_flops", "attention_flops", "attention_bytes", "bytes"):
            got, want = getattr(replayed.meter, number), getattr(run.meter, number)
            assert got == pytest.approx(want, rel=1e-12)
        assert replayed.total_s == pytest.approx(run.total_s, rel=1e-9)
        ours, theirs = replayed.ledger, run.ledger
        assert [entry.row(rank) | {"start_s": 0, "wait_s": 0} for entry in ours.entries] == [
            entry.row(rank) | {"start_s": 0, "wait_s": 0} for entry in theirs.entries
        ]
        assert ours.wait_s == pytest.approx(theirs.wait_s, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("how", COMPRESS)
def test_every_compression_is_planned_with_the_bytes_of_its_closed_form(how):
    case, method = Case("ring", {"compress": how}, steps=3).on(3), METHODS["ring"]
    shape, settings = case_model(case).shape, method.Config(compress=how)
    for rank, run in enumerate(planned(case, 3, DEVICE)):
        assert run.sent_bytes == method.predict(shape, case.parallel, rank, 3, 1, 1, settings).sent_bytes


def test_flops_of_serial_are_the_closed_form():
    case = make_case("serial")
    meter = planned(case, 1)[0].meter
    shape = case_model(case).shape
    p, hs, text, steps = shape.tokens, shape.hidden, shape.text_tokens, case.steps
    attention = 4 * hs * p * (p + text)
    assert meter.attention_flops == steps * shape.layers * attention
    read = 2 * hs * (p + p) + 2 * hs * (p + text)  # Q, K, V and the result, of the image and of the prompt
    read += shape.heads * p + text  # the log-sum-exp of the one, the mask of the other
    assert meter.attention_bytes == steps * shape.layers * read * shape.itemsize
    linear = 2 * p * (6 * hs * hs + 2 * hs * shape.mlp_hidden)
    pixels = shape.patch_size**2
    ends = 2 * p * hs * pixels * (shape.in_channels + shape.out_channels)
    time = 2 * (256 * hs + hs * hs + 6 * hs * hs)
    once = (
        TINY["caption_channels"] * hs + hs * hs + shape.layers * 2 * hs * hs
    )  # captions; K, V of each layer
    assert meter.matmul_flops == steps * (shape.layers * linear + ends + time) + 2 * text * once


def stepped(operations: list[tuple[float, ...]], launch_s: float, host: float, device: float):
    for (seconds,) in operations:
        host += launch_s
        device = max(device, host) + seconds
    return host, device


@given(
    st.lists(st.tuples(st.floats(0, 1e-3)), min_size=1, max_size=30),
    st.integers(0, 30),
    st.floats(0, 1e-4),
    st.floats(0, 1e-2),
    st.floats(0, 1e-2),
)
def test_a_segment_is_its_operations_one_by_one(operations, cut, launch_s, host, device):
    """However it is cut in two, and whatever the host and the device were doing before."""
    parts = [EMPTY, EMPTY]
    for index, (seconds,) in enumerate(operations):
        one = Segment(1, seconds, launch_s + seconds)
        parts[index >= cut] = parts[index >= cut].then(one, launch_s)
    clock = DeviceClock(DeviceConfig(launch_s=launch_s))
    clock.host_s, clock.device_s = host, device
    clock.charge(parts[0].then(parts[1], launch_s))
    assert (clock.host_s, clock.device_s) == pytest.approx(stepped(operations, launch_s, host, device))
