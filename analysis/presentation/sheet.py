"""A sheet of panels with a title above, and the legend and a note below."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.presentation.style import GREY


@dataclass(frozen=True)
class Sheet:
    """A grid of panels, all in inches: constrained layout does not give a grid the same places twice."""

    rows: int
    columns: int
    width: float
    height: float
    left: float = 1.15
    right: float = 0.2
    across: float = 0.7
    down: float = 0.62
    head: float = 0.66
    foot: float = 0.46
    letters: float = 17  # of the note, in an inch

    def open(self) -> tuple[Figure, list[list[Axes]]]:
        figure = Figure(figsize=(self.full, 1.0))
        return figure, figure.subplots(self.rows, self.columns, squeeze=False).tolist()

    @property
    def full(self) -> float:
        return self.left + self.columns * self.width + (self.columns - 1) * self.across + self.right

    def close(self, figure: Figure, title: str, handles: Sequence[Artist], words: str) -> None:
        """Title above; below the legend and the grey note, for which the figure grows."""
        text = textwrap.fill(words, int(self.full * self.letters), break_long_words=False)
        longest = max((len(str(handle.get_label())) for handle in handles), default=0)
        columns = max(1, min(len(handles), math.floor(self.full / (0.066 * longest + 0.55))))
        note = 0.145 * (text.count("\n") + 1) + 0.12
        below = note + 0.19 * math.ceil(len(handles) / columns) + 0.1
        panels = self.rows * self.height + (self.rows - 1) * self.down
        full = self.head + panels + self.foot + below
        figure.set_size_inches(self.full, full)
        figure.suptitle(title, fontsize=12, y=1 - 0.08 / full, va="top")
        if handles:
            figure.legend(
                handles=handles, loc="lower center", ncols=columns, columnspacing=1.4,
                bbox_to_anchor=(0.5, note / full), borderaxespad=0,
            )  # fmt: skip
        figure.text(0.12 / self.full, 0.07 / full, text, fontsize=8, va="bottom", linespacing=1.3, color=GREY)
        figure.subplots_adjust(
            left=self.left / self.full, right=1 - self.right / self.full, wspace=self.across / self.width,
            bottom=(below + self.foot) / full, top=1 - self.head / full, hspace=self.down / self.height,
        )  # fmt: skip


def blank(axes: Axes, words: str = "") -> None:
    """A panel without data, and why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=8)
