"""Two experts, switched at a noise level: methods against both stock transformers in a loop, or the naive reference.

K, V are kept across the switch: what is stale in the second expert's first step is the first one's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.conformance.reference import Buffers, one_image
from experiments.conformance.request import Deviation, Request
from experiments.methods import METHODS
from experiments.models.stock_sampling import denoise
from pipefusion.core.sampler import experts_by_step
from pipefusion.core.shape import Experts
from pipefusion.core.split import split_rows
from tests.cases import (
    CPU,
    OVER_FRAMES,
    OVER_ROWS,
    Case,
    case_model,
    case_scheduler,
    case_view,
    case_weights,
    inputs,
    relative_error,
    stock_network,
)
from tests.contract.oracle import computes, label, product, replayed, sends_and_holds_what_is_predicted
from tests.sampling import measure_peak, planned, simulate


def switched(name: str, degrees: str = "", **method: Any) -> Case:
    """Two guided videos in four steps, of which each expert has two; random weights hardly matter without a gain."""
    case = product(name, degrees, "wan22_a14b_tiny", **method)
    size = OVER_ROWS if case.size == OVER_ROWS else OVER_FRAMES
    return case.but(steps=4, size=size, scheduler="shipped", gain=2.0, architecture={"boundary": 0.6})


EXACT = [
    switched("serial"),
    switched("serial", "data 2 cfg 2"),
    switched("sync_pipeline", "cfg 2 pipe 3"),
    switched("tensor", "tensor 3 ulysses 2"),
    switched("tensor", "tensor 2", cross="whole"),
    switched("ulysses", "ulysses 4"),
    switched("ring", "ring 3 ulysses 2"),
    switched("pipefusion", "pipe 2 ulysses 2", M=3, W=4),
    switched("distrifusion", "patch 3", W=4),
    switched("asyncdiff", "pipe 2", W=4),
    switched("parastep", "step 2", W=4),
]
STALE = [
    switched("pipefusion", "pipe 2", M=4),
    switched("pipefusion", "cfg 2 pipe 3", M=4, W=0),
    switched("pipefusion", "pipe 2 tensor 2", M=3, patch_axis="rows"),
    switched("pipefusion", "pipe 2 ring 2 ulysses 2", M=3, ring="rotate"),
    switched("distrifusion", "patch 3", W=1),
    switched("naive_patch", "patch 3 ulysses 2", W=1),
]
LAGGED = [
    switched("asyncdiff", "pipe 2 ulysses 2", W=1),
    switched("asyncdiff", "pipe 3", W=1, time_shift=True),
    switched("asyncdiff", "pipe 2", W=1, stride=2),
    switched("parastep", "step 2 cfg 2", W=1),
]


@cache
def stock_loop(case: Case) -> Tensor:
    """Both transformers in diffusers' loop over the steps, the guidance written out."""
    model, (noise, cond) = case_model(case), inputs(case, case_model(case))
    experts = model.shape.experts
    assert experts is not None and experts.guidance_scale is not None
    second = stock_network(case, 1), experts.boundary, experts.guidance_scale
    size = (model.height, model.width)
    task = noise, cond.prompt, cond.negative, case.guidance, size, second
    with torch.inference_mode():
        return denoise(stock_network(case), case_scheduler(case), *task)


def naive(case: Case, buffers: type[Buffers] = Buffers) -> Tensor:
    """One process, all layers, K, V in a list, both experts in turn."""
    view, method = case_view(case), METHODS[case.name]
    cfg, axis = method.Config(**case.method), case.method.get("patch_axis")
    if axis:
        view.cut(axis)
    view.load(case_weights(case), CPU)
    parallel, shape = case.parallel, view.shape
    bands = split_rows(shape.lines, case.method.get("patches", parallel.patch), parallel.lanes)
    stages, sees = [range(shape.layers)], [method.attends(shape, parallel, cfg, rows) for rows in bands]
    task = inputs(case, case_model(case)), case_scheduler(case)
    request = Request(*task[0], task[1], bands, stages, cfg.warmup, "exact", sees)
    assert method.stale is not None and method.stale != "input"
    how = Deviation(kv=method.stale)
    with torch.inference_mode():
        return one_image(view, request, how, buffers(view, request, how), None)[-1]


@pytest.mark.parametrize("case", EXACT, ids=label)
@pytest.mark.fast_cases(4)
def test_what_is_never_stale_is_the_stock_loop_over_two_transformers(case: Case) -> None:
    results = simulate(case)
    computes(results, stock_loop(case.but(name="", method={}, parallel=product("serial").parallel)))
    sends_and_holds_what_is_predicted(results)


@pytest.mark.parametrize("case", STALE, ids=label)
@pytest.mark.fast_cases(2)
def test_stale_k_and_v_go_on_across_the_switch(case: Case) -> None:
    results = simulate(case, repeats=1)
    computes(results, naive(case))
    sends_and_holds_what_is_predicted(results)


class EmptiedAtTheSwitch(Buffers):
    """Buffers that the second expert finds empty."""

    steps = 0

    def begin_step(self) -> None:
        if self.steps == 2:
            for layer in self.layers:
                layer.zero_()
        self.steps += 1
        super().begin_step()


def test_a_buffer_that_is_emptied_at_the_switch_is_another_method() -> None:
    assert relative_error(naive(STALE[0], EmptiedAtTheSwitch), naive(STALE[0])) > 1e-3


@pytest.mark.parametrize("case", LAGGED, ids=label)
def test_a_stage_or_rank_has_the_expert_of_the_timestep_that_it_is_told(case: Case) -> None:
    results = simulate(case)
    computes(results, replayed(case))
    sends_and_holds_what_is_predicted(results)


@pytest.mark.parametrize("case", [STALE[0], EXACT[4]], ids=label)
def test_both_experts_are_held_and_planned(case: Case) -> None:
    """Twice the parameters of a stage, and the plan's peak is that of the program on every rank."""
    for rank, counted in enumerate(planned(case, case.parallel.world)):
        assert counted.meter.peak_bytes == measure_peak(case, case.parallel.world, rank, CPU), f"rank {rank}"
        parts = [sum(p.nbytes for p in each.model.parameters()) for each in counted.dit.transformers()]
        assert parts[0] == parts[1] > 0


def test_the_boundary_itself_is_the_first_expert_s() -> None:
    """As in the pipeline: at least `boundary_ratio` of the timesteps that the scheduler was trained with."""
    case = switched("serial")
    scheduler = case_scheduler(case)
    assert scheduler.timesteps[0] == 1000 > scheduler.timesteps[1]
    assert experts_by_step(Experts(1.0), scheduler) == [0, 1, 1, 1]
    assert experts_by_step(Experts(0.6), scheduler) == [0, 0, 1, 1]
    assert experts_by_step(None, scheduler) == [0, 0, 0, 0]
