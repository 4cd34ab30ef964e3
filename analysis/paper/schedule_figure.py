"""The schedule as a picture: lanes of jobs, and below them the K, V buffer of one device job by job."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from analysis.paper.schedule import WHOLE, Schedule, filled, fresh_share, seen
from analysis.presentation.columns import percent
from analysis.presentation.style import GREY, RC, label, pale
from analysis.runs.timeline import bubble, ideal_bubble

WIDTH, LEFT, RIGHT = 10.6, 0.95, 0.15  # inches, as all lengths here
HEAD, LANE, CELL, BETWEEN, FOOT = 0.82, 0.45, 0.3, 0.84, 0.96
BOX: dict[str, Any] = {"ha": "center", "va": "center_baseline", "clip_on": True}
SYNCHRONOUS: dict[str, Any] = {"facecolor": "#DADADA", "edgecolor": "white", "linewidth": 0.8}
LINE: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 1.1, "color": "black"}
LINE |= {"zorder": 5}


def figure(plan: Schedule, spans: pd.DataFrame, source: str) -> Figure:
    """Above a lane a device; below the K, V buffer of one device, a column a job, under that job."""
    run = plan.run
    rank, patches = min(1, run.devices - 1), run.patches or 1
    lanes, cells = LANE * run.devices, CELL * patches
    height = HEAD + lanes + BETWEEN + cells + FOOT
    span = WIDTH - LEFT - RIGHT
    with mpl.rc_context({**RC, "axes.grid": False, "hatch.linewidth": 0.5}):
        sheet = Figure(figsize=(WIDTH, height))
        upper = sheet.add_axes((LEFT / WIDTH, 1 - (HEAD + lanes) / height, span / WIDTH, lanes / height))
        lower = sheet.add_axes((LEFT / WIDTH, FOOT / height, span / WIDTH, cells / height))
        _lanes(upper, plan, rank)
        _buffer(lower, plan, rank)
        for place, words in enumerate(head(plan, spans)):
            look: dict[str, Any] = {"fontsize": 8.5} if place else {"fontsize": 12, "weight": "bold"}
            y = 1 - (0.17 + 0.2 * place + 0.05 * min(place, 1)) / height
            sheet.text(0.1 / WIDTH, y, words, va="center", **look)
        sheet.legend(
            handles=legend(), loc="upper left", bbox_to_anchor=(LEFT / WIDTH, (FOOT - 0.06) / height),
            ncols=4, borderaxespad=0, fontsize=8, handlelength=1.6,
        )  # fmt: skip
        sheet.text(
            0.1 / WIDTH, 0.09 / height, note(plan, rank, source), fontsize=8, color=GREY, linespacing=1.3
        )
    return sheet


def _lanes(axes: Axes, plan: Schedule, rank: int) -> None:
    """The jobs of every device, and the way of patch 0 from stage to stage and back."""
    run, end = plan.run, int(plan.jobs.end.max())
    for job in plan.jobs.to_dict("records"):
        place = (job["start"], job["rank"] - 0.37), job["end"] - job["start"], 0.74
        look = SYNCHRONOUS if job["patch"] == WHOLE else patch_look(job["patch"], run.patches, True)
        axes.add_patch(Rectangle(*place, **look))
        words = (
            f"step {job['step']}\nwhole image" if job["patch"] == WHOLE else f"{job['step']}.{job['patch']}"
        )
        ink = "black" if job["patch"] == WHOLE else ink_on(shade(job["patch"], run.patches))
        axes.text((job["start"] + job["end"]) / 2, job["rank"], words, fontsize=8, color=ink, **BOX)
    places = plan.jobs.set_index(["rank", "step", "patch"])
    for sender, receiver in plan.messages:
        if sender[2] in (0, WHOLE) and receiver[2] in (0, WHOLE):
            side = 0.37 if receiver[0] > sender[0] else -0.37
            ends = (places.end[sender], sender[0] + side), (places.start[receiver], receiver[0] - side)
            axes.add_patch(FancyArrowPatch(*ends, shrinkA=0, shrinkB=0, **LINE))
    axes.set_xlim(0, end)
    axes.set_ylim(run.devices - 0.5, -0.5)
    names = [
        f"device {at}" + (f"\nlayers {run.layers[at]}" if run.layers else "") for at in range(run.devices)
    ]
    axes.set_yticks(range(run.devices), names, fontsize=8)
    axes.get_yticklabels()[rank].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xticks(range(0, end + 1, run.patches or 1))
    axes.tick_params(axis="x", labelsize=8, length=2.5, pad=2)
    axes.set_xlabel("micro-steps: the time of one patch in one stage", fontsize=8, labelpad=1)


def _buffer(axes: Axes, plan: Schedule, rank: int) -> None:
    """A column a job: of which step K, V of each patch are when it attends. Its own patch is framed."""
    run, table = plan.run, seen(plan, rank)
    patches = run.patches or 1
    own = plan.jobs.loc[table.index].to_dict("records")
    for job, steps in zip(own, table.to_numpy(), strict=True):
        for patch, step in enumerate(steps):
            wide = job["end"] - job["start"]
            place = (job["start"], patch - 0.5), wide, 1.0
            if np.isnan(step):
                axes.add_patch(Rectangle(*place, facecolor="white", edgecolor="#BBBBBB", linewidth=0.5))
                continue
            whole, fresh = job["patch"] == WHOLE, step == job["step"]
            axes.add_patch(Rectangle(*place, **(SYNCHRONOUS if whole else patch_look(patch, patches, fresh))))
            ink = "black" if whole or not fresh else ink_on(shade(patch, patches))
            axes.text(job["start"] + wide / 2, patch, f"{step:.0f}", fontsize=8, color=ink, **BOX)
        if job["patch"] != WHOLE:
            frame = (job["start"], job["patch"] - 0.5), job["end"] - job["start"], 1.0
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor="black", linewidth=1.3, zorder=4))
    axes.set_xlim(0, int(plan.jobs.end.max()))
    axes.set_ylim(patches - 0.5, -0.5)
    axes.set_yticks(range(patches), [f"patch {patch}" for patch in range(patches)], fontsize=8)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    title = f"What device {rank} attends to, job by job: the number is the step that K, V of a patch are from"
    axes.set_title(title, fontsize=9, weight="bold", pad=7)


def shade(patch: int, patches: int | None) -> tuple[float, float, float]:
    """A colour a patch, from dark to light, as in the timelines."""
    red, green, blue = mpl.colormaps["viridis"](0.08 + 0.89 * patch / max((patches or 1) - 1, 1))[:3]
    return float(red), float(green), float(blue)


def patch_look(patch: int, patches: int | None, fresh: bool) -> dict[str, Any]:
    """Full when fresh; pale and hatched when from the step before."""
    colour = mpl.colors.to_hex(shade(patch, patches))
    edge = {"edgecolor": "white", "linewidth": 0.8}
    if fresh:
        return edge | {"facecolor": colour}
    return edge | {"facecolor": pale(colour, 0.72), "hatch": "////", "hatchcolor": pale(colour, 0.25)}


def ink_on(colour: tuple[float, float, float]) -> str:
    """White on dark, black on light."""
    return "white" if colour[1] < 0.6 else "black"


def head(plan: Schedule, spans: pd.DataFrame) -> list[str]:
    """Sizes; how full the micro-steps are, beside the closed form; how full the run's own seconds were."""
    run = plan.run
    sizes = f"N = {run.devices}   M = {run.patches}   W = {run.warmup}   S = {run.steps}"
    patches = run.patches or 1
    effective = 1 - ideal_bubble(run.devices, patches, run.steps, run.warmup)
    form = "M(S−W) / (M(S−W)+N−1)" if patches >= run.devices else "M(S−W) / (N(S−W)+M−1), as M < N,"
    all_steps = 1 - ideal_bubble(run.devices, patches, run.steps, 0)
    busy = 1 - bubble(spans, run.image_s, run.warmup).after_warmup
    return [
        f"{label(run.method)}: the schedule of a run      {sizes}",
        f"After the warm-up jobs fill {percent(filled(plan))} of the micro-steps; closed form {form} = "
        f"{percent(effective)}  (with W = 0, as the paper has it: {percent(all_steps)})",
        f"In the run's seconds ranks compute {percent(busy)} of the time after the warm-up: {run.clock}, {run.model}, "
        "stages and jobs of unequal time",
    ]


def legend() -> list[Patch]:
    grey = "#777777"
    old: dict[str, Any] = {"facecolor": pale(grey, 0.72), "hatch": "////", "hatchcolor": grey}
    return [
        Patch(label="synchronous step: all patches at once", **SYNCHRONOUS),
        Patch(facecolor=grey, label="fresh: K, V of this step"),
        Patch(edgecolor="white", linewidth=0, label="one step old", **old),
        Patch(facecolor="white", edgecolor="black", linewidth=1.3, label="the patch that the job computes"),
    ]


def note(plan: Schedule, rank: int, source: str) -> str:
    """What is drawn, the freshness of one device, and where it is from."""
    m = plan.run.patches or 1
    return (
        "Above, a box is a job, step.patch; its place follows from the order in the timeline and from what the ledger "
        "says was received. Arrows: the way of patch 0,\nfrom stage to stage, and its new latent back to device 0. "
        f"Below: after the warm-up {percent(fresh_share(plan, rank))} of the patches that device {rank} attends to are "
        f"fresh; (M+1)/(2M) = {percent((m + 1) / (2 * m))}.\n{source}"
    )
