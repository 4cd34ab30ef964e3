"""Whose pictures are further from real ones: by pairs where those were measured, else by intervals apart."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.claims.claim import verdict
from analysis.claims.quality import EXCESS, REAL, further


def setting(method: str, distance: float, *excess: float) -> pd.Series:
    """A setting with its distance to real pictures, 5 % each way, and what it is over serial's, if measured."""
    row = {"method": method, REAL: distance, f"{REAL}_low": 0.95 * distance, f"{REAL}_high": 1.05 * distance}
    row |= {f"{REAL}_n": 2000}
    return pd.Series(row | dict(zip((EXCESS, f"{EXCESS}_low", f"{EXCESS}_high"), excess, strict=False)))


SERIAL = setting("serial", 100.0)


def test_pairs_tell_apart_what_intervals_cannot() -> None:
    without, with_ = setting("distrifusion", 102.0), setting("distrifusion", 102.0, 2.0, 1.5, 2.5)
    assert verdict(further(without, SERIAL, 1.35)) == "undecided"
    test = further(with_, SERIAL, 1.35)
    assert (test.value, test.published) == (pytest.approx(1.02), 1.35)
    assert (test.low, test.high, test.n) == (pytest.approx(1.015), pytest.approx(1.025), 2000)
    assert verdict(test) == "confirmed"


def test_two_excesses_have_the_uncertainty_of_both() -> None:
    one, other = setting("distrifusion", 102.0, 2.0, 1.6, 2.4), setting("pipefusion", 101.0, 1.0, 0.7, 1.3)
    test = further(one, other, None)
    assert test.value == pytest.approx(102 / 101)
    assert test.low == pytest.approx((102 - 0.5) / 101)


def test_an_excess_without_a_number_is_none() -> None:
    nan = float("nan")
    test = further(setting("distrifusion", 102.0, nan, nan, nan), SERIAL, None)
    assert test.low is not None and test.low < 0.95
