"""trace.json: what the trace event format asks for, and arrows that go forward in time."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.runs import trace
from analysis.runs.timeline import read
from tests.analysis.schedule import entry, pipeline, span, write_pipeline


@pytest.fixture
def events(tmp_path: Path) -> list[dict[str, Any]]:
    folder = write_pipeline(tmp_path, 4, 4, 1, 8)
    return json.loads(trace.write(folder, *read(folder)).read_text())["traceEvents"]


def test_a_process_a_run_and_a_thread_a_rank(events: list[dict[str, Any]]) -> None:
    assert {event["pid"] for event in events} == {trace.PID}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {rank: f"rank {rank}, layers {3 * rank}-{3 * rank + 2}" for rank in range(4)}


def test_a_slice_a_span_in_microseconds(events: list[dict[str, Any]]) -> None:
    timeline, _, latency = pipeline(4, 4, 1, 8)
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(timeline)
    assert max(event["ts"] + event["dur"] for event in slices) == pytest.approx(latency * 1e6)
    first = next(event for event in slices if event["name"] == "step 1 patch 0")
    assert (first["tid"], first["ts"], first["dur"]) == (0, 160_000, 10_000)
    waits = [event for event in slices if event["name"] == "wait recv"]
    assert waits and all(event["args"]["bytes"] == 4096 for event in waits)


def test_slices_of_a_rank_never_overlap(events: list[dict[str, Any]]) -> None:
    for rank in range(4):
        own = [event for event in events if event["ph"] == "X" and event["tid"] == rank]
        for before, after in pairwise(own):
            assert round(1000 * (before["ts"] + before["dur"])) <= round(1000 * after["ts"])


def test_every_message_is_an_arrow_from_slice_to_slice(events: list[dict[str, Any]]) -> None:
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    _, ledger, _ = pipeline(4, 4, 1, 8)
    shown = (ledger.op == "send").sum() - 1  # the first stage neither waits nor computes for the last patch 0
    assert len(starts) == len(ends) == shown
    slices = [event for event in events if event["ph"] == "X"]
    for number, start in starts.items():
        end = ends[number]
        assert end["tid"] == (start["tid"] + 1) % 4
        assert end["ts"] >= start["ts"]
        assert start["args"]["bytes"] == 4096
        for arrow in (start, end):
            inside = [s for s in slices if s["tid"] == arrow["tid"] and 0 <= arrow["ts"] - s["ts"] < s["dur"]]
            assert len(inside) == 1


def test_an_arrow_ends_where_the_message_was_for(events: list[dict[str, Any]]) -> None:
    """Hidden states go to the same job of the next stage, a latent to the next step on the first."""
    slices = [event for event in events if event["ph"] == "X"]
    checked = 0
    for arrow in (event for event in events if event["ph"] == "f"):
        target = next(s for s in slices if s["tid"] == arrow["tid"] and 0 <= arrow["ts"] - s["ts"] < s["dur"])
        if target["cat"] == "compute":
            checked += 1
            later = target["args"]["step"] - arrow["args"]["step"]
            assert later == (1 if arrow["tid"] == 0 else 0)
            assert target["args"].get("patch", -1) == arrow["args"]["patch"]
        else:
            assert target["name"] == "wait recv"
    assert checked > 50


def test_starting_a_receive_is_not_taking_the_message() -> None:
    """Both take time on a wall clock; the arrow goes to the later."""
    own = [
        span(1, "wait", 0, 0, 0.0, 0.2),
        span(1, "compute", 0, 0, 0.2, 0.5),
        span(1, "wait", 0, 0, 0.5, 1.0),
    ]
    send, receive = entry(0, "send", 0, 0, 1, 0.1), entry(1, "recv", 0, 0, 0, 0.0)
    ((sent, received),) = trace.messages(pd.DataFrame([send, receive]))
    assert trace.Lane(pd.DataFrame(own)).taken(sent, received) == 999_999_999


def test_an_arrow_goes_forward_when_clocks_disagree() -> None:
    """The receiver had it at 0.9 on its clock; the sender sent it at 1.0 on its own."""
    lane = trace.Lane(pd.DataFrame([span(0, "compute", 0, 0, 0.0, 0.5), span(0, "compute", 0, 1, 0.5, 1.0)]))
    assert lane.inside(1.0, latest=2_000_000_000) == 999_999_999
    assert lane.inside(1.0, latest=900_000_000) == 900_000_000


def test_peers_on_several_axes_are_not_taken_for_ranks() -> None:
    _, ledger, _ = pipeline(2, 2, 1, 2)
    assert trace.messages(ledger)
    ledger.loc[0, "axis"] = "cfg"
    assert trace.messages(ledger) == []


def test_the_same_bytes_twice_and_no_ledger_needed(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path, 2, 2, 1, 3)
    first = trace.write(folder, *read(folder)).read_bytes()
    assert trace.write(folder, *read(folder)).read_bytes() == first
    (folder / "ledger.parquet").unlink()
    kinds = {
        event["ph"] for event in json.loads(trace.write(folder, *read(folder)).read_text())["traceEvents"]
    }
    assert kinds == {"M", "X"}
