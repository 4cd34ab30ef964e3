"""How many steps staleness needs to be cheap, and what it does to clips that are cut over frames or over rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.methods import distance, distance_figures
from analysis.output import Output
from analysis.presentation.columns import COUNT, NUMBER, Column, Shown, percent, words
from analysis.presentation.looks import label
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table, table
from analysis.records.committed import BREAK_EVEN, DISTANCE_VIDEO, DISTANCE_VIDEO_LONG
from analysis.records.study import load_study

STEPS = [
    Column(distance.column(stated), f"S for {100 * stated:g} %", kind=COUNT) for stated in distance.STATED
]
ENDS = [
    Column("smallest", "smallest error", "%", NUMBER, percent),
    Column("largest_steps", "largest S", kind=COUNT),
]
BREAK_EVEN_NOTE = (
    "Errors are of the final latents against serial's, means over {pictures} pictures. S for 5 %: from this number of "
    "steps on no measured S has a larger error; – where the largest S has one. S = W, where nothing is stale, is left "
    "out. Measured S: {steps}."
)
VIDEO: Shown = [
    *(
        "method",
        "patch_axis",
        "devices",
        "patches",
        "warmup",
        "steps",
        "relative_error",
        "pixel_error",
        "psnr_db",
        "flicker",
        "feature_error",
        "feature_flicker",
    ),
    Column("still_error", "pixels, still clips", "%", NUMBER, percent),
    Column("moving_error", "pixels, moving clips", "%", NUMBER, percent),
]
VIDEO_NOTE = (
    "Means over {pictures} clips of {model}. Pixel error: root mean square of the error, pixels in 0..1; of still and "
    "of moving clips at the end. Flicker: the same of the error's change from one picture to the next. Feature error "
    "and feature flicker: both of what {network} sees in each picture, over the root mean square of serial's features. "
    "No Fréchet distance (FVD) is among them: it compares sets by their covariances, of which {pictures} clips say "
    "nothing."
)


def break_even(results: Path) -> list[Table | Drawing]:
    """The number of steps below which staleness costs more than a stated distance, by method and W; measured on the
    shipped models of pictures and of video, records/break_even."""
    rows = load_study(results / BREAK_EVEN).rows
    found = distance.break_even(rows)
    shown: Shown = ["model", "method", "devices", "patches", "warmup", *STEPS, *ENDS]
    note = BREAK_EVEN_NOTE.format(
        pictures=rows.picture.nunique(), steps=", ".join(str(steps) for steps in sorted({*rows.steps}))
    )
    return [
        table(found, words(found, shown), after=note),
        Drawing(distance_figures.error_against_steps(rows)),
    ]


def distance_video(results: Path) -> list[Table | Drawing]:
    """Distance to serial, flicker, and error by picture of clips whose patches are cut over frames or rows; measured on
    the shipped video model, records/distance_video, and of clips twice as long, records/distance_video_long."""
    record, longer = (load_study(results / name) for name in (DISTANCE_VIDEO, DISTANCE_VIDEO_LONG))
    steps = record.facts["config"]["steps"]
    return [
        clips_table(record.rows),
        clips_table(longer.rows)._replace(suffix="_long"),
        Drawing(distance_figures.errors_of_clips(record.rows, steps)),
    ]


def clips_table(rows: pd.DataFrame) -> Table:
    """A setting a row, means over clips; below it what could not be measured, and why."""
    found = distance.means(rows)
    for name, part in (
        ("still_error", rows[distance.still(rows)]),
        ("moving_error", rows[~distance.still(rows)]),
    ):
        of_part = distance.means(part)[[*distance.SETTING, "pixel_error"]]
        found = found.merge(of_part.rename(columns={"pixel_error": name}), on=distance.SETTING, how="left")
    ok = found.status == "ok"
    (network,) = rows.network.dropna().unique()
    note = VIDEO_NOTE.format(pictures=rows.picture.nunique(), model=rows.model.iloc[0], network=network)
    for row in found[~ok].to_dict("records"):
        note += f"\n\n{label(row['method'])} over {row['patch_axis']} was {row['status']}: {row['reason']}"
    return table(found, words(found[ok], VIDEO), after=note)


OUTPUTS = [Output(break_even, (BREAK_EVEN,)), Output(distance_video, (DISTANCE_VIDEO, DISTANCE_VIDEO_LONG))]
