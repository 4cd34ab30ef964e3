"""How a figure is drawn and written; the colours and markers of methods are in `analysis/presentation/looks.py`.

Colours are Okabe and Ito's, distinct for colour-blind readers. In grey the marker or the place tells methods
apart, and lightness (parameters full, KV pale) what is stacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import colors
from matplotlib.figure import Figure

from analysis.presentation.looks import COLOUR, LABEL, LOOKS, MARKER, ORDER, in_order, label, ordered

__all__ = ["COLOUR", "LABEL", "LOOKS", "MARKER", "ORDER", "in_order", "label", "ordered"]


GREY = "#555555"
CPU_NOTE = "CPU, ranks nothing"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # looking for ticks in its way takes a fourth of the drawing
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "pipefusion",  # ids in the SVG, so that a second run writes the same bytes
}


def pale(colour: str, amount: float) -> tuple[float, float, float]:
    """The colour mixed with white: 0 leaves it, 1 is white."""
    red, green, blue = colors.to_rgb(colour)
    return (red + (1 - red) * amount, green + (1 - green) * amount, blue + (1 - blue) * amount)


class Drawing(NamedTuple):
    """A figure as committed: NAME.png and NAME.svg, where NAME ends in `suffix`."""

    figure: Figure
    suffix: str = ""
    dpi: int = 160

    def write(self, folder: Path, name: str) -> list[Path]:
        """The files written."""
        return save(self.figure, folder, f"{name}{self.suffix}", self.dpi)


def drawings(figure: Figure | None) -> list[Drawing]:
    """The figure to be written; nothing where there is none."""
    return [] if figure is None else [Drawing(figure)]


def save(figure: Figure, folder: Path, name: str, dpi: int = 160) -> list[Path]:
    """Write NAME.png and NAME.svg, the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with mpl.rc_context(RC):
        figure.savefig(png, dpi=dpi, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
