"""Published points beside predictions: each number once, what it is to the line beside it, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from analysis.evidence.predictions import row_role
from analysis.presentation.looks import method_order
from analysis.presentation.style import COLOUR, GREY, MARKER, pale

KEYS = ["cluster", "resolution", "method", "devices"]
FILLS = {
    "prediction": "published (filled)",
    "doubt": "published, source in doubt (pale)",
    "calibration": "published, the profile is fitted on it (hollow)",
}
"""What a published point is to the line beside it -> what the legend says of its marker."""


def published(record: dict[str, Any]) -> pd.DataFrame:
    """The published points, each number once; `role` is one of `FILLS`, `published_s` missing where it is `OOM`."""
    rows = record["published"]
    origins = {one["row_id"]: one["duplicate_of"] or one["row_id"] for one in rows}
    fitted = {name: set(facts["calibrated_on"]) for name, facts in record["clusters"].items()}
    roles = []
    for one in rows:
        role = row_role(one["row_id"], fitted[one["cluster"]], origins)
        roles.append("doubt" if one["flags"] and role == "prediction" else role)
    columns = [*KEYS, "row_id", "published_s", "oom", "digitized", "flags", "role"]
    table = pd.DataFrame(rows, columns=columns[:-1]).assign(role=roles)
    table = table.assign(flags=table["flags"].map("; ".join)).astype({"published_s": float})
    # By role, so that of one number the row that was fitted on stays, and not its repetition.
    table = table.sort_values("role", kind="stable").drop_duplicates([*KEYS, "published_s"])
    table = table.assign(role=table.role.str.removeprefix("repeats "))
    return table.sort_values(KEYS, key=method_order, kind="stable", ignore_index=True)


def marker(method: str, role: str) -> dict[str, Any]:
    """A published point: the method's marker, filled as `FILLS` says."""
    colour = COLOUR[method]
    fill = {"prediction": colour, "doubt": pale(colour, 0.65), "calibration": "white"}[role]
    size = 9.0 if MARKER[method] == "*" else 5.5
    edge = {"markerfacecolor": fill, "markeredgecolor": colour, "markeredgewidth": 1.0}
    return {"marker": MARKER[method], "markersize": size, "linestyle": "none", "zorder": 4} | edge


def fills(roles: Sequence[str]) -> list[Artist]:
    """The legend of published points: what the fill of a marker means."""
    inside: dict[str, Any] = {"prediction": GREY, "doubt": pale(GREY, 0.65), "calibration": "white"}
    look: dict[str, Any] = {"marker": "s", "markersize": 5.5, "linestyle": "none", "markeredgecolor": GREY}
    return [
        Line2D([], [], label=text, markerfacecolor=inside[role], **look)
        for role, text in FILLS.items()
        if role in roles
    ]
