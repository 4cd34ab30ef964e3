"""The Gantt chart of a run: one lane a rank, compute coloured by patch, exposed wait hatched, idle white.

Patches go from dark to light in one colour scale that colour-blind readers and a grey printer keep in order; what is
not one patch (synchronous steps, methods without patches) is grey with dots. Above is the whole run, below some steps.
"""

from __future__ import annotations

from math import inf
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.presentation.columns import percent
from analysis.presentation.style import GREY, RC
from analysis.runs.timeline import Run, headline, jobs, shares

WIDTH, LEFT, RIGHT = 10.0, 1.42, 0.78  # inches, as all lengths here
ABOVE, BELOW, FOOT = 0.52, 0.46, 0.62
WHOLE: dict[str, Any] = {"facecolor": "#D2D2D2", "hatch": "...", "edgecolor": "#8A8A8A"}
WAIT: dict[str, Any] = {"facecolor": "#FFFFFF", "hatch": "//////", "edgecolor": "#B0B0B0"}
LEGIBLE = 0.16  # a job this wide has room for the number of its patch
MANY = 4000  # more shapes than this are stored as pixels in the SVG


def gantt(run: Run, timeline: pd.DataFrame, steps: range | None = None) -> Figure:
    """The chart; ``steps`` go in the lower panel (default: the first ones after the warm-up, if they need it)."""
    timeline = timeline.assign(patch=timeline.patch.where(timeline.step >= run.warmup, -1))
    colours = _colours(run.patches)
    lane = float(np.clip(2.8 / run.devices, 0.09, 0.34))
    span = WIDTH - LEFT - RIGHT
    if steps is None and not _legible(run, timeline, span):
        steps = first_steps(run, timeline)
        start, end = _window(timeline, steps)
        if end - start > 0.6 * run.image_s:
            steps = None  # hardly larger than in the whole
    panels = [None] if steps is None else [None, steps]
    tall = lane * run.devices
    words = headline(run, timeline)
    head = 0.18 + 0.2 * len(words)
    height = head + len(panels) * (ABOVE + tall + BELOW) + FOOT
    with mpl.rc_context({**RC, "axes.grid": False, "hatch.linewidth": 0.5}):
        figure = Figure(figsize=(WIDTH, height))
        _head(figure, words, height)
        for place, chosen in enumerate(panels):
            top = head + place * (ABOVE + tall + BELOW) + ABOVE
            box = (LEFT / WIDTH, 1 - (top + tall) / height, span / WIDTH, tall / height)
            axes = figure.add_axes(box)
            window = (0.0, run.image_s) if chosen is None else _window(timeline, chosen)
            _panel(axes, run, timeline, window, colours, chosen, lane)
            if chosen is None and steps is not None:
                start, end = np.clip(_window(timeline, steps), 0, run.image_s)
                frame = (start, -0.5), end - start, run.devices
                axes.add_patch(Rectangle(*frame, fill=False, lw=1.6, ec="black", clip_on=False, zorder=5))
        _key(figure, run, timeline, colours, height)
    return figure


def first_steps(run: Run, timeline: pd.DataFrame) -> range:
    """As many steps after the warm-up as can be read, at least one; without patches the last before, too."""
    first = min(run.warmup, run.steps - 1)
    if run.patches is None:
        first = max(first - 1, 0)
        mine = timeline[(timeline["rank"] == 0) & (timeline.kind == "compute") & (timeline.step >= first)]
        spans = mine.groupby("step").size().cumsum()
        return range(first, first + max(int((spans[:3] <= 60).sum()), 1))
    period = max(run.patches, run.devices)
    return range(first, min(first + max((44 - run.devices) // period, 1), run.steps))


def _legible(run: Run, timeline: pd.DataFrame, span: float) -> bool:
    rows = jobs(timeline)
    rows = rows[rows.patch >= 0]
    if rows.empty:
        return run.steps <= 2
    return bool((rows.end_s - rows.start_s).median() / run.image_s * span >= LEGIBLE)


def _window(timeline: pd.DataFrame, steps: range) -> tuple[float, float]:
    """From where the first rank begins the steps to where the last rank ends them, and a little margin."""
    rows = jobs(timeline)
    rows = rows[rows.step.isin(steps)]
    if rows.empty:
        raise ValueError(f"no compute in steps {steps.start}:{steps.stop}")
    start, end = float(rows.start_s.min()), float(rows.end_s.max())
    return start - 0.01 * (end - start), end + 0.01 * (end - start)


def _colours(patches: int | None) -> ListedColormap:
    """A colour a patch. The scale stops short of black and of the yellow that paper swallows."""
    scale: Colormap = mpl.colormaps["viridis"]
    return ListedColormap(
        scale(np.linspace(0.08, 0.97, patches)) if patches and patches > 1 else scale([0.3])
    )


def _panel(
    axes: Axes,
    run: Run,
    timeline: pd.DataFrame,
    window: tuple[float, float],
    colours: ListedColormap,
    steps: range | None,
    lane: float,
) -> None:
    """Lanes, step borders and both time axes of one stretch of the run."""
    unit, name = (1e3, "ms") if run.image_s < 1 else (1.0, "s")
    inch = (WIDTH - LEFT - RIGHT) / (window[1] - window[0])
    shown = timeline[(timeline.end_s > window[0]) & (timeline.start_s < window[1])]
    shown = _joined(shown, ["rank", "kind", "step", "patch"])
    waits = _joined(
        shown.assign(kind="wait"), ["rank", "kind"]
    )  # under the compute, which hides what it covers
    _shapes(axes, waits, linewidth=0, **WAIT)
    compute = shown[shown.kind == "compute"]
    whole, bars = compute[compute.patch < 0], compute[compute.patch >= 0]
    _shapes(axes, whole, **{**_whole(run), **_edge(whole, inch, 0.4)})
    own, edge = colours(bars.patch.to_numpy(dtype=int)), _edge(bars, inch, 0.5)
    if edge["snap"] is False:  # between bars that share a pixel what is below shines through
        _shapes(axes, _joined(bars, ["rank", "kind"]), facecolor=colours(colours.N // 2), **edge)
    _shapes(axes, bars, facecolor=own, edgecolor="white", **edge)
    _patch_numbers(axes, bars, window, colours, lane)

    axes.set_xlim(*window)
    axes.set_ylim(run.devices - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7.5, pad=2, length=2.5)
    every = max(1, round(0.14 / lane))
    ranks = range(0, run.devices, every)
    layers = [f"  layers {run.layers[rank]}" if rank < len(run.layers) else "" for rank in ranks]
    axes.set_yticks(ranks, [f"rank {rank}{own}" for rank, own in zip(ranks, layers, strict=True)])
    axes.tick_params(axis="y", length=0, pad=4)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds * unit:.6g}")
    axes.set_xlabel(f"time from the start of the image, {name}", fontsize=8, labelpad=2)

    what = "The whole run" if steps is None else _step_words(steps) + " (framed above)"
    begins = _begins(timeline, window)
    top = axes.secondary_xaxis("top")
    top.spines["top"].set_visible(False)
    places, bottom = list(begins.values()), run.devices - 0.5
    axes.vlines(places, -0.5, 0.5, color="black", lw=1.0, zorder=3)
    axes.vlines(places, 0.5, bottom, color="black", lw=0.5, linestyles=(0, (1.5, 1.5)), zorder=3)
    named = _numbered(begins, inch)
    top.set_xticks(list(named.values()), [str(step) for step in named])
    top.tick_params(labelsize=7.5, pad=1, length=2.5)
    right, up = RIGHT / (WIDTH - LEFT - RIGHT), 1 / (lane * run.devices)
    axes.text(-0.008, 1 + 0.1 * up, "step", fontsize=7.5, ha="right", va="center", transform=axes.transAxes)
    axes.text(0, 1 + 0.33 * up, what, fontsize=9, weight="bold", va="center", transform=axes.transAxes)
    if steps is None:
        look: dict[str, Any] = {"fontsize": 7.5, "ha": "right", "va": "center", "color": GREY}
        words = "compute"
        axes.text(1 + 0.95 * right, 1 + 0.1 * up, words, transform=axes.transAxes, **look)
        rows = shares(timeline, run.image_s)
        for rank, share in zip(rows["rank"], rows.compute_share, strict=True):
            if rank % every == 0:
                at = 1 - (rank + 0.5) / run.devices
                axes.text(1 + 0.95 * right, at, percent(share), transform=axes.transAxes, **look)


def _whole(run: Run) -> dict[str, Any]:
    """Dots tell synchronous steps from patches; where all is the whole image, there is nothing to tell."""
    return WHOLE if run.patches else {**WHOLE, "hatch": None, "facecolor": "#B4B4B4"}


def _joined(spans: pd.DataFrame, look: list[str]) -> pd.DataFrame:
    """Spans of a rank that touch and look the same, as one: fewer shapes, and no seams in what was one job."""
    spans = spans.sort_values(["rank", "start_s"], kind="stable")
    last = spans.shift()
    touching = (spans.start_s - last.end_s).abs() < 1e-9
    piece = (~((spans[look] == last[look]).all(axis=1) & touching)).cumsum().rename("piece")
    kept = {name: (name, "first") for name in look}
    return spans.groupby(piece).agg(**kept, start_s=("start_s", "first"), end_s=("end_s", "last"))


def _edge(bars: pd.DataFrame, inch: float, width: float) -> dict[str, Any]:
    """Narrow bars have no edge, which would make them look longer, and are not moved to whole pixels: what is too
    narrow to see must keep its share of ink."""
    typical = float((bars.end_s - bars.start_s).median()) * inch if len(bars) else 0.0
    return {"linewidth": width if typical > 0.05 else 0, "snap": None if typical > 0.02 else False}


def _shapes(axes: Axes, spans: pd.DataFrame, **look: Any) -> None:
    start, end = spans.start_s.to_numpy(), spans.end_s.to_numpy()
    upper, lower = spans["rank"].to_numpy() - 0.42, spans["rank"].to_numpy() + 0.42
    corners = np.stack([[start, upper], [end, upper], [end, lower], [start, lower]]).transpose(2, 0, 1)
    axes.add_collection(PolyCollection(list(corners), rasterized=len(spans) > MANY, **look), autolim=False)


def _patch_numbers(
    axes: Axes, bars: pd.DataFrame, window: tuple[float, float], colours: ListedColormap, lane: float
) -> None:
    """Numbers in the bars that have room for them."""
    size = min(7.0, 72 * lane * 0.5)
    if bars.empty or size < 5 or colours.N < 2:
        return
    inch = (WIDTH - LEFT - RIGHT) / (window[1] - window[0])
    room = (0.6 * size / 72 * len(str(colours.N - 1)) + 0.03) / inch
    for bar in bars.to_dict("records"):
        start, end = max(bar["start_s"], window[0]), min(bar["end_s"], window[1])
        if end - start > room:
            red, green, blue, _ = colours(bar["patch"])
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            look: dict[str, Any] = {"color": "white" if dark else "black", "fontsize": size}
            look |= {"ha": "center", "va": "center_baseline"}
            axes.text((start + end) / 2, bar["rank"] + 0.02, str(bar["patch"]), **look)


def _begins(timeline: pd.DataFrame, window: tuple[float, float]) -> dict[int, float]:
    """Where rank 0 begins each step, within the window."""
    rows = jobs(timeline)
    begins = rows[(rows["rank"] == 0) & (rows.step >= 0)].groupby("step").start_s.min()
    inside = begins[(begins >= window[0]) & (begins <= window[1])]
    return {int(str(step)): float(start) for step, start in inside.items()}


def _numbered(begins: dict[int, float], inch: float) -> dict[int, float]:
    """The steps whose number has room: round ones where they are close, all where they are not."""
    room = 0.24 / inch
    for stride in (1, 2, 5, 10, 20, 50, 100, 1000):
        round_ones = {step: start for step, start in begins.items() if step % stride == 0}
        if len(round_ones) < 2 or min(np.diff(list(round_ones.values()))) > room:
            break
    steps, places = list(begins), [-inf, *begins.values(), inf]
    apart = np.diff(places) > room
    return round_ones | {step: begins[step] for at, step in enumerate(steps) if apart[at] and apart[at + 1]}


def _step_words(steps: range) -> str:
    return f"Steps {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"Step {steps[0]}"


def _head(figure: Figure, lines: list[str], height: float) -> None:
    for place, words in enumerate(lines):
        look: dict[str, Any] = {"fontsize": 9 if place else 12, "weight": "bold" if place < 2 else "normal"}
        y = 1 - (0.2 + 0.2 * place + (0.05 if place else 0)) / height
        figure.text(0.12 / WIDTH, y, words, va="center", **look)


def _key(figure: Figure, run: Run, timeline: pd.DataFrame, colours: ListedColormap, height: float) -> None:
    """What the looks mean, with the scale of patches."""
    grey = (timeline.kind == "compute") & (timeline.patch < 0)
    handles = []
    if grey.any():
        words = "compute, whole image (synchronous)" if run.patches else "compute"
        handles.append(Patch(linewidth=0.4, label=words, **_whole(run)))
    handles.append(Patch(linewidth=0.4, label="exposed wait", **WAIT))
    handles.append(Patch(facecolor="white", edgecolor="#B0B0B0", linewidth=0.4, label="idle"))
    place = (1 - 0.1 / WIDTH, 0.4 / height)
    look: dict[str, Any] = {"ncols": len(handles), "fontsize": 8, "borderaxespad": 0, "handlelength": 2.2}
    figure.legend(handles=handles, loc="center right", bbox_to_anchor=place, **look)
    if not run.patches:
        return
    wide = min(0.3 * run.patches, 3.6)
    strip = figure.add_axes((LEFT / WIDTH, 0.33 / height, wide / WIDTH, 0.14 / height))
    norm = BoundaryNorm(np.arange(run.patches + 1) - 0.5, run.patches) if run.patches > 1 else None
    strip.imshow(np.arange(run.patches)[None], cmap=colours, norm=norm, aspect="auto")
    every = int(np.ceil(run.patches / (wide / 0.22)))
    strip.set_xticks(range(0, run.patches, every))
    strip.set_yticks([])
    strip.tick_params(labelsize=7, length=0, pad=2)
    strip.spines[:].set_visible(False)
    words = "compute, patch"
    strip.text(-0.06 / wide, 0.5, words, fontsize=8, ha="right", va="center", transform=strip.transAxes)
