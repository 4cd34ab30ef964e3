"""What a claim is, what a test of it is, and the one function that gives a verdict.

No verdict is written down anywhere: `verdict` makes it from the ends of what our value may be, a bound and a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, isfinite

from analysis.evidence.predictions import APART

CONFIRMED, NOT_CONFIRMED, UNDECIDED = "confirmed", "not confirmed", "undecided"
NOT_TESTABLE = "not testable"
VERDICTS = (CONFIRMED, NOT_CONFIRMED, UNDECIDED, NOT_TESTABLE)
SEVERITY = (NOT_CONFIRMED, UNDECIDED, NOT_TESTABLE, CONFIRMED)
"""Which verdict decides among several that all have to hold."""
KINDS = {
    "measured": "counted or measured by the methods' own code",
    "predicted": "the cost model on a GPU that is not here",
    "computed": "a closed form, or arithmetic on published and our own numbers",
    "published": "nothing of ours: the published rows alone",
}
"""How the evidence came about -> in words."""
FLOAT = 1e-9
"""Two numbers that ought to be the same differ by rounding only: relative."""


@dataclass(frozen=True)
class Comparison:
    """A test: our number, the number it is held against, and how far apart they may be, all in `unit`.

    `relation` says what is claimed of the value: `equal` to the bound, `more` or `less` than it, or equal to it where
    our value is only the most that it can be (`at most`). The bound is the published number where none is given: an
    order of methods has a published ratio, and 1 for its bound.

    `low` and `high` are the interval of our value where it has one, a prediction or a mean over `n` pictures. The
    tolerance of an equality is the source's (digits, unit) or the claim's own, never what our value may be off by.
    """

    value: float | None
    published: float | None
    tolerance: float = 0.0
    unit: str = ""
    relation: str = "equal"
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def against(self) -> float | None:
        return self.published if self.bound is None else self.bound

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; the value itself where it has none."""
        assert self.value is not None
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Claim:
    """One sentence of the sources, and what is known here about it.

    `sources` are published rows (FILE:LINE), `records` files and folders below the results folder. `blocked` says why
    nothing here can test it, `note` what is worth knowing beside the test. `printed` and `expected` are both sides in
    words and `size` how far they are apart, where the test's own numbers would not say it (NaN: that is no number).
    """

    id: str
    statement: str
    sources: tuple[str, ...]
    kind: str
    records: tuple[str, ...]
    test: Comparison
    note: str = ""
    blocked: str = ""
    printed: str = ""
    expected: str = ""
    size: float | None = None

    @property
    def off(self) -> float | None:
        """The share by which the test's number is off, or `size`."""
        value, bound = self.test.value, self.test.against
        if self.size is not None or value is None or not bound:
            return self.size
        return abs(value / bound - 1)

    @property
    def verdict(self) -> str:
        return NOT_TESTABLE if self.blocked else verdict(self.test)

    @property
    def reason(self) -> str:
        return ". ".join(part for part in (self.blocked or outcome(self.test), self.note) if part)


def verdict(test: Comparison) -> str:
    """One of `VERDICTS`.

    The whole interval decides: confirmed when all of it is where the claim has it, not confirmed when none of it is,
    else undecided. Not testable is what has no number. An equality within a tolerance as wide as the bound, which
    nothing at all would meet as well, is never confirmed.
    """
    if test.value is None or test.against is None:
        return NOT_TESTABLE
    if not all(map(isfinite, (*test.ends, test.against, test.tolerance))):
        return NOT_TESTABLE
    if test.relation not in ("equal", "more", "less", "at most"):
        raise ValueError(f"{test.relation}: allowed: equal, more, less, at most")
    least, most = spares(test)
    strict = test.relation in ("more", "less")
    if most < 0 or (strict and most == 0):
        return NOT_CONFIRMED
    wide = test.relation == "equal" and test.tolerance >= abs(test.against) > 0
    if test.relation == "at most" or wide:
        return UNDECIDED
    return CONFIRMED if least > 0 or (not strict and least == 0) else UNDECIDED


def spares(test: Comparison) -> tuple[float, float]:
    """How far the worst and the best place in the interval are from failing, in the test's unit: below 0 fails.

    What is equal may be off by the tolerance and the rounding of floats; an order has to exceed the latter.
    """
    assert test.against is not None
    low, high, bound = *test.ends, test.against
    rounding = FLOAT * abs(bound)
    room = test.tolerance + rounding
    if test.relation == "equal":
        ends = abs(low - bound), abs(high - bound)
        return room - max(ends), room - (0.0 if low <= bound <= high else min(ends))
    if test.relation == "at most":
        return low - bound + room, high - bound + room
    worst, best = (low - bound, high - bound) if test.relation == "more" else (bound - high, bound - low)
    return worst - rounding, best - rounding


def outcome(test: Comparison) -> str:
    """What a verdict rests on, in words; the numbers themselves stand beside it."""
    value, bound = test.value, test.against
    if value is None or bound is None:
        return "No number on one side"
    if test.unit == "cases":
        return f"Holds in {value:.0f} of {bound:.0f} cases"
    undecided = verdict(test) == UNDECIDED
    if test.relation == "at most":
        return "Ours is the most that it can be"
    if test.relation == "equal":
        exact = abs(value - bound) <= FLOAT * abs(bound)
        off = "Equal" if exact else f"Off by {100 * (value / bound - 1):+.3g} %" if bound else "Not 0"
        if undecided and test.tolerance >= abs(bound):
            return f"{off}, and the tolerance is as wide as the number"
        return f"{off}; its interval is neither within the tolerance nor outside" if undecided else off
    limit = f"It has to be {test.relation} than {amount(bound, test.unit)}"
    return f"{limit}: too close to tell" if undecided else limit


def amount(value: float, unit: str) -> str:
    """A number in three digits with its unit."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def make_claim(
    kind: str,
    records: tuple[str, ...],
    name: str,
    statement: str,
    sources: Iterable[str],
    test: Comparison,
    *notes: str,
    blocked: str = "",
) -> Claim:
    """A claim that some records are held against; notes are sentences, and empty ones are left out."""
    note = ". ".join(filter(None, notes))
    return Claim(name, statement, tuple(dict.fromkeys(sources)), kind, records, test, note, blocked)


def of_cases(cases: Iterable[bool]) -> Comparison:
    """A claim that has to hold in every one of some cases; of none nothing is known."""
    held = [bool(case) for case in cases]
    return Comparison(sum(held), len(held), unit="cases") if held else Comparison(None, None)


def weakest(tests: Iterable[Comparison]) -> Comparison:
    """Of tests that all have to hold the one that decides: refuted, undecided, then the one with least to spare."""
    return min(
        tests, key=lambda test: (SEVERITY.index(verdict(test)), spare(test)), default=Comparison(None, None)
    )


def spare(test: Comparison) -> float:
    """How far a test is from failing, in its unit; below 0 when it fails or is undecided."""
    if test.value is None or test.against is None:
        return 0.0
    least, most = spares(test)
    return most if test.relation == "at most" else least


def within(value: float | None, published: float | None, share: float, unit: str = "") -> Comparison:
    """Whether a value is the published one to a share of it."""
    return Comparison(value, published, share * abs(published or 0.0), unit)


def exactly(value: float | None, published: float | None, unit: str = "") -> Comparison:
    """Whether a value is the published one but for rounding of floats."""
    return Comparison(value, published, unit=unit)


def about(value: float | None, published: float, error: float, unit: str = "") -> Comparison:
    """Whether a predicted value, whose logarithm may be off by `error`, is the published one to `APART` of it."""
    low, high = (None, None) if value is None else around(value, error)
    return Comparison(value, published, APART * abs(published), unit, low=low, high=high)


def faster(value: float | None, published: float | None, error: float) -> Comparison:
    """Whether a predicted ratio of seconds, other over mine, whose logarithm may be off by `error`, is above 1."""
    low, high = (None, None) if value is None else around(value, error)
    return Comparison(value, published, 0.0, "×", "more", 1.0, low, high)


def around(value: float, error: float) -> tuple[float, float]:
    """The interval of a positive value whose logarithm may be off by so much, either way."""
    return value * exp(-error), value * exp(error)


def half_digit(text: str) -> float:
    """Half of the last digit that is printed: `98.5` is good to 0.05."""
    decimals = len(text.partition(".")[2])
    return 0.5 * 10.0**-decimals
