"""A timeline as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process a run, one thread a rank, one slice a span; an arrow from each send to where its receiver took the message.
Times are microseconds, to the nanosecond.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.files import write_text
from analysis.records.rows import read_rows
from analysis.runs.timeline import Run

PID = 1
PLACE = ["rank", "op", "step", "layer", "patch"]  # of a wait and the communication it was for
SEND, RECEIVE = ("send", "isend"), ("recv", "irecv")


def trace(run: Run, timeline: pd.DataFrame, ledger: pd.DataFrame | None = None) -> dict[str, Any]:
    """The trace as a JSON object; with the ledger of the run, waits know their bytes and messages are arrows."""
    events: list[dict[str, Any]] = [_meta("process_name", 0, name=f"{run.method}: {run.clock}")]
    sizes = _bytes(ledger)
    for rank, spans in timeline.groupby("rank"):
        tid = int(str(rank))
        layers = f", layers {run.layers[tid]}" if tid < len(run.layers) else ""
        events.append(_meta("thread_name", tid, name=f"rank {tid}{layers}"))
        events.append(_meta("thread_sort_index", tid, sort_index=tid))
        events += [_slice(tid, span, sizes) for span in _rows(spans)]
    if ledger is not None:
        events += _arrows(timeline, ledger)
    facts = {"method": run.method, "model": run.model, "clock": run.clock, "image_s": run.image_s}
    facts |= {"devices": run.devices, "patches": run.patches, "warmup": run.warmup, "steps": run.steps}
    return {"displayTimeUnit": "ms", "otherData": facts, "traceEvents": events}


def write(run_dir: str | Path, run: Run, timeline: pd.DataFrame) -> Path:
    """Write trace.json beside the timeline, one event a line; the same bytes every time."""
    communications = Path(run_dir) / "ledger.parquet"
    ledger = read_rows(communications) if communications.exists() else None
    content = trace(run, timeline, ledger)
    events = ",\n".join(json.dumps(event, allow_nan=False) for event in content.pop("traceEvents"))
    head = json.dumps(content, allow_nan=False)[:-1]
    path = Path(run_dir) / "trace.json"
    write_text(path, f'{head}, "traceEvents": [\n{events}\n]}}\n')
    return path


def _meta(what: str, tid: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": PID, "tid": tid, "args": args}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _start_end(span: dict[str, Any]) -> tuple[int, int]:
    """In nanoseconds. Both ends are rounded, not the length: slices that touch must not overlap."""
    return _nanoseconds(span["start_s"]), _nanoseconds(span["end_s"])


def _slice(tid: int, span: dict[str, Any], sizes: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    start, end = _start_end(span)
    args = {name: int(span[name]) for name in ("step", "layer", "patch") if span[name] >= 0}
    if span["kind"] == "compute":
        name = "set-up" if span["step"] < 0 else f"step {span['step']}"
        name += f" patch {span['patch']}" if span["patch"] >= 0 else ""
    else:
        name = f"{span['kind']} {span['op']}".rstrip()
        key = tuple(span[name] for name in PLACE)
        args |= {"bytes": sizes[key]} if key in sizes else {}
    common = {"ph": "X", "name": name, "cat": span["kind"], "pid": PID, "tid": tid}
    return common | {"ts": start / 1000, "dur": (end - start) / 1000, "args": args}


def _bytes(ledger: pd.DataFrame | None) -> dict[tuple[Any, ...], int]:
    """Bytes of one communication, by what a wait knows of it."""
    if ledger is None:
        return {}
    return {tuple(row[name] for name in PLACE): int(row["bytes"]) for row in _rows(ledger)}


def _arrows(timeline: pd.DataFrame, ledger: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Two flow events a message. Those whose receiver shows nothing it was for have no arrow."""
    lanes = {int(str(rank)): Lane(spans) for rank, spans in timeline.groupby("rank")}
    for number, (send, receive) in enumerate(messages(ledger), start=1):
        if send["rank"] not in lanes or receive["rank"] not in lanes:
            continue
        head = lanes[receive["rank"]].taken(send, receive)
        if head is None:
            continue
        tail = lanes[send["rank"]].inside(send["start_s"], head)
        common = {"name": "message", "cat": "message", "id": number, "pid": PID}
        args = {"bytes": int(send["bytes"]), "step": int(send["step"]), "patch": int(send["patch"])}
        yield {"ph": "s", **common, "tid": int(send["rank"]), "ts": tail / 1000, "args": args}
        end = {"ph": "f", "bp": "e", **common, "tid": int(receive["rank"])}
        yield end | {"ts": head / 1000, "args": args}


def messages(ledger: pd.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(send, receive) rows of the ledger: between two ranks messages arrive in the order they were sent.

    Peers are indices on the row's axis, which are ranks only when there is a single axis: otherwise no pairs. A
    receive also has ``until_s``: when this rank started the next one for the same place, if it did.
    """
    rows = ledger[ledger.op.isin(SEND + RECEIVE)]
    if "peer" not in rows or ("axis" in rows and rows.axis.nunique() > 1):
        return []
    rows = rows.assign(until_s=rows.groupby(PLACE).start_s.shift(-1).fillna(inf))
    sent: dict[tuple[int, int], deque[dict[str, Any]]] = defaultdict(deque)
    received: dict[tuple[int, int], deque[dict[str, Any]]] = defaultdict(deque)
    for row in _rows(rows):
        if row["op"] in SEND:
            sent[(row["rank"], row["peer"])].append(row)
        else:
            received[(row["peer"], row["rank"])].append(row)
    return [pair for edge in sorted(sent) for pair in zip(sent[edge], received[edge], strict=False)]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


class Lane:
    """The spans of one rank, to be asked where a moment falls (nanoseconds, inside a slice, as arrows must be)."""

    def __init__(self, spans: pd.DataFrame):
        self.spans = [span for span in _rows(spans) if _start_end(span)[1] > _start_end(span)[0]]
        self.starts = [span["start_s"] for span in self.spans]
        self.waits: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for span in self.spans:
            if span["kind"] == "wait":
                self.waits[tuple(span[name] for name in PLACE)].append(span)

    def inside(self, moment_s: float, latest: int) -> int:
        """The moment itself, or the end of the slice before it; not after ``latest``, as an arrow must go forward.

        What is sent at the very start of a slice was made in the one before. Clocks of ranks on one machine can be
        some milliseconds apart: ``latest`` then moves the moment back.
        """
        at = bisect_left(self.starts, min(moment_s - 1e-9, latest / 1e9)) - 1
        return min(_nanoseconds(moment_s), _start_end(self.spans[max(at, 0)])[1] - 1, latest)

    def taken(self, send: dict[str, Any], receive: dict[str, Any]) -> int | None:
        """End of the wait for this message or, if it was not waited for, where the compute it was for has it."""
        waits = [
            span
            for span in self.waits[tuple(receive[name] for name in PLACE)]
            if receive["start_s"] <= span["start_s"] < receive["until_s"]
        ]
        if waits:  # the last of them: where starting a receive takes time, that is in the timeline too
            return _start_end(waits[-1])[1] - 1
        there, patch = max(send["start_s"], receive["start_s"]), receive["patch"]
        for span in self.spans[max(bisect_right(self.starts, there) - 1, 0) :]:
            fits = span["patch"] in (-1, patch) or patch == -1
            if (
                span["kind"] == "compute"
                and fits
                and span["step"] >= receive["step"]
                and span["end_s"] > there
            ):
                return max(_start_end(span)[0], _nanoseconds(there))
        return None
