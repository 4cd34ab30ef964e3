"""How far methods are from serial: rows of `measure=distance`, a picture each, as settings and break-even points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

SETTING = ["model", "method", "parallel", "patch_axis", "devices", "patches", "warmup", "steps"]
VALUES = ["relative_error", "pixel_error", "psnr_db", "flicker", "motion", "feature_error", "feature_flicker"]
REASONS = ["status", "reason"]
STILL = "stands still"
STATED = (0.10, 0.05, 0.02)
"""Distances of the latents from serial's that break-even points are asked for."""


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: means over its pictures."""
    by_setting = rows.groupby([*SETTING, *REASONS], sort=False, dropna=False)
    found = by_setting[[name for name in VALUES if name in rows]].mean()
    return found.assign(pictures=by_setting.picture.count()).reset_index()


def pieces(table: pd.DataFrame) -> pd.Series:
    """What a setting cuts the image into: M of PipeFusion, N of the others."""
    return table.patches.fillna(table.devices).astype(int)


def break_even(rows: pd.DataFrame, stated: Sequence[float] = STATED) -> pd.DataFrame:
    """For each setting but S: the fewest steps from which on every measured S has errors of at most each distance.

    None where the largest S has more. S up to W, where all steps are synchronous, are left out.
    """
    table = means(rows[(rows.status == "ok") & (rows.steps > rows.warmup)])
    found = []
    for setting, part in table.groupby(
        [name for name in SETTING if name != "steps"], sort=False, dropna=False
    ):
        errors = part.set_index("steps").relative_error.sort_index(ascending=False)
        row: dict[str, Any] = dict(zip([name for name in SETTING if name != "steps"], setting, strict=True))
        for distance in stated:
            within = errors[(errors <= distance).cummin()]
            row[column(distance)] = int(within.index.min()) if len(within) else None
        found.append(row | {"smallest": errors.min(), "largest_steps": int(errors.index.max())})
    return pd.DataFrame(found)


def lines(table: pd.DataFrame, by: str) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Each method, each value of another column, and their rows, in the order of the table."""
    for (method, value), part in table.groupby(["method", by], sort=False):
        yield str(method), value, part


def column(distance: float) -> str:
    """The name of a stated distance's column."""
    return f"steps_{round(100 * distance)}"


def still(rows: pd.DataFrame) -> pd.Series:
    """Rows of clips in which by their prompt nothing moves."""
    return rows.prompt.str.endswith(STILL)
