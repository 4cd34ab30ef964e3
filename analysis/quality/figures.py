"""Figures of quality against one choice at a time: W, the number of patches, and S, guidance and scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, GREY, MARKER, ORDER, RC, in_order, label
from analysis.quality.axes import SIDES, broken, logarithmic
from analysis.quality.record import (
    INTERVAL,
    SETTING,
    SYMBOLS,
    TASK,
    Measure,
    floors,
    measures,
    model_words,
    of_study,
    same_task,
    setting_name,
    settings,
    task_words,
)

SHOWN = [("latent_error", "serial"), ("frechet", "serial"), ("frechet", "real")]
FEW = [("latent_error", "serial"), ("feature_distance", "serial")]
"""The panels, one for each network that measured it; `FEW` of pictures that are too few for a Fréchet distance."""
SOURCE = "results/records/quality"
Known = tuple[pd.DataFrame, pd.DataFrame]
"""The settings of a record, and its floors."""
COLUMN = {"steps": "steps S", "guidance_scale": "guidance scale", "scheduler": "scheduler"}


@dataclass(frozen=True)
class Line:
    """The settings of one method that differ in what the x axis shows only."""

    method: str
    name: str
    rows: pd.DataFrame


def warmup(record: dict[str, Any]) -> Figure | None:
    """Distance to serial and to real pictures against W, a line a method; W = S is exact."""
    rows = of_study(settings(record), "warmup")
    title = "Quality against the number of synchronous steps"
    return sheet(record, [(rows, "warmup", "synchronous steps W")], title)


def patches(record: dict[str, Any]) -> Figure | None:
    """The same against the number of patches: PipeFusion's M, and N of the methods whose devices are the patches."""
    table = settings(record)
    bands = of_study(table, "devices")
    rows = pd.concat([of_study(table, "patches"), bands[bands.method.isin(["naive_patch", "distrifusion"])]])
    rows["pieces"] = rows.patches.fillna(rows.devices)
    words = "patches: M of PipeFusion, N of the others" if len(bands) else "patches M"
    return sheet(record, [(rows, "pieces", words)], "Quality against the number of patches")


def steps(record: dict[str, Any]) -> Figure | None:
    """Small multiples: a row each for S, guidance and scheduler."""
    table, rows = settings(record), []
    for study, column in (("steps", "steps"), ("guidance", "guidance_scale"), ("scheduler", "scheduler")):
        found = of_study(table, study)
        serial = same_task(table[(table.method == "serial") & ~table.key.isin(found.key)], found)
        rows.append((pd.concat([found, serial]), column, COLUMN[column]))
    return sheet(record, rows, "Quality against steps, guidance and scheduler")


def sheet(record: dict[str, Any], sweeps: list[tuple[pd.DataFrame, str, str]], title: str) -> Figure | None:
    """A panel a measure of one sweep (its settings, the column on the x axis, its name); of several a row a measure.

    There is no panel of a measure that has one setting of a sweep alone.
    """
    sweeps = [sweep for sweep in sweeps if len(sweep[0])]
    every = pd.concat([rows for rows, _, _ in sweeps]) if sweeps else pd.DataFrame()
    shown = _shown(record, sweeps)
    if not shown:
        return None
    down, across = (len(shown), len(sweeps)) if len(sweeps) > 1 else (1, len(shown))
    with mpl.rc_context({**RC, "axes.titlesize": 9}):
        page = Sheet(down, across, 3.0, 1.9, **SIDES)
        known = settings(record), floors(record)
        figure, grid = page.open()
        handles: dict[str, Artist] = {}
        panels = [axes for axes_row in grid for axes in axes_row]
        for axes, (measure, (rows, x, name)) in zip(panels, product(shown, sweeps), strict=True):
            handles = panel(axes, known, rows, x, measure) | handles
            axes.set_xlabel(name)
            axes.set_ylabel(f"{measure.looks.name}, {measure.looks.unit or 'no unit'}")
            axes.set_title(measure.name)
        order = sorted(handles.values(), key=lambda handle: _place(str(handle.get_label())))
        page.close(figure, f"{title} (measured)", order, caption(record, every, shown))
    return figure


def _shown(record: dict[str, Any], sweeps: list[tuple[pd.DataFrame, str, str]]) -> list[Measure]:
    """The measures of `SHOWN`, or of `FEW`, that several settings of every sweep have."""

    def several(measure: Measure) -> bool:
        """Serial's own pictures are no settings that differ."""
        known = [rows[~rows.exact & rows[measure.key].notna()][x] for rows, x, _ in sweeps]
        return all(values.nunique() > 1 for values in known)

    there = [one for one in measures(record) if sweeps and several(one)]
    wanted = SHOWN if any(one.metric == "frechet" for one in there) else FEW
    return [one for pair in wanted for one in there if (one.metric, one.against) == pair]


def _place(name: str) -> int:
    """In the legend methods come in their order, floors last."""
    places = [at for at, method in enumerate(ORDER) if name.startswith(label(method))]
    return places[0] if places else len(ORDER)


def panel(axes: Axes, known: Known, rows: pd.DataFrame, x: str, measure: Measure) -> dict[str, Artist]:
    """Lines, serial, and floors apart from them, of one measure; returns what the legend says of them."""
    handles: dict[str, Artist] = {}
    values = distance(rows, measure)
    beside = list(references(known, rows, measure))
    levels = [float(row[measure.key]) for _, _, row in beside]
    bottom = logarithmic(axes, [*values, *levels]) if measure.against == "serial" else None
    low, high = rows[f"{measure.key}_low"].min(), rows[f"{measure.key}_high"].max()
    apart = []  # floors are measured values, no limits: they have a place of their own on the x axis
    for (name, look, row), level in zip(beside, levels, strict=True):
        floor = "marker" in look
        if floor and bottom is None and level < low - (high - low):  # drawn, it would flatten every line
            text = f"floor (below, at {measure.looks.write(level)}): {row['what']}"
            handles[text] = Line2D([], [], label=text, linestyle="none")
            continue
        handles[name] = Line2D([], [], label=name, **look)
        if floor:
            apart.append((look, row, level))
        else:
            axes.axhspan(row[f"{measure.key}_low"], row[f"{measure.key}_high"], color="#EEEEEE", zorder=0)
            axes.axhline(level, **look, zorder=1)
    places, ends, behind = ticks(axes, rows, x, len(apart))
    for at, (look, row, level) in zip(behind, apart, strict=True):
        off = [[level - row[f"{measure.key}_low"]], [row[f"{measure.key}_high"] - level]]
        axes.errorbar(at, level, off, capsize=2.5, elinewidth=0.9, **look, zorder=3)
    drawn = [line for line in lines(rows, x) if distance(line.rows, measure).notna().any()]
    for at, line in enumerate(drawn):
        aside = 0.12 * (at - (len(drawn) - 1) / 2)  # side by side where they would hide each other
        handles[line.name] = _draw(axes, line, measure, places, ends, aside, bottom, x)
    return handles


def ticks(
    axes: Axes, rows: pd.DataFrame, x: str, floors: int
) -> tuple[dict[Any, float], set[Any], list[float]]:
    """Value -> its place, one beside the other; the values that stand apart, behind a break (W = S); and the places of
    so many floors behind the last."""
    ends = set(rows[rows.warmup == rows.steps].warmup) if x == "warmup" else set()
    values = sorted(set(rows[x].dropna()))
    places = {value: at + (0.7 if value in ends else 0.0) for at, value in enumerate(values)}
    words = [
        value if isinstance(value, str) else f"S = {value:g}" if value in ends else f"{value:g}"
        for value in values
    ]
    last = max(places.values())
    wide = 1.5 if ends else 1.0  # `S = 20` needs more room than a number
    behind = [last + wide * at for at in range(1, floors + 1)]
    axes.set_xticks([*places.values(), *behind], [*words, *["floor"] * floors])
    axes.set_xlim(-0.5, last + wide * floors + 0.5)
    for value in ends:
        broken(axes, places[value] - 0.85)
    return places, ends, behind


def distance(rows: pd.DataFrame, measure: Measure) -> pd.Series:
    """The values of a measure; 0 where it is a distance to serial and the pictures are serial's own."""
    others = rows.exact & (rows.method != "serial")
    values = rows[measure.key].astype(float)
    return values.mask(others, 0.0) if measure.of_equal else values


def lines(rows: pd.DataFrame, x: str) -> Iterator[Line]:
    """The settings as lines, methods in their order: one a method, more where something else differs too."""
    for method, part in in_order(rows.dropna(subset=[x])).groupby("method", sort=False):
        others = [key for key in SETTING if key != x and part[key].nunique(dropna=False) > 1]
        groups = part.groupby(others, dropna=False) if others and not part[x].is_unique else [((), part)]
        for _, group in groups:
            first = group.iloc[0].to_dict()
            hidden = {key: None for key in SYMBOLS if group[key].nunique(dropna=False) > 1}
            yield Line(str(method), setting_name(first | hidden), group.sort_values(x))


def _draw(
    axes: Axes, line: Line, measure: Measure, places: dict[Any, float], ends: set[Any], aside: float,
    bottom: float | None, x: str,
) -> Artist:  # fmt: skip
    """A line with its intervals. What is 0 is hollow and at the bottom; neither it nor W = S is joined to the rest."""
    words = line.rows[x].map(lambda value: isinstance(value, str)).any()
    look: dict[str, Any] = {"color": COLOUR.get(line.method, GREY), "marker": MARKER.get(line.method, "o")}
    look |= {"markersize": 8 if look["marker"] == "*" else 5, "linewidth": 1.3, "label": line.name}
    apart: dict[str, Any] = look | {"linestyle": "none"}
    values = distance(line.rows, measure)
    at = line.rows[x].map(places).astype(float) + aside
    zero = (values <= 0) & (bottom is not None)
    end = line.rows[x].isin(list(ends))
    for part, style in ((~zero & ~end, apart if words else look), (~zero & end, apart)):
        rows, middle = line.rows[part], values[part]
        low = (middle - rows[f"{measure.key}_low"].fillna(middle)).clip(lower=0)
        high = (rows[f"{measure.key}_high"].fillna(middle) - middle).clip(lower=0)
        axes.errorbar(at[part], middle, [low, high], capsize=2.5, elinewidth=0.9, **style, zorder=3)
    if bottom is not None and zero.any():
        axes.plot(at[zero], zero[zero] * bottom, **apart, markerfacecolor="white", clip_on=False, zorder=4)
    return Line2D([], [], **(apart if words else look))


def references(
    known: Known, rows: pd.DataFrame, measure: Measure
) -> Iterator[tuple[str, dict[str, Any], dict[Any, Any]]]:
    """What stands beside the lines, each with its name and look: floors, and serial where x has no place for it."""
    table, below = known
    markers = dict(zip(dict.fromkeys(below.what), cycle("Dshv")))
    below = below[below.px.isin(rows.px) & below[measure.key].notna()]
    for row in below.to_dict("records"):
        look = {"color": GREY, "marker": markers[row["what"]], "markersize": 5, "linestyle": "none"}
        yield f"floor: {row['what']}", look, row
    if "serial" not in set(rows.method) and len(rows[TASK].drop_duplicates()) == 1:
        for row in same_task(table[table.method == "serial"], rows).to_dict("records"):
            if not pd.isna(row[measure.key]):
                yield label("serial"), {"color": COLOUR["serial"], "linewidth": 0.9}, row


def caption(record: dict[str, Any], rows: pd.DataFrame, shown: list[Measure]) -> str:
    """Model, task, n and references of each measure, what is not drawn and why, and the source."""
    rows = rows.drop_duplicates("key")
    counts = []
    for one in shown:
        n = sorted(set(rows[f"{one.key}_n"].dropna()))
        against = sorted(set(rows[f"{one.key}_n_reference"].dropna()))
        text = f"{one.name}: n = {_range(n)} pictures a point"
        counts.append(text + (f" against {_range(against)}" if against else ""))
    parts = [
        f"{model_words(record)}; {task_words(rows)}",
        *counts,
        f"Bars: {record.get('interval', INTERVAL)}",
    ]
    gone = rows[rows.status != "ok"].to_dict("records")
    parts += [f"Not drawn: {setting_name(row)} ({row['status']}: {row['reason']})" for row in gone]
    return f"{'. '.join(parts)}. Source: {SOURCE}, commit {record['git_commit'][:8]}."


def _range(values: list[int]) -> str:
    return f"{values[0]}–{values[-1]}" if len(values) > 1 else "".join(map(str, values)) or "–"
