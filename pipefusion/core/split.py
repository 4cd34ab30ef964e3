"""How layers are cut into stages and token rows into patches. The two cuts are independent: N stages, M patches."""

from __future__ import annotations

from collections.abc import Sequence

SPLITS = ("ceil", "even", "cost", "bytes")
Split = str | Sequence[int]
"""One of `SPLITS`, or the number of layers of each stage."""


def even_sizes(total: int, parts: int) -> list[int]:
    """Sizes that differ by at most one, the larger ones first; zeros at the end when `parts` exceeds `total`."""
    base, extra = divmod(total, parts)
    return [base + (i < extra) for i in range(parts)]


def ranges(sizes: Sequence[int]) -> list[range]:
    """Consecutive ranges of the given sizes, starting at 0."""
    result, start = [], 0
    for size in sizes:
        result.append(range(start, start + size))
        start += size
    return result


def ceil_sizes(total: int, parts: int) -> list[int]:
    """`ceil(total/parts)` each until nothing is left, as published: 28 on 8 is 4,4,4,4,4,4,4,0."""
    size = -(-total // parts)
    return [max(0, min(size, total - i * size)) for i in range(parts)]


def balanced_sizes(costs: Sequence[float], parts: int, first: float = 0.0, last: float = 0.0) -> list[int]:
    """Consecutive groups of layers whose largest total cost is smallest, each with at least one layer.

    `first` and `last` are added to the first and the last group (embed and unembed). Exact, by dynamic programming:
    O(layers^2 parts). Raises ValueError when there are fewer layers than parts.
    """
    layers = len(costs)
    if layers < parts:
        raise ValueError(f"{layers} layers cannot fill {parts} stages")
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)

    def stage_cost(part: int, start: int, stop: int) -> float:
        return prefix[stop] - prefix[start] + first * (part == 0) + last * (part == parts - 1)

    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]  # per part: layers done -> (worst cost, start)
    for part in range(parts):
        row: dict[int, tuple[float, int]] = {}
        left = parts - 1 - part
        for stop in range(part + 1, layers - left + 1):
            if left == 0 and stop != layers:
                continue
            row[stop] = min(
                (max(worst, stage_cost(part, start, stop)), start)
                for start, (worst, _) in best[part].items()
                if start < stop
            )
        best.append(row)
    sizes, stop = [], layers
    for part in range(parts, 0, -1):
        start = best[part][stop][1]
        sizes.append(stop - start)
        stop = start
    return sizes[::-1]


def split_layers(
    layers: int,
    stages: int,
    how: Split,
    weights: Sequence[float] | None = None,
    first: float = 0.0,
    last: float = 0.0,
) -> list[range]:
    """Layers of each stage. `cost` and `bytes` balance `weights`, with those of embed and unembed at the ends."""
    if not isinstance(how, str):
        if len(how) != stages or sum(how) != layers or min(how) < 0:
            raise ValueError(f"split {list(how)} does not make {stages} stages of {layers} layers")
        return ranges(how)
    if how == "ceil":
        return ranges(ceil_sizes(layers, stages))
    if how == "even":
        return ranges(even_sizes(layers, stages))
    if how in ("cost", "bytes"):
        return ranges(balanced_sizes(weights or [1.0] * layers, stages, first, last))
    raise ValueError(f"unknown split {how!r}; one of {', '.join(SPLITS)}")


def split_rows(rows: int | range, patches: int, unit: int = 1) -> list[range]:
    """Token rows of each of M patches: horizontal bands, multiples of `unit`, sizes differing by one unit at most.

    Raises ValueError where that cannot be.
    """
    whole = range(rows) if isinstance(rows, int) else rows
    units = len(whole) // unit
    if len(whole) % unit or not 1 <= patches <= units:
        of = f" of multiples of {unit}" if unit > 1 else ""
        raise ValueError(f"{patches} patches{of} of {len(whole)} token rows; allowed: 1..{units}")
    parts = ranges(even_sizes(units, patches))
    return [range(whole.start + part.start * unit, whole.start + part.stop * unit) for part in parts]
