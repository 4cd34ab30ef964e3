"""Bugs that products make possible, each planted, and how it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

import pipefusion.core.denoise as denoise
import pipefusion.core.forecast as forecast
import pipefusion.core.layout as layout
import pipefusion.core.sequence as sequence
import pipefusion.method as method_of_pipefusion
from pipefusion.core.attention import Attend, full
from pipefusion.core.compressed import Residuals
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.forecast import Forecast
from pipefusion.core.kv import StaleKV
from pipefusion.core.layout import Job, Layout
from pipefusion.core.ledger import Where
from pipefusion.core.rounds import Rounds
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import ring
from pipefusion.core.sizes import Sizes
from pipefusion.core.split import split_rows
from pipefusion.sim.engine import SimulationError
from tests.cases import Case
from tests.contract.oracle import computes, padded, product, sends_and_holds_what_is_predicted, wanted
from tests.sampling import simulate


def own_share_only(run: Run) -> AttendFor:
    """A stale buffer outside the Ulysses exchange: of a patch's fresh K, V it gets this rank's own share."""
    kv, lane = StaleKV(run, run.layout.band_tokens), run.fabric.axis("ulysses").index

    def attend_for(job: Job) -> Attend:
        slots, t = run.layout.slots(job, run.layout.lanes), job.tokens
        own = slice(lane * t, (lane + 1) * t)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            if len(job.patches) > 1:
                kv.write(layer, slots, k, v, prefix)
            else:
                place = [slice(slots[0].start + own.start, slots[0].start + own.stop)]
                kv.write(layer, place, k[:, own], v[:, own], prefix)
            return full(q, *kv.read(layer))

        return attend

    return attend_for


def plant_buffer_outside_ulysses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(method_of_pipefusion, "stale", own_share_only)


def plant_ring_over_fresh_kv_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(method_of_pipefusion, "rotating", ring)


def plant_swapped_guidance(patch: pytest.MonkeyPatch) -> None:
    branch = Conditioning.branch
    patch.setattr(Conditioning, "branch", lambda cond, index: branch(cond, 1 - index))


def plant_latent_stepped_on_one_side(patch: pytest.MonkeyPatch) -> None:
    class Still:
        def step(self, patch: int, step: int, prediction: Tensor, latent: Tensor) -> Tensor:
            return latent

    emit = denoise.Stage.emit

    def stepped_on_one(stage: denoise.Stage, job: Job, tokens: Any) -> None:
        if stage.layout.last and stage.run.fabric.axis("cfg").index:
            stage.schedulers = Still()  # type: ignore[assignment]
        emit(stage, job, tokens)

    patch.setattr(denoise.Stage, "emit", stepped_on_one)


def plant_rank_major_warmup(patch: pytest.MonkeyPatch) -> None:
    def slots(own: Layout, job: Job, lanes: int) -> list[slice]:
        return [slice(job.own.start * lanes, job.own.stop * lanes)]

    patch.setattr(Layout, "slots", slots)


def plant_padding_in_front(patch: pytest.MonkeyPatch) -> None:
    def in_front(x: Tensor, n: int, h: int, tokens: int) -> Tensor:
        return F.pad(x, (0, 0, n * h - x.shape[2], 0)).unflatten(2, (n, h)).permute(2, 1, 0, 3, 4)

    patch.setattr(sequence, "head_groups", in_front)


def plant_stages_that_wait(patch: pytest.MonkeyPatch) -> None:
    at_once = Layout.jobs

    def jobs(own: Layout, *given: Any) -> list[Job]:
        return [replace(job, origin=job.at, read=True) for job in at_once(own, *given)]

    patch.setattr(Layout, "jobs", jobs)


def plant_first_stage_shifted(patch: pytest.MonkeyPatch) -> None:
    begin = denoise.Stage.begin

    def shifted(stage: denoise.Stage, job: Job) -> None:
        stage.shifted = True
        begin(stage, job)

    patch.setattr(denoise.Stage, "begin", shifted)


def plant_forecast_from_the_step_before(patch: pytest.MonkeyPatch) -> None:
    note = Forecast.note

    def late(own: Forecast, newest: Tensor) -> None:
        note(own, getattr(own, "before", newest))
        own.before = newest.clone()  # type: ignore[attr-defined]

    patch.setattr(Forecast, "note", late)


def plant_forecast_without_factorials(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(forecast, "factorial", lambda i: 1)


def plant_rotation_the_other_way(patch: pytest.MonkeyPatch) -> None:
    """With the inputs that are there then: none of this step but for the last place."""
    rotated = Layout.jobs

    def jobs(own: Layout, steps: int, warmup: int, *given: Any) -> list[Job]:
        turned = replace(own, stage=-own.stage % len(own.patches))
        first = {job.at: job for job in rotated(own, steps, warmup, *given)}
        return [first[job.at] for job in rotated(turned, steps, warmup, *given)]

    patch.setattr(Layout, "jobs", jobs)


def plant_stale_noise_in_true_steps(patch: pytest.MonkeyPatch) -> None:
    newest = Rounds.newest

    def own(rounds: Rounds, step: int, prediction: Tensor) -> Tensor:
        newest(rounds, step, prediction)
        return prediction

    patch.setattr(Rounds, "newest", own)


def plant_rounds_that_part(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rounds, "agree", lambda rounds, step, latent: latent)


def plant_no_error_feedback(patch: pytest.MonkeyPatch) -> None:
    def send(own: Residuals, mine: Tensor, at: Where) -> Any:
        message = own.codec.encode(mine.transpose(2, 3) - own.base)
        own.reset(mine)  # in place of what the others have now
        return own.fabric.all_gather(own.arriving, message, axis="patch", at=at, async_op=True)

    patch.setattr(Residuals, "send", send)


Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: list[tuple[Plant, Case]] = [
    (plant_buffer_outside_ulysses, product("pipefusion", "pipe 2 ulysses 2", M=3)),
    (plant_ring_over_fresh_kv_only, product("pipefusion", "pipe 2 ring 2", M=3, ring="rotate")),
    (plant_swapped_guidance, product("pipefusion", "cfg 2 pipe 2", M=3)),
    (plant_latent_stepped_on_one_side, product("pipefusion", "cfg 2 pipe 2", M=3)),
    (plant_rank_major_warmup, product("pipefusion", "pipe 2 ulysses 2", M=3)),
    (plant_padding_in_front, padded("ulysses", "ulysses 2", 3)),
    (plant_no_error_feedback, product("distrifusion", "patch 2", W=0, compress="int1")),
    (plant_stale_noise_in_true_steps, product("parastep", "step 2")),
    (plant_rounds_that_part, product("parastep", "step 2 cfg 2").but(steps=6)),
    (plant_stages_that_wait, product("asyncdiff", "pipe 3")),
    (plant_forecast_from_the_step_before, product("pipefusion", "pipe 2", M=2, order="rotational")),
    (
        plant_forecast_without_factorials,
        product("pipefusion", "pipe 2", M=2, order="rotational", forecast="taylor2").but(steps=4),
    ),
    (plant_first_stage_shifted, product("asyncdiff", "pipe 2", time_shift=True)),
]


@pytest.mark.parametrize(("plant", "case"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_planted_bugs_are_found(plant: Plant, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    want = wanted(case)
    computes(simulate(case), want)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="away from what they have to be"):
        computes(simulate(case), want)


def test_a_rotation_the_other_way_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    case = product("pipefusion", "pipe 3", M=4, order="rotational")
    computes(simulate(case), wanted(case))
    plant_rotation_the_other_way(monkeypatch)
    with pytest.raises(SimulationError, match="mismatched order"):
        simulate(case)


def test_unequal_shares_do_not_even_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    case = product("pipefusion", "pipe 2 ulysses 2", M=5)
    computes(simulate(case), wanted(case))
    monkeypatch.setattr(layout, "split_rows", lambda rows, parts, unit=1: split_rows(rows, parts))
    with pytest.raises(SimulationError, match="mismatched shape"):
        simulate(case)


@pytest.mark.parametrize(
    "case", [padded("ulysses", "ulysses 2", 3), padded("pipefusion", "ulysses 2", 3, M=3)]
)
def test_padding_that_is_not_counted_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    results = simulate(case)
    sends_and_holds_what_is_predicted(results)
    monkeypatch.setattr(Sizes, "inner", property(lambda size: size.hidden // size.parallel.ulysses))
    with pytest.raises(AssertionError, match="rank 0"):
        sends_and_holds_what_is_predicted(simulate(case))
