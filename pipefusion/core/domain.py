"""Domains: which numbers a field of a configuration may hold, stated beside the field and checked by one walk.

`steps: Annotated[int, Domain(1, 10_000)] = 20`, or one of the names below. A domain holds for every number in the
field, alone or in lists and dictionaries. NaN and infinity lie in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Domain:
    """The numbers from `low` to `high`; with `above` not `low` itself, with `whole` no fractions."""

    low: float
    high: float
    above: bool = False
    whole: bool = False  # for fields of any type: those of type int have no fractions

    def fault(self, value: float) -> str | None:
        """What is wrong with a number, or None."""
        if self.whole and type(value) is not int:
            return "is no whole number"
        if value < self.low or (self.above and value == self.low):
            return "is too small"
        if value > self.high:
            return "is too large"
        return None if value == value else "is not a number"

    def __str__(self) -> str:
        ends = f"above {self.low:g}, up to {self.high:g}" if self.above else f"{self.low}..{self.high}"
        return f"whole numbers, {ends}" if self.whole else ends


class NotEmpty:
    """Marks a list that leaves nothing to do when it is empty."""


class AnyText:
    """Marks text of any characters; other text is printable, since it is printed."""


Grid = Annotated[list[T], NotEmpty()]
"""A list of one or more."""
Devices = Annotated[int, Domain(1, 4096)]
Patches = Annotated[int, Domain(1, 4096)]
Steps = Annotated[int, Domain(1, 10_000)]
Warmup = Annotated[int, Domain(0, 10_000)]
Pixels = Annotated[int, Domain(1, 1 << 16)]
Guidance = Annotated[float, Domain(0, 1000)]
Seed = Annotated[int, Domain(0, (1 << 63) - 1)]
Seeds = Annotated[Any, Domain(0, (1 << 63) - 1, whole=True)]  # one, or a list
AutoWarmup = Annotated[Any, Domain(0, 10_000, whole=True)]  # or "auto"
Warmups = Annotated[Any, Domain(0, 10_000, whole=True)]  # or "S": all steps, "auto"
PatchCounts = Annotated[Any, Domain(1, 4096, whole=True)]  # or "N": as many as stages
Threads = Annotated[int, Domain(1, 1024)]
Cores = Annotated[int, Domain(0, 1024)]  # 0: as many as there are
Count = Annotated[int, Domain(1, 1 << 20)]
Natural = Annotated[int, Domain(0, 1 << 20)]
Samples = Annotated[int, Domain(1, 1 << 40)]
Width = Annotated[int, Domain(1, 1 << 14)]  # of a network, and its layers and heads
Bytes = Annotated[int, Domain(0, 1 << 50)]
Rate = Annotated[float, Domain(0, 1e18, above=True)]  # FLOP/s, bytes/s
Share = Annotated[float, Domain(0, 1, above=True)]
Part = Annotated[float, Domain(0, 1)]
Threshold = Annotated[float, Domain(0, 1000)]  # of a relative change
Seconds = Annotated[float, Domain(0, 1000)]  # of one operation
Gain = Annotated[float, Domain(0, 1000, above=True)]
Number = Annotated[float, Domain(-1e30, 1e30)]
Finite = Annotated[Any, Domain(-1e30, 1e30)]


PLAIN = (bool, int, float, str)
"""What a value may be that is neither a mapping nor a list."""


def fits(value: Any, kinds: set[type]) -> bool:
    """Whether a value is of one of these classes; a plain one where others may be is for their domain to judge."""
    plain = isinstance(value, PLAIN) and not kinds.isdisjoint(PLAIN)
    return plain or object in kinds or isinstance(value, tuple(kinds))


def outside(value: Any, hint: Any = Any, key: str = "") -> Iterator[tuple[str, str]]:
    """What lies outside its domain in a tree of dataclasses: its dotted key, and what is allowed."""
    marks = find_marks(hint)
    if is_dataclass(value) and not isinstance(value, type):
        inside = [(name, getattr(value, name), inner) for name, inner in field_hints(type(value)).items()]
    elif isinstance(value, list | tuple | dict):
        if not value and any(isinstance(mark, NotEmpty) for mark in marks):
            yield key, "[] leaves nothing to do; allowed: a list of one or more"
        items = value.items() if isinstance(value, dict) else enumerate(value)
        inside = [(str(name), each, hint) for name, each in items]
    else:
        inside = []
        for mark in marks:
            fault = mark.fault(value) if isinstance(mark, Domain) and isinstance(value, int | float) else None
            if fault:
                yield key, f"{value} {fault}; allowed: {mark}"
        if (
            isinstance(value, str)
            and not value.isprintable()
            and not any(isinstance(mark, AnyText) for mark in marks)
        ):
            yield key, f"{value!r} cannot be printed; allowed: letters, signs and spaces"
    for name, each, inner in inside:
        place = f"{key}.{name}" if key else name
        if is_dataclass(value) and not fits(each, kinds_in(inner)):
            why = "has no keys and is no list" if isinstance(each, PLAIN) else "is of the wrong type"
            yield place, f"{each} {why}; allowed: what --cfg job shows"
        yield from outside(each, inner, place)


@cache
def field_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields with what they are annotated with."""
    return get_type_hints(kind, include_extras=True)


def kinds_in(hint: Any) -> set[type]:
    """The classes that a value of a type may have at its top: `{dict, NoneType}` of `dict[str, int] | None`."""
    origin = get_origin(hint)
    if origin is Annotated:
        return kinds_in(get_args(hint)[0])
    if origin in (Union, UnionType):
        return {kind for inner in get_args(hint) for kind in kinds_in(inner)}
    kind = origin or hint
    return {kind if isinstance(kind, type) and kind is not Any else object}


def find_marks(hint: Any) -> list[Domain | NotEmpty | AnyText]:
    """What a type is annotated with, anywhere in it: `list[Steps] | None` with the domain of steps."""
    found: list[Domain | NotEmpty | AnyText] = []
    for inner in get_args(hint):
        found += [inner] if isinstance(inner, Domain | NotEmpty | AnyText) else find_marks(inner)
    return found
