"""The same prompts and noise, a row a setting: what staleness does to a picture, and what W mends of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.presentation.style import COLOUR, GREY, RC, in_order, label
from analysis.quality.figures import SOURCE
from analysis.quality.record import (
    Measure,
    choices,
    measures,
    model_words,
    of_study,
    same_task,
    settings,
    task_words,
    usual_task,
)
from analysis.runs.figures import Pictures

WARMUPS = (0, 1, 2, 4)
COLUMNS = 4
CAPTIONED = ("latent_error", "psnr_db")


def figure(record: dict[str, Any], folder: Path, amplify: int = 4) -> Figure | None:
    """Serial above, then each displaced method by W: the picture, and `amplify` times its difference to serial's."""
    rows = shown(record)
    prompts = record["texts"][:COLUMNS]
    if rows.empty or not prompts:
        return None
    captioned = [one for one in measures(record) if one.metric in CAPTIONED]
    scale = Normalize(0, 1 / amplify)
    with mpl.rc_context({**RC, "axes.grid": False}):
        sheet = Pictures(rows=len(rows), columns=len(prompts), side=0.8, label=2.0, foot=1.15)
        first = rows.iloc[0]
        theirs = pictures(folder, first.sampled_as, len(prompts)) if first.method == "serial" else []
        for at, row in enumerate(rows.to_dict("records")):
            ours = pictures(folder, row["sampled_as"], len(prompts))
            _label(sheet, at, row, captioned, record)
            if not ours:
                why = f"{row['status']}: {row['reason']}" if row["status"] != "ok" else "no pictures kept"
                sheet.text(
                    sheet.x(0, 0.05), sheet.y(at) + sheet.side / 2, why, ha="left", fontsize=8, color=GREY
                )
            for column, picture in enumerate(ours):
                sheet.square(picture, at, column)
                if len(theirs) == len(ours) and row["method"] != "serial":
                    gap = np.abs(picture.astype(float) - theirs[column]).max(axis=-1)
                    sheet.square(gap, at, column, right=True, norm=scale)
        _frame(sheet, prompts, amplify, scale)
        words = f"{model_words(record)}; {task_words(rows[rows.status == 'ok'])}; same prompts and noise in every row."
        sheet.text(0.12, sheet.height - 0.3, words, ha="left", fontsize=8)
        source = f"Numbers are means over n pictures to serial's. Source: {SOURCE}, commit {record['git_commit'][:8]}."
        sheet.text(0.12, sheet.height - 0.14, source, ha="left", fontsize=8)
    return sheet.figure


def shown(record: dict[str, Any]) -> pd.DataFrame:
    """Serial, methods that are not serial's pictures by W, and what of the main study did not end well."""
    every = settings(record)
    swept = of_study(every, "warmup")
    rows = usual_task(swept if len(swept) else of_study(every, "main"))
    serial = same_task(every[every.method == "serial"], rows)
    main = of_study(every, "main")
    rows = rows[~rows.exact & (rows.warmup.isin(WARMUPS) | rows.warmup.isna())]
    rows = pd.concat([main[main.status != "ok"], rows]).drop_duplicates("key")
    return pd.concat([serial, in_order(rows[rows.method != "serial"].sort_values("warmup", kind="stable"))])


def pictures(folder: Path, key: str, count: int) -> list[np.ndarray]:
    """The first pictures of a setting, each [H, W, 3] in 0..1; none when one is not there."""
    paths = [folder / "images" / key / f"{at}.png" for at in range(count)]
    return [imread(path)[..., :3] for path in paths] if all(path.exists() for path in paths) else []


def _frame(sheet: Pictures, prompts: list[str], amplify: int, scale: Normalize) -> None:
    """Headings of the columns, and what the colours of a difference mean."""
    for column, prompt in enumerate(prompts):
        sheet.text(sheet.x(column, 1.0), 0.24, f"“{prompt}”", ha="center", fontsize=9)
        sheet.text(sheet.x(column, 0.5), 0.46, "picture", ha="center", fontsize=7.5, color=GREY)
        sheet.text(sheet.x(column, 1.5), 0.46, f"|Δ| × {amplify}", ha="center", fontsize=7.5, color=GREY)
    bar = sheet.axes(sheet.x(0, 0), sheet.height - 0.92, 3 * sheet.side, 0.09)
    sheet.figure.colorbar(ScalarMappable(scale, "magma"), cax=bar, orientation="horizontal", extend="max")
    bar.tick_params(labelsize=7.5, length=2, pad=1)
    bar.set_xlabel("|Δ| to serial of the channel that differs most, pixels in 0..1", fontsize=7.5, labelpad=1)


def _label(
    sheet: Pictures, at: int, row: dict[Any, Any], captioned: list[Measure], record: dict[str, Any]
) -> None:
    """Method, its N, M, W, and how far its pictures are from serial's; beside serial, which methods are it."""
    x, middle = sheet.label - 0.1, sheet.y(at) + sheet.side / 2
    colour = COLOUR.get(row["method"], "black")
    sheet.text(x, middle - 0.26, label(row["method"]), ha="right", weight="bold", color=colour)
    lines = [choices(row, "{} = {}", ", ")]
    for one in captioned:
        if not pd.isna(row[one.key]):
            unit = f" {one.looks.unit}" if one.looks.unit else ""
            lines.append(f"{one.looks.name} {one.looks.write(row[one.key])}{unit}, n = {row[f'{one.key}_n']}")
    for line, words in enumerate(_same(record) if row["method"] == "serial" else lines):
        sheet.text(x, middle - 0.1 + 0.14 * line, words, ha="right", fontsize=7.5)


def _same(record: dict[str, Any]) -> list[str]:
    """Lines that say which methods of the main study have serial's pictures, and how well that was checked."""
    rows = of_study(settings(record), "main")
    rows = in_order(rows[rows.exact & (rows.method != "serial")])
    names = [label(method) for method in rows.method]
    lines = [", ".join(names[at : at + 2]) for at in range(0, len(names), 2)]
    checked = rows.equal_error.max()
    return ["and, as measured, of", *lines] + (
        [] if pd.isna(checked) else [f"(differences up to {checked:.1e})"]
    )
