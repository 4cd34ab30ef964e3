"""What a claim is, what a test of it is, and the one function that gives a verdict.

No verdict is written down anywhere: `verdict` makes it from two numbers and a tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE = "confirmed", "not confirmed", "not testable"
VERDICTS = (CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE)
SEVERITY = (NOT_CONFIRMED, NOT_TESTABLE, CONFIRMED)
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
    """

    value: float | None
    published: float | None
    tolerance: float = 0.0
    unit: str = ""
    relation: str = "equal"
    bound: float | None = None

    @property
    def against(self) -> float | None:
        return self.published if self.bound is None else self.bound


@dataclass(frozen=True)
class Claim:
    """One sentence of the sources, and what is known here about it.

    `sources` are published rows (FILE:LINE), `records` files and folders below the results folder. `blocked` says why
    nothing here can test it, `note` what is worth knowing beside the test.
    """

    id: str
    statement: str
    sources: tuple[str, ...]
    kind: str
    records: tuple[str, ...]
    test: Comparison
    note: str = ""
    blocked: str = ""

    @property
    def verdict(self) -> str:
        return NOT_TESTABLE if self.blocked else verdict(self.test)

    @property
    def reason(self) -> str:
        return ". ".join(part for part in (self.blocked or outcome(self.test), self.note) if part)


def verdict(test: Comparison) -> str:
    """One of `VERDICTS`.

    Not testable is what has no number, an order that the tolerance covers, and an equality within a tolerance so wide
    that nothing at all would do as well.
    """
    value, bound = test.value, test.against
    if value is None or bound is None or not isfinite(value - bound + test.tolerance):
        return NOT_TESTABLE
    apart, tolerance = value - bound, test.tolerance + FLOAT * abs(bound)
    if test.relation == "equal":
        wide = test.tolerance >= abs(bound) > 0
        return NOT_CONFIRMED if abs(apart) > tolerance else NOT_TESTABLE if wide else CONFIRMED
    if test.relation == "at most":
        return NOT_CONFIRMED if apart < -tolerance else NOT_TESTABLE
    if test.relation not in ("more", "less"):
        raise ValueError(f"{test.relation}: allowed: equal, at most, more, less")
    ahead = apart if test.relation == "more" else -apart
    if ahead > tolerance:
        return CONFIRMED
    return NOT_TESTABLE if test.tolerance and ahead >= -tolerance else NOT_CONFIRMED


def outcome(test: Comparison) -> str:
    """What a verdict rests on, in words; the numbers themselves stand beside it."""
    value, bound = test.value, test.against
    if value is None or bound is None:
        return "No number on one side"
    if test.unit == "cases":
        return f"Holds in {value:.0f} of {bound:.0f} cases"
    open_ = verdict(test) == NOT_TESTABLE
    if test.relation == "equal":
        exact = abs(value - bound) <= FLOAT * abs(bound)
        off = "Equal" if exact else f"Off by {100 * (value / bound - 1):+.3g} %" if bound else "Not 0"
        return f"{off}, and the tolerance is as wide as the number" if open_ else off
    if test.relation == "at most":
        return "Ours is the most that it can be"
    limit = f"Has to be {test.relation} than {amount(bound, test.unit)}"
    return f"{limit}: too close to tell" if open_ else limit


def amount(value: float, unit: str) -> str:
    """A number in three digits with its unit."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def of_cases(cases: Iterable[bool]) -> Comparison:
    """A claim that has to hold in every one of some cases; of none nothing is known."""
    held = [bool(case) for case in cases]
    return Comparison(sum(held), len(held), unit="cases") if held else Comparison(None, None)


def weakest(tests: Iterable[Comparison]) -> Comparison:
    """Of tests that all have to hold the one that decides: refuted, then open, then the one with least to spare."""
    return min(
        tests, key=lambda test: (SEVERITY.index(verdict(test)), spare(test)), default=Comparison(None, None)
    )


def spare(test: Comparison) -> float:
    """How far a test is from failing, in its unit; below 0 when it fails or is open."""
    if test.value is None or test.against is None:
        return 0.0
    apart, tolerance = test.value - test.against, test.tolerance
    spares = {"more": apart - tolerance, "less": -apart - tolerance, "at most": apart + tolerance}
    return spares.get(test.relation, tolerance - abs(apart))


def within(value: float | None, published: float | None, share: float, unit: str = "") -> Comparison:
    """Whether a value is the published one to a share of it."""
    return Comparison(value, published, share * abs(published or 0.0), unit)


def exactly(value: float | None, published: float | None, unit: str = "") -> Comparison:
    """Whether a value is the published one but for rounding of floats."""
    return Comparison(value, published, unit=unit)


def faster(value: float | None, published: float | None, share: float) -> Comparison:
    """Whether a ratio of seconds, other over mine, is above 1 by more than a share."""
    return Comparison(value, published, share, "×", "more", 1.0)


def half_digit(text: str) -> float:
    """Half of the last digit that is printed: `98.5` is good to 0.05."""
    decimals = len(text.partition(".")[2])
    return 0.5 * 10.0**-decimals
