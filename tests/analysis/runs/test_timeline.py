"""Numbers of a timeline, against a schedule whose bubble is known in closed form."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.records.keep import keep
from analysis.runs import frame
from analysis.runs.timeline import bubble, headline, ideal_bubble, jobs, read, shares
from tests.analysis.schedule import pipeline, span, write_pipeline
from tests.analysis.synthetic import write_run

SIZES = [(4, 4, 1, 8), (8, 16, 1, 20), (2, 5, 0, 3), (3, 3, 2, 4), (1, 4, 1, 3), (8, 3, 1, 6), (4, 1, 0, 5)]


@pytest.mark.parametrize(("devices", "patches", "warmup", "steps"), SIZES)
def test_equal_stages_and_free_links_give_the_ideal_bubble(
    devices: int, patches: int, warmup: int, steps: int
) -> None:
    timeline, _, latency = pipeline(devices, patches, warmup, steps)
    measured = bubble(timeline, latency, warmup)
    assert measured.after_warmup == pytest.approx(ideal_bubble(devices, patches, steps, warmup), abs=1e-9)
    assert measured.share == pytest.approx(
        1
        - devices
        * patches
        * steps
        * 0.01
        / (devices * latency)  # every rank computes every patch of every step
    )


def test_the_ideal_is_the_papers_while_there_are_patches_enough() -> None:
    assert ideal_bubble(4, 4, steps=8, warmup=1) == pytest.approx(3 / (4 * 7 + 3))
    assert ideal_bubble(8, 16, steps=20, warmup=0) == pytest.approx(1 - 16 * 20 / (16 * 20 + 7))
    assert ideal_bubble(8, 4, steps=20, warmup=0) > 0.5  # half the ranks at a time at best
    assert np.isnan(ideal_bubble(4, 4, steps=3, warmup=3))


def test_fill_and_drain_are_half_of_the_ideal_bubble_each() -> None:
    timeline, _, latency = pipeline(4, 4, 1, 8)
    measured = bubble(timeline, latency, warmup=1)
    assert measured.warmup == pytest.approx(12 * 0.01 / latency)  # 3 of 4 ranks for 16 of the jobs' time
    assert measured.fill == pytest.approx(1.5 * 0.01 / latency)  # 0, 1, 2, 3 jobs' time, on average
    assert measured.drain == pytest.approx(measured.fill)
    assert measured.waits == pytest.approx(0, abs=1e-9)


def test_a_slow_stage_makes_the_others_wait_in_between() -> None:
    timeline, _, latency = pipeline(4, 4, 1, 8, stretch=lambda rank, job: 1.5 if rank == 2 else 1.0)
    measured = bubble(timeline, latency, warmup=1)
    assert measured.waits > 0.1
    assert measured.share == pytest.approx(measured.warmup + measured.fill + measured.waits + measured.drain)


def test_embedding_the_timestep_before_the_wait_is_not_the_job() -> None:
    rows = [
        span(1, "compute", 0, 0, 0.0, 0.1),
        span(1, "wait", 0, 0, 0.1, 1.0),
        span(1, "compute", 0, 0, 1.0, 2.0),
        span(0, "compute", 0, 0, 0.0, 1.0),
        span(0, "compute", 0, 1, 1.0, 1.9),
        span(0, "wait", 0, 0, 1.9, 2.0),
        span(0, "compute", 0, 1, 2.0, 2.1),
    ]
    timeline = pd.DataFrame(rows)
    table = jobs(timeline).set_index(["rank", "patch"])
    assert table.loc[(1, 0), ["start_s", "end_s"]].tolist() == [1.0, 2.0]
    assert table.loc[(0, 1), ["start_s", "end_s"]].tolist() == [1.0, 1.9]
    measured = bubble(timeline, 2.1)
    assert measured.waits == 0
    assert measured.fill == pytest.approx(0.9 / 4.2)
    assert measured.drain == pytest.approx((0.1 + 0.1) / 4.2)


def test_a_run_that_is_all_warm_up_has_nothing_after_it() -> None:
    timeline, _, latency = pipeline(4, 4, 3, 3)
    measured = bubble(timeline, latency, warmup=3)
    assert measured.share == measured.warmup == pytest.approx(0.75)
    assert np.isnan(measured.after_warmup)


def test_shares_add_up_for_every_rank() -> None:
    timeline, _, latency = pipeline(4, 4, 1, 8)
    table = shares(timeline, latency)
    assert table["rank"].tolist() == [0, 1, 2, 3]
    assert table.compute_s.tolist() == pytest.approx([4 * 8 * 0.01] * 4)
    assert (table.compute_s + table.wait_s + table.idle_s).tolist() == pytest.approx([latency] * 4)
    assert (table.compute_share + table.wait_share + table.idle_share).tolist() == pytest.approx([1.0] * 4)
    assert table.idle_s.tolist() == pytest.approx([0, 0.02, 0.01, 0])  # rank 0 waits for the last latents
    assert "issue_s" not in table


def test_starting_transfers_is_a_share_of_its_own() -> None:
    rows = [
        span(0, "compute", 0, 0, 0.0, 0.5),
        span(0, "issue", 0, 0, 0.5, 0.6),
        span(0, "wait", 0, 0, 0.6, 0.8),
    ]
    (row,) = shares(pd.DataFrame(rows), 1.0).to_dict("records")
    parts = [row[f"{kind}_s"] for kind in ("compute", "issue", "wait", "idle")]
    assert parts == pytest.approx([0.5, 0.1, 0.2, 0.2])


def test_a_run_is_read_with_what_it_is_of(tmp_path: Path) -> None:
    run, spans = read(write_pipeline(tmp_path, 4, 8, 2, 5, world="sim"))
    assert (run.devices, run.patches, run.warmup, run.steps) == (4, 8, 2, 5)
    assert run.layers == ("0-2", "3-5", "6-8", "9-11")
    assert run.image_s == pytest.approx(spans.end_s.max())
    assert spans.groupby("rank").start_s.is_monotonic_increasing.all()


@pytest.mark.parametrize(
    ("world", "words"), [("local", "measured wall clock"), ("sim", "virtual time"), ("plan", "PREDICTED")]
)
def test_it_is_said_whose_clock_it_was(tmp_path: Path, world: str, words: str) -> None:
    run, spans = read(write_pipeline(tmp_path, 4, 4, 1, 8, world=world))
    headlines = " ".join(headline(run, spans))
    assert words.lower() in headlines.lower()
    assert "Bubble after the warm-up 9.7 %" in headlines and "= 9.7 %, with equal stages" in headlines


def test_no_timeline_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(write_run(tmp_path, "serial"))
    failed = write_pipeline(tmp_path, 2, 2, 1, 2)
    (failed / "run.json").write_text((failed / "run.json").read_text().replace('"ok"', '"failed"'))
    with pytest.raises(FileNotFoundError, match="failed"):
        read(failed)


@pytest.mark.parametrize("key", ["method", "devices", "steps", "latency_s"])
def test_a_record_that_lacks_what_a_finished_run_has_is_said(key: str, tmp_path: Path) -> None:
    run = write_pipeline(tmp_path / "run", 2, 3, 1, 4)
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    with pytest.raises(ValueError, match=f"has no {key}; allowed: the record of a finished run"):
        read(run)


def test_timelines_are_a_frame_and_are_kept(tmp_path: Path) -> None:
    write_pipeline(tmp_path / "runs", 2, 2, 1, 2)
    write_run(tmp_path / "runs", "serial")
    keep(tmp_path / "runs", tmp_path / "kept")
    rows = frame.timeline(tmp_path / "kept")
    assert {"run", "method", "rank", "kind", "start_s", "end_s"} <= set(rows.columns)
    assert set(rows.method) == {"pipefusion"}
