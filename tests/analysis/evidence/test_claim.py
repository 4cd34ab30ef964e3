"""The verdict in closed form, each branch and both sides of each border."""

from __future__ import annotations

from math import exp

import pytest

from analysis.evidence.claim import (
    CONFIRMED,
    NOT_CONFIRMED,
    NOT_TESTABLE,
    UNDECIDED,
    Claim,
    Comparison,
    about,
    around,
    exactly,
    faster,
    half_digit,
    of_cases,
    outcome,
    verdict,
    weakest,
    within,
)


def test_a_number_may_be_off_by_the_tolerance_and_not_more() -> None:
    assert {verdict(within(value, 1.0, 0.1)) for value in (0.9, 1.0, 1.1)} == {CONFIRMED}
    assert {verdict(within(value, 1.0, 0.1)) for value in (0.899, 1.101)} == {NOT_CONFIRMED}
    assert verdict(within(None, 1.0, 0.1)) == NOT_TESTABLE


def test_a_tolerance_as_wide_as_the_number_confirms_nothing_but_may_refute() -> None:
    assert verdict(Comparison(0.5, 1.0, 0.999)) == CONFIRMED
    assert verdict(Comparison(0.5, 1.0, 1.0)) == UNDECIDED
    assert verdict(Comparison(2.5, 1.0, 1.0)) == NOT_CONFIRMED


def test_the_whole_interval_of_a_number_has_to_be_within_the_tolerance() -> None:
    def within(low: float, high: float) -> str:
        return verdict(Comparison((low + high) / 2, 1.0, 0.1, low=low, high=high))

    assert within(0.9, 1.1) == CONFIRMED
    assert {within(0.89, 1.05), within(0.95, 1.11), within(0.5, 2.0), within(0.5, 0.9)} == {UNDECIDED}
    assert {within(0.5, 0.89), within(1.11, 2.0)} == {NOT_CONFIRMED}


def test_a_wide_interval_never_confirms() -> None:
    """A prediction that is off by a quarter says nothing of 1.04 times, however near to it."""
    assert verdict(about(0.85, 1.037, 0.25, "×")) == UNDECIDED
    assert verdict(about(1.037, 1.037, 0.25, "×")) == UNDECIDED
    assert verdict(about(1.037, 1.037, 0.05, "×")) == CONFIRMED
    assert verdict(about(0.5, 1.037, 0.25, "×")) == NOT_CONFIRMED


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.01, 2.0, CONFIRMED),
        (1.0, 2.0, UNDECIDED),
        (0.9, 1.1, UNDECIDED),
        (0.5, 1.0, NOT_CONFIRMED),
        (0.5, 0.9, NOT_CONFIRMED),
    ],
)
def test_an_order_needs_the_interval_on_one_side(low: float, high: float, expected: str) -> None:
    assert verdict(Comparison((low + high) / 2, 3.0, 0.0, "×", "more", 1.0, low, high)) == expected
    assert verdict(Comparison((low + high) / 2, 3.0, 0.0, "×", "less", 1.0, 2 - high, 2 - low)) == expected


def test_without_an_interval_an_order_is_strict() -> None:
    assert verdict(Comparison(2.0, None, relation="more", bound=1.0)) == CONFIRMED
    assert verdict(Comparison(1.0, None, relation="more", bound=1.0)) == NOT_CONFIRMED
    assert verdict(Comparison(1.0, None, relation="less", bound=1.0)) == NOT_CONFIRMED
    assert verdict(Comparison(0.0, None, relation="more", bound=0.0)) == NOT_CONFIRMED


def test_what_is_at_most_something_can_refute_and_never_confirm() -> None:
    assert verdict(Comparison(0.89, 1.0, 0.1, relation="at most")) == NOT_CONFIRMED
    assert verdict(Comparison(0.9, 1.0, 0.1, relation="at most")) == UNDECIDED
    assert verdict(Comparison(0.7, 1.0, 0.1, relation="at most", low=0.5, high=0.95)) == UNDECIDED
    assert verdict(Comparison(0.7, 1.0, 0.1, relation="at most", low=0.5, high=0.89)) == NOT_CONFIRMED
    assert verdict(Comparison(9.0, 1.0, 0.1, relation="at most")) == UNDECIDED


def test_intervals_are_as_many_times_smaller_as_larger() -> None:
    low, high = around(2.0, 0.5)
    assert low * high == pytest.approx(4.0) and high / low == pytest.approx(exp(1.0))
    assert verdict(faster(None, 2.0, 0.5)) == verdict(about(None, 2.0, 0.5)) == NOT_TESTABLE


def test_closed_forms_are_equal_but_for_floats() -> None:
    assert verdict(exactly(0.1 + 0.2, 0.3)) == CONFIRMED
    assert verdict(exactly(0.3001, 0.3)) == NOT_CONFIRMED
    assert verdict(exactly(0.0, 0.0)) == CONFIRMED


def test_nothing_published_or_found_is_not_testable() -> None:
    assert verdict(Comparison(1.0, None)) == NOT_TESTABLE
    assert verdict(Comparison(None, 1.0, relation="more")) == NOT_TESTABLE
    assert verdict(of_cases([])) == NOT_TESTABLE
    with pytest.raises(ValueError, match="nearly"):
        verdict(Comparison(1.0, 1.0, relation="nearly"))


@pytest.mark.parametrize("relation", ["equal", "more", "less", "at most"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_decides_nothing(relation: str, bad: float) -> None:
    for value, published, tolerance in ((bad, 1.0, 0.1), (1.0, bad, 0.1), (1.0, 1.0, bad), (bad, bad, 0.1)):
        assert verdict(Comparison(value, published, tolerance, relation=relation)) == NOT_TESTABLE


def test_all_cases_have_to_hold() -> None:
    assert verdict(of_cases([True, True])) == CONFIRMED
    assert verdict(of_cases([True, False])) == NOT_CONFIRMED
    assert outcome(of_cases([True, False])) == "Holds in 1 of 2 cases"


def test_the_weakest_decides() -> None:
    sure, less_sure, open_, wrong = (faster(value, 2.0, 0.1) for value in (2.0, 1.5, 1.05, 0.5))
    assert weakest([sure, less_sure]) == less_sure
    assert weakest([sure, open_, less_sure]) == open_
    assert weakest([open_, wrong, sure]) == wrong
    slower = [
        Comparison(value, None, 0.0, relation="less", bound=1.0, low=value - 0.1, high=value + 0.1)
        for value in (0.2, 0.8)
    ]
    assert weakest(slower) == slower[1]
    numbers = [within(value, 1.0, 0.1) for value in (1.05, 0.92)]
    assert weakest(numbers) == numbers[1]
    bounds = [Comparison(value, 1.0, 0.1, relation="at most") for value in (0.8, 0.5, 1.5)]
    assert weakest(bounds) == bounds[1]
    assert verdict(weakest([])) == NOT_TESTABLE


def test_a_number_in_print_is_good_to_half_its_last_digit() -> None:
    assert half_digit("98.5") == pytest.approx(0.05)
    assert half_digit("12") == pytest.approx(0.5)


def test_what_is_blocked_is_not_testable_whatever_the_numbers() -> None:
    test = exactly(1.0, 1.0)
    claim = Claim("one", "One is one.", ("a.csv:2",), "computed", (), test, "A note")
    assert (claim.verdict, claim.reason) == (CONFIRMED, "Equal. A note")
    blocked = Claim("one", "One is one.", ("a.csv:2",), "computed", (), test, "A note", "No record yet")
    assert (blocked.verdict, blocked.reason) == (NOT_TESTABLE, "No record yet. A note")


def test_outcomes_say_what_is_claimed() -> None:
    assert outcome(within(1.2, 1.0, 0.1)) == "Off by +20 %"
    assert outcome(faster(1.5, 2.0, 0.1)) == "It has to be more than 1 ×"
    assert outcome(faster(1.05, 2.0, 0.1)).endswith("too close to tell")
    assert outcome(Comparison(0.5, 1.0, 0.1, relation="at most")).endswith("the most that it can be")
    assert outcome(Comparison(0.5, 1.0, 2.0)).endswith("the tolerance is as wide as the number")
    assert outcome(about(1.0, 1.1, 0.5)).endswith("neither within the tolerance nor outside")
