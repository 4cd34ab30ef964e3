"""The schedule of a run, against a pipeline whose every job has a known place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.paper import schedule_figure
from analysis.paper.schedule import WHOLE, Schedule, filled, fresh_share, load, schedule, seen
from analysis.runs.timeline import ideal_bubble, read
from tests.analysis.schedule import write_pipeline

SIZES = [(4, 4, 1, 6), (2, 5, 0, 3), (3, 3, 2, 4), (4, 6, 1, 4)]


def made(tmp_path: Path, *sizes: int) -> Schedule:
    """Of jobs that take unequal times: the order is what counts."""
    run = write_pipeline(
        tmp_path, *sizes, link_s=0.002, stretch=lambda rank, job: 1 + (rank + 3 * job) % 4 / 5
    )
    return load(run)[0]


@pytest.mark.parametrize(("devices", "patches", "warmup", "steps"), SIZES)
def test_stage_d_runs_job_j_at_micro_step_j_plus_d(
    tmp_path: Path, devices: int, patches: int, warmup: int, steps: int
) -> None:
    plan = made(tmp_path, devices, patches, warmup, steps)
    late = plan.jobs[plan.jobs.patch != WHOLE]
    job = (late.step - warmup) * patches + late.patch
    assert (late.start == warmup * devices * patches + job + late["rank"]).all()
    assert (late.end - late.start == 1).all() and len(late) == devices * patches * (steps - warmup)
    early = plan.jobs[plan.jobs.patch == WHOLE]
    assert (early.start == (early.step * devices + early["rank"]) * patches).all()


@pytest.mark.parametrize(
    ("devices", "patches", "warmup", "steps"), [*SIZES, (4, 2, 1, 5), (4, 1, 0, 3), (1, 4, 1, 3)]
)
def test_jobs_fill_the_closed_form_of_the_micro_steps(
    tmp_path: Path, devices: int, patches: int, warmup: int, steps: int
) -> None:
    plan = made(tmp_path, devices, patches, warmup, steps)
    assert filled(plan) == pytest.approx(1 - ideal_bubble(devices, patches, steps, warmup))


@pytest.mark.parametrize("rank", range(4))
def test_patch_m_sees_the_patches_up_to_itself_fresh_and_the_others_one_step_old(
    tmp_path: Path, rank: int
) -> None:
    plan = made(tmp_path, 4, 4, 1, 6)
    own = plan.jobs[(plan.jobs["rank"] == rank) & (plan.jobs.patch != WHOLE)]
    age = seen(plan, rank).loc[own.index].rsub(own.step, axis=0).to_numpy()
    assert (age == (np.arange(4)[None] > own.patch.to_numpy()[:, None])).all()
    assert fresh_share(plan, rank) == pytest.approx((4 + 1) / (2 * 4))


def test_without_a_warm_up_the_first_step_sees_what_was_never_written(tmp_path: Path) -> None:
    table = seen(made(tmp_path, 2, 3, 0, 2), 0).to_numpy()
    assert np.isnan(table[0]).tolist() == [False, True, True]
    assert table[2:4].tolist() == [[0, 0, 0], [1, 0, 0]]


def test_what_is_fresh_follows_the_order_in_the_timeline(tmp_path: Path) -> None:
    """A run that takes its patches the other way round is drawn so."""
    run, spans = read(write_pipeline(tmp_path, 1, 3, 0, 2))
    turned = spans.assign(patch=2 - spans.patch)
    none = pd.DataFrame(columns=["rank", "peer", "step", "patch", "op"])
    table = seen(schedule(run, turned, none), 0).to_numpy()
    assert np.isnan(table[0]).tolist() == [True, True, False]
    assert table[3].tolist() == [0, 0, 1]


def test_what_waits_for_what_is_from_the_ledger(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path, 3, 3, 0, 2)
    run, spans = read(folder)
    ledger = pd.read_parquet(folder / "ledger.parquet")
    assert schedule(run, spans, ledger[ledger.op == "send"]).jobs.groupby("rank").start.min().tolist() == [
        0,
        0,
        0,
    ]
    plan = schedule(run, spans, ledger)
    assert ((1, 0, 2), (2, 0, 2)) in plan.messages  # from stage to stage within a step
    assert ((2, 0, 1), (0, 1, 1)) in plan.messages  # the latent, back for the next one
    assert all(receiver[1] < run.steps for _, receiver in plan.messages)


def test_the_figure_has_a_box_a_job_and_a_cell_a_patch(tmp_path: Path) -> None:
    plan, spans = load(write_pipeline(tmp_path, 3, 4, 1, 3))
    figure = schedule_figure.figure(plan, spans, "a source")
    upper, lower = figure.axes
    words = [text.get_text() for text in upper.texts]
    assert (
        len(words) == len(plan.jobs) and words.count("2.3") == 3 and words.count("step 0\nwhole image") == 3
    )
    assert [text.get_text() for text in lower.texts][4:8] == ["1", "0", "0", "0"]
    text = " ".join(text.get_text() for text in figure.texts)
    assert f"{100 * filled(plan):.1f} % of the micro-steps" in text and "a source" in text
