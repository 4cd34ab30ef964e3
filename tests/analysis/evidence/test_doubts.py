"""What is said of doubtful published rows: all known errors, bounds, repetitions and contradictions, and no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from analysis.evidence.doubts import Doubts, bound, doubts
from analysis.evidence.published import Row, latencies, read
from tests.analysis.evidence.planted import ROW, published, rows

RESULTS = Path(__file__).resolve().parents[3] / "results"
FLAGGED = {
    "swaps the labels": [f"latency.csv:{line}" for line in range(61, 67)],
    "row is the hybrid's": [f"latency.csv:{line}" for line in range(67, 70)],
    "for the hybrid": ["latency.csv:74"],
    "below the bound": [
        *(f"latency.csv:{line}" for line in (68, 69, 81, 82, 88, 89, 91)),
        *(f"scalability.csv:{line}" for line in (30, 52, 53)),
        "third_party.csv:6",  # SANA with cfg 2: less than half of one device
    ],
}


@pytest.fixture(scope="module")
def found() -> dict[str, Doubts]:
    return doubts(
        [one for one in latencies(read(RESULTS / "published")) if not one.compiler and one.products]
    )


def test_the_bound_counts_synchronous_steps_as_serial_only_in_a_pipeline() -> None:
    def least(**changes: str) -> float:
        return bound(published(**changes), published(method="Original", n_devices="1", value="20"))[0]

    assert least() == pytest.approx(1 + 19 / 8)
    assert least(setting="W=0") == pytest.approx(20 / 8)
    assert least(method="DistriFusion") == pytest.approx(20 / 8)
    # Two pipelines, each with one branch.
    assert least(method="CFG+PipeFusion", setting="cfg=2,pp=4") == pytest.approx(1 / 2 + 19 / 8)


def test_the_errors_of_the_sources_are_marked_and_nothing_else(found: dict[str, Doubts]) -> None:
    for words, ids in FLAGGED.items():
        assert [row_id for row_id, one in found.items() if any(words in flag for flag in one.flags)] == ids
    flags = Counter(row_id for row_id, one in found.items() for _ in one.flags)
    assert flags == Counter(row for ids in FLAGGED.values() for row in ids)
    [flag] = found["latency.csv:88"].flags
    assert "32.1 s < 41.33 s = 244.89 s (latency.csv:90) x (1 + 19/8)/20" in flag
    [flag] = found["latency.csv:89"].flags
    assert "28.6 s < 35.2 s = 244.89 s (latency.csv:90) x (1/2 + 19/8)/20" in flag


def made_up(*changes: Row) -> list[Doubts]:
    return list(doubts(list(rows(*changes).values())).values())


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
def test_the_same_number_elsewhere_is_a_duplicate(change: Row, repeated: bool) -> None:
    first, second = made_up({}, {"source": "another figure"} | change)
    assert first.duplicate_of is None
    assert second.duplicate_of == ("latency.csv:2" if repeated else None)


def test_a_printed_number_is_the_original_of_one_read_off_a_curve() -> None:
    curve, printed = made_up({"setting": "digitized"}, {"source": "another figure"})
    assert (curve.duplicate_of, printed.duplicate_of) == ("latency.csv:3", None)


@pytest.mark.parametrize("other", [{"model": "SD3-medium"}, {"steps": "28"}])
def test_what_is_doubtful_is_said_of_the_same_model_and_steps_only(other: Row) -> None:
    """A serial time of another model is no bound, its number no repetition and no contradiction."""
    alone = {"source": "another figure", "method": "Original", "n_devices": "1", "value": "100"}
    rows = made_up({}, alone | other, {"source": "third"} | other, {"source": "fourth", "value": "9"})
    assert rows[0].flags == []
    assert rows[2].duplicate_of is None
    assert [one.contradicted_by for one in rows] == [["latency.csv:5"], [], [], ["latency.csv:2"]]


def test_one_gpu_is_one_gpu_whatever_the_links() -> None:
    one = {"hardware": "4xA100-80GB", "interconnect": "PCIe", "n_devices": "1", "method": "Original"}
    other = {**one, "hardware": "8xA100-80GB", "interconnect": "NVLink", "source": "another figure"}
    assert made_up(one, other)[1].duplicate_of == "latency.csv:2"


def test_two_sources_that_contradict_each_other_name_each_other() -> None:
    one, two, three = made_up(
        {},
        {"source": "another", "value": "7"},
        {"source": "third", "value": "OOM", "n_devices": "4"},
    )
    assert (one.contradicted_by, two.contradicted_by) == (["latency.csv:3"], ["latency.csv:2"])
    assert three.contradicted_by == []


def test_a_value_is_held_against_the_shortest_time_of_one_such_gpu() -> None:
    alone = {"n_devices": "1", "method": "Original"}
    rows = made_up({}, alone | {"value": "30"}, alone | {"value": "20", "hardware": "2x8xL40"})
    assert rows[0].flags == []  # 3.5 s is more than 20 s x (1 + 19/8)/20 = 3.375 s
    rows = made_up({}, alone | {"value": "30"}, {"value": "3.7", "method": "TP"})
    assert "3.5 s < 5.062 s = 30 s (latency.csv:3)" in rows[0].flags[0]
    assert "3.7 s < 3.75 s = 30 s (latency.csv:3) x (0 + 20/8)/20" in rows[2].flags[0]
