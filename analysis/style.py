"""One colour and one marker per method, the same in every figure, and how a figure is written.

Colours are Okabe and Ito's, told apart by colour-blind readers. In grey the marker or the place tells methods
apart, and lightness (parameters full, KV pale) what is stacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import colors
from matplotlib.figure import Figure

ORDER = [
    "serial",
    "sync_pipeline",
    "tensor",
    "ulysses",
    "ring",
    "naive_patch",
    "distrifusion",
    "pipefusion",
]
COLOUR = {
    "serial": "#000000",
    "sync_pipeline": "#56B4E9",
    "tensor": "#E69F00",
    "ulysses": "#009E73",
    "ring": "#B8A800",
    "naive_patch": "#7F7F7F",
    "distrifusion": "#0072B2",
    "pipefusion": "#D55E00",
}
MARKER = dict(zip(ORDER, ["o", "v", "s", "D", "P", "x", "^", "*"], strict=True))
LABEL = {
    "serial": "Serial",
    "sync_pipeline": "Sync pipeline",
    "tensor": "Tensor parallel",
    "ulysses": "Ulysses",
    "ring": "Ring",
    "naive_patch": "Naive patch",
    "distrifusion": "DistriFusion",
    "pipefusion": "PipeFusion",
}
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
