"""The ranks of a run on their mesh: a card per rank with the layers, tokens, heads and branches that are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.presentation.columns import mib
from analysis.presentation.style import COLOUR, GREY, RC, label, pale
from analysis.runs import frame

EMPTY = "#F1F1F1"
CARD = (1.52, 1.5)
"""Width and height of a rank's card, in inches."""
LEFT, GAP, HEAD = 1.72, 0.22, 0.62
ROW = 0.24


@dataclass(frozen=True)
class Part:
    """Segments in groups, and which of them are a rank's own."""

    name: str
    groups: tuple[int, ...]
    own: frozenset[int]


def place(degrees: Mapping[str, int], rank: int) -> dict[str, int]:
    """The index of a rank on each axis: the last axis varies fastest."""
    found: dict[str, int] = {}
    for axis in reversed([*degrees]):
        rank, found[axis] = divmod(rank, degrees[axis])
    return {axis: found[axis] for axis in degrees}


def groups(degrees: Mapping[str, int], axis: str) -> list[list[int]]:
    """The ranks that communicate on an axis: they differ in their place on it alone."""
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for rank in range(prod(degrees.values())):
        rest = tuple(item for item in place(degrees, rank).items() if item[0] != axis)
        found.setdefault(rest, []).append(rank)
    return list(found.values())


def parts(
    degrees: Mapping[str, int], rank: int, layers: Sequence[int], total: int, patches: int
) -> list[Part]:
    """What a rank of a guided run on stages has: `layers` of `total`, its share of each of so many `patches`."""
    at = place(degrees, rank)

    def cut(*axes: str) -> tuple[int, int]:
        """Ranks on these axes, and the number of this one among them."""
        index = 0
        for axis in axes:
            index = index * degrees.get(axis, 1) + at.get(axis, 0)
        return prod(degrees.get(axis, 1) for axis in axes), index

    lanes, lane = cut("ring", "ulysses")
    heads, head = cut("tensor", "ulysses")
    both = {0, 1} if degrees.get("cfg", 1) == 1 else {at["cfg"]}
    return [
        Part("layers", (total,), frozenset(layers)),
        Part("tokens it computes", (lanes,) * patches, frozenset(m * lanes + lane for m in range(patches))),
        Part("heads of its K, V", (heads,), frozenset({head})),
        Part("guidance branches", (1, 1), frozenset(both)),
    ]


def numbers(text: str) -> list[int]:
    """The layers that `3-5`, `3` or `-` of ranks.csv stands for."""
    if text == "-":
        return []
    first, _, last = text.partition("-")
    return [*range(int(first), int(last or first) + 1)]


def mesh(folder: str | Path, method: str, *products: str) -> Figure | None:
    """A row of cards per product, `cfg 2 x pipe 2`, of a method on stages; None where a run of them is not there."""
    runs = frame.runs(folder)
    runs = (
        runs[(runs.method == method) & (runs.status == "ok")].drop_duplicates("degrees").set_index("degrees")
    )
    if not set(products) <= set(runs.index):
        return None
    held = frame.ranks(folder)
    count = max(runs.loc[[*products]].devices)
    high = HEAD + CARD[1]
    width, height = LEFT + count * (CARD[0] + GAP), high * len(products) + 0.34
    with mpl.rc_context({**RC, "axes.grid": False}):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        for at, product in enumerate(products):
            run = runs.loc[product]
            assert isinstance(run, pd.Series)
            cards(axes, at * high, run, held[held.path == run.path], COLOUR.get(method, GREY))
        words = "filled is what the rank has. K, V are of all tokens; a gap among tokens is the border of two patches"
        words = f"{label(method)}: {words}."
        axes.text(0.08, height - 0.16, words, fontsize=7.5, color=GREY, va="center")
    return figure


def cards(axes: mpl.axes.Axes, top: float, run: pd.Series, ranks: pd.DataFrame, colour: str) -> None:
    """The ranks of one run, under its degrees and the groups that communicate."""
    degrees = frame.parallel(run.path)
    layers = [numbers(text) for text in ranks.layers]
    total = max(max(own, default=0) for own in layers) + 1
    patches = degrees.get("pipe", 1) if pd.isna(run.patches) else int(run.patches)
    listed = [
        f"{axis}: {', '.join('–'.join(map(str, group)) for group in groups(degrees, axis))}"
        for axis in degrees
    ]
    axes.text(0.08, top + 0.2, str(run.name), fontsize=10.5, weight="bold", color=colour, va="center")
    axes.text(
        LEFT,
        top + 0.2,
        f"ranks that communicate  {';  '.join(listed)}",
        fontsize=7.5,
        color=GREY,
        va="center",
    )
    for rank, (own, row) in enumerate(zip(layers, ranks.to_dict("records"), strict=True)):
        x, y = LEFT + rank * (CARD[0] + GAP), top + HEAD - 0.14
        where = ", ".join(f"{axis} {index}" for axis, index in place(degrees, rank).items())
        axes.text(x, y + 0.02, f"rank {rank}", fontsize=8.5, weight="bold", va="center")
        axes.text(x + CARD[0], y + 0.02, where, fontsize=7, color=GREY, ha="right", va="center")
        for line, part in enumerate(parts(degrees, rank, own, total, patches)):
            level = y + 0.16 + line * ROW * 1.12
            bar(axes, x, level, part, colour)
            if rank == 0:
                axes.text(
                    LEFT - 0.14, level + ROW / 2 - 0.02, part.name, fontsize=7.5, ha="right", va="center"
                )
        counted = f"params {mib(row['param_bytes'])} MiB, K, V {mib(row['kv_bytes'])} MiB"
        axes.text(x, y + 0.16 + 4 * ROW * 1.12 + 0.1, counted, fontsize=6.5, color=GREY, va="center")


def bar(axes: mpl.axes.Axes, x: float, y: float, part: Part, colour: str) -> None:
    """One part as segments across a card, with a gap between groups."""
    apart = 0.05
    each = (CARD[0] - apart * (len(part.groups) - 1)) / sum(part.groups)
    number = 0
    for group in part.groups:
        for _ in range(group):
            face = colour if number in part.own else EMPTY
            edge = "white" if number in part.own else pale(GREY, 0.7)
            box = Rectangle((x, y), each, ROW - 0.06, facecolor=face, edgecolor=edge, linewidth=0.6)
            axes.add_patch(box)
            if part.name == "guidance branches":
                ink = "white" if number in part.own else GREY
                words = ("negative", "prompt")[number]
                axes.text(
                    x + each / 2, y + ROW / 2 - 0.03, words, fontsize=6, color=ink, ha="center", va="center"
                )
            x += each
            number += 1
        x += apart
