"""One colour and one marker per method, the same in every figure, and how a figure is written.

Colours are Okabe and Ito's, told apart by colour-blind readers. In grey the marker or the place tells methods
apart, and lightness (parameters full, KV pale) what is stacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import colors
from matplotlib.figure import Figure


class Look(NamedTuple):
    """A method as it is written and drawn."""

    label: str
    colour: str
    marker: str


LOOKS = {
    "serial": Look("Serial", "#000000", "o"),
    "sync_pipeline": Look("Sync pipeline", "#56B4E9", "v"),
    "tensor": Look("Tensor parallel", "#E69F00", "s"),
    "ulysses": Look("Ulysses", "#009E73", "D"),
    "ring": Look("Ring", "#B8A800", "P"),
    "naive_patch": Look("Naive patch", "#7F7F7F", "x"),
    "pcpp": Look("PCPP", "#CC79A7", "p"),
    "distrifusion": Look("DistriFusion", "#0072B2", "^"),
    "pipefusion": Look("PipeFusion", "#D55E00", "*"),
}
"""One line a method, in the order of all tables and figures; experiments/methods.py has the same methods."""
ORDER = [*LOOKS]
COLOUR = {method: look.colour for method, look in LOOKS.items()}
MARKER = {method: look.marker for method, look in LOOKS.items()}
LABEL = {method: look.label for method, look in LOOKS.items()}
CPU_NOTE = "CPU, ranks nothing"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
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


def label(method: str) -> str:
    """A method's name as written in figures and tables."""
    return LABEL.get(method, method)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order methods always have; one we do not know comes last."""
    place = {method: at for at, method in enumerate(ORDER)}
    return rows.sort_values(
        "method", key=lambda names: names.map(place).fillna(len(ORDER)), kind="stable"
    ).reset_index(drop=True)


def save(figure: Figure, folder: str | Path, name: str, dpi: int = 160) -> list[Path]:
    """Write NAME.png and NAME.svg, the same bytes every time."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with mpl.rc_context(RC):
        figure.savefig(png, dpi=dpi, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
