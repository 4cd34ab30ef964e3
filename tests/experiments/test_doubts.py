"""What is said of doubtful published rows: all known errors, bounds, repetitions and contradictions, and no more."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from experiments.doubts import bound_s, targets
from experiments.published import Row, Target
from tests.experiments.published_rows import ROW, target

FLAGGED = {
    "swaps the labels": [f"latency.csv:{line}" for line in range(61, 67)],
    "row is the hybrid's": [f"latency.csv:{line}" for line in range(67, 70)],
    "for the hybrid": ["latency.csv:74"],
    "below the bound": [
        *(f"latency.csv:{line}" for line in (68, 69, 81, 82, 88, 89, 91)),
        *(f"scalability.csv:{line}" for line in (30, 52, 53)),
    ],
}


@pytest.fixture(scope="module")
def found() -> dict[str, Target]:
    return {one.row_id: one for one in targets()}


def test_the_bound_counts_synchronous_steps_as_serial_only_in_a_pipeline() -> None:
    assert bound_s(target(), 20.0) == pytest.approx(1 + 19 / 8)
    assert bound_s(target(setting="W=0"), 20.0) == pytest.approx(20 / 8)
    assert bound_s(target(method="DistriFusion"), 20.0) == pytest.approx(20 / 8)
    hybrid = target(method="CFG+PipeFusion", setting="cfg=2,pp=4")  # two pipelines, each with one branch
    assert bound_s(hybrid, 20.0) == pytest.approx(1 / 2 + 19 / 8)


def test_the_errors_of_the_sources_are_marked_and_nothing_else(found: dict[str, Target]) -> None:
    for words, rows in FLAGGED.items():
        assert [one.row_id for one in found.values() if any(words in flag for flag in one.flags)] == rows
    flags = Counter(one.row_id for one in found.values() for _ in one.flags)
    assert flags == Counter(row for rows in FLAGGED.values() for row in rows)
    [flag] = found["latency.csv:88"].flags
    assert "32.1 s < 41.33 s = 244.89 s (latency.csv:90) x (1 + 19/8)/20" in flag
    [flag] = found["latency.csv:89"].flags
    assert "28.6 s < 35.2 s = 244.89 s (latency.csv:90) x (1/2 + 19/8)/20" in flag


def made_up(tmp_path: Path, *changes: Row) -> list[Target]:
    for name in ("latency", "scalability", "patch_sweep", "warmup", "quality_fid", "memory", "claims"):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ROW)
            writer.writeheader()
            writer.writerows(ROW | change for change in changes if name == "latency")
    return targets(tmp_path)


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({"value": "3.51"}, True),
        ({"value": "3.6"}, False),
        ({"value": "3.6", "setting": "digitized from curve"}, True),
        ({"setting": "M=8; W=1"}, True),
        ({"setting": "W=0"}, False),
        ({"n_devices": "4"}, False),
        ({"source": ROW["source"]}, False),
        ({"interconnect": "NVLink", "hardware": "8xA100"}, False),
    ],
)
def test_the_same_number_elsewhere_is_a_duplicate(tmp_path: Path, change: Row, repeated: bool) -> None:
    first, second = made_up(tmp_path, {}, {"source": "another figure"} | change)
    assert first.duplicate_of is None
    assert second.duplicate_of == ("latency.csv:2" if repeated else None)


def test_a_printed_number_is_the_original_of_one_read_off_a_curve(tmp_path: Path) -> None:
    curve, printed = made_up(tmp_path, {"setting": "digitized"}, {"source": "another figure"})
    assert (curve.duplicate_of, printed.duplicate_of) == ("latency.csv:3", None)


@pytest.mark.parametrize("other", [{"model": "SD3-medium"}, {"steps": "28"}])
def test_what_is_doubtful_is_said_of_the_same_model_and_steps_only(tmp_path: Path, other: Row) -> None:
    """A serial time of another model is no bound, its number no repetition and no contradiction."""
    alone = {"source": "another figure", "method": "Original", "n_devices": "1", "value": "100"}
    rows = made_up(
        tmp_path, {}, alone | other, {"source": "third"} | other, {"source": "fourth", "value": "9"}
    )
    assert rows[0].flags == []
    assert rows[2].duplicate_of is None
    assert [one.contradicted_by for one in rows] == [["latency.csv:5"], [], [], ["latency.csv:2"]]


def test_one_gpu_is_one_gpu_whatever_the_links(tmp_path: Path) -> None:
    one = {"hardware": "4xA100-80GB", "interconnect": "PCIe", "n_devices": "1", "method": "Original"}
    other = {**one, "hardware": "8xA100-80GB", "interconnect": "NVLink", "source": "another figure"}
    assert made_up(tmp_path, one, other)[1].duplicate_of == "latency.csv:2"


def test_two_sources_that_contradict_each_other_name_each_other(tmp_path: Path) -> None:
    one, two, three = made_up(
        tmp_path,
        {},
        {"source": "another", "value": "7"},
        {"source": "third", "value": "OOM", "n_devices": "4"},
    )
    assert (one.contradicted_by, two.contradicted_by) == (["latency.csv:3"], ["latency.csv:2"])
    assert three.contradicted_by == []


def test_a_value_is_held_against_the_shortest_time_of_one_such_gpu(tmp_path: Path) -> None:
    alone = {"n_devices": "1", "method": "Original"}
    rows = made_up(tmp_path, {}, alone | {"value": "30"}, alone | {"value": "20", "hardware": "2x8xL40"})
    assert rows[0].flags == []  # 3.5 s is more than 20 s x (1 + 19/8)/20 = 3.375 s
    rows = made_up(tmp_path, {}, alone | {"value": "30"}, {"value": "3.7", "method": "TP"})
    assert "3.5 s < 5.062 s = 30 s (latency.csv:3)" in rows[0].flags[0]
    assert "3.7 s < 3.75 s = 30 s (latency.csv:3) x (0 + 20/8)/20" in rows[2].flags[0]
