"""What to run, on what: plans, load and links; all of it predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.output import Output
from analysis.predicted import bandwidth as links
from analysis.predicted import load as served
from analysis.predicted import planning, video
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table
from analysis.records.committed import BANDWIDTH, FLUX2_H100, FLUX2_L40, LOAD, VIDEOS
from analysis.records.study import load_study


def plan(results: Path) -> list[Table]:
    """Which product of degrees to run FLUX.2-dev with on 8 H100, and on two nodes of 8 L40 where that is recorded: the
    settings to which no other is equal or better in latency, memory and exactness alike, and, for other requests, the
    fastest; records/plan."""
    parts = {"": FLUX2_H100, "_l40": FLUX2_L40}
    found = [(suffix, results / name) for suffix, name in parts.items() if (results / name).exists()]
    return [table for suffix, folder in found for table in planning.tabulate(load_study(folder), suffix)]


def plan_video(results: Path) -> list[Table]:
    """The fastest setting for a video of each model and machine, and the fastest of PipeFusion with what its attention
    reads and writes in a step on one device: beside serial's, and in seconds beside those of its arithmetic;
    records/plan_video."""
    return video.tabulate([load_study(results / name) for name in VIDEOS if (results / name).exists()])


def bandwidth(results: Path) -> Sequence[Table | Drawing]:
    """Predicted latency of each method against the bandwidth of the links at fixed compute, and where a curve meets
    PipeFusion's; records/bandwidth."""
    record = load_study(results / BANDWIDTH)
    return [links.tabulate(record), Drawing(links.figure(record))]


def load(results: Path) -> Sequence[Table | Drawing]:
    """Latency against requests a second, in virtual time, for every way to cut the devices into replicas; service times
    are predictions; records/load."""
    record = load_study(results / LOAD)
    return [served.tabulate(record), Drawing(served.figure(record))]


OUTPUTS = [
    Output(plan, (f"{FLUX2_H100}/*", f"{FLUX2_L40}/*")),
    Output(plan_video, tuple(f"{name}/*" for name in VIDEOS)),
    Output(bandwidth, (BANDWIDTH,)),
    Output(load, (LOAD,)),
]
