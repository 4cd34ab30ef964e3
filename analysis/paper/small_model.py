"""A column of panels: what the small model loses along a sweep, beside the published seconds of a large one."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from analysis.presentation.sheet import blank
from analysis.quality import figures as sweeps
from analysis.quality.record import floors, measures, settings


def quality(
    column: list[Axes], record: dict[str, Any], found: pd.DataFrame, key: str, words: str
) -> list[Artist]:
    """Latent error, and the distance of features, of the settings `found` against `key`, which is written as `words`.

    Returns what the legend says.
    """
    wanted = [one for one in measures(record) if (one.metric, one.against) in sweeps.FEW]
    known, shown = (settings(record), floors(record)), dict[str, Artist]()
    for at, axes in enumerate(column):
        if at >= len(wanted) or found.empty:
            blank(axes)
            continue
        shown |= sweeps.panel(axes, known, found, key, wanted[at])
        axes.set_title(f"measured, {record['model']['name']}: {wanted[at].looks.name}")
        axes.set_xlabel(words)
    for name, handle in shown.items():
        handle.set_label(f"quality: {name}")
    return list(shown.values())
