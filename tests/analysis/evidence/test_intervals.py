"""Intervals of predictions, from made-up errors of known spread."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import numpy as np
import pytest

from analysis.evidence import intervals as made
from analysis.evidence.intervals import LEAST, Error, Intervals

KIND = made.kind("ring", 1024, "l20_pcie")


def spread(source: str, values: list[float], kind: made.Kind = KIND) -> list[Error]:
    return [Error(kind, source, value) for value in values]


def uniform(sources: int = 20, rows: int = 20) -> list[Error]:
    """Errors between -0.5 and 0.5, all sources alike."""
    draw = np.random.default_rng(0)
    return [one for i in range(sources) for one in spread(f"source {i}", list(draw.uniform(-0.5, 0.5, rows)))]


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (("hybrid", 4096, "l40_pcie_ethernet"), ("pipeline", "large", "ethernet")),
        (("USP", 1024, "h100_nvlink"), ("sequence", "small", "nvlink")),
        (("serial", 2048, "a100_nvlink"), ("one device", "large", "")),
        (("new", 1024, "somewhere"), ("new", "small", "")),
    ],
)
def test_a_kind_is_a_family_a_size_and_a_link(run: tuple[str, int, str], kind: made.Kind) -> None:
    assert made.kind(*run) == kind


def test_an_interval_is_of_the_narrowest_kind_with_enough_rows() -> None:
    other = made.kind("ring", 1024, "a100_nvlink")
    errors = spread("one", [0.1] * LEAST) + spread("one", [0.3] * LEAST, other)
    assert set(made.alike(errors, KIND)) == {0.1}
    assert set(made.alike(errors[1:], KIND)) == {0.1, 0.3}
    assert len(made.alike(errors, made.kind("tensor", 2048, "l20_pcie"))) == len(errors)


def test_an_interval_holds_its_share_of_a_source_it_was_made_without() -> None:
    errors = uniform()
    found = Intervals(errors, made.widening(made.apart(errors), False), 2.0)
    low, high = found.around(10.0, "ring", 1024, "l20_pcie")
    assert log(low / 10) == pytest.approx(-0.4, abs=0.03)
    assert log(high / 10) == pytest.approx(0.4, abs=0.03)
    assert 0.75 <= np.mean([held for _, held in made.coverage(errors)]) <= 0.85


def test_sources_that_disagree_widen_it() -> None:
    errors = [
        one for i in range(10) for one in spread(f"source {i}", [float(i % 2), i % 2 + 0.01, i % 2 - 0.01])
    ]
    assert made.widening(made.apart(uniform()), False) <= 1.15
    assert made.widening(made.apart([*errors, *spread("far", [9.0] * 12)]), False) > 1.2


def test_a_biased_prediction_lies_outside_of_its_interval() -> None:
    found = Intervals(spread("one", [1.0 + i / 100 for i in range(20)]), 1.0, 1.0)
    low, high = found.around(1.0, "ring", 1024, "l20_pcie")
    assert exp(1) < low < high < exp(1.2)


def test_the_committed_intervals_hold_80_percent_of_a_source_left_out() -> None:
    found = made.load_intervals(Path("results"))
    assert 0.75 <= np.mean([held for _, held in made.coverage(found.errors)]) <= 0.85


def test_clusters_that_borrow_have_wider_intervals() -> None:
    errors = [one._replace(value=3 * one.value, borrowed=True) for one in uniform(8, 8)] + uniform(16, 16)
    own, other = (
        made.widening(made.apart(errors), borrowed=False),
        made.widening(made.apart(errors), borrowed=True),
    )
    found = Intervals(errors, own, other)
    run = (10.0, "ring", 1024, "l20_pcie")
    assert own < other
    assert found.around(*run, borrowed=True)[0] < found.around(*run)[0]
    assert found.around(*run, borrowed=True)[1] > found.around(*run)[1]
