"""Sinks: where results go besides their directory. A sink that fails costs one warning, never the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig, as_dict

if TYPE_CHECKING:
    import pandas as pd


SCALARS = ("status", "reason", "startup_s", "total_s", "git_commit")
MOST = ["param_bytes", "kv_bytes", "peak_bytes", "sent_bytes"]
"""Columns of the ranks of which the largest is a number of the run."""


@dataclass
class Summary:
    """What a sink gets: numbers to compare runs by, tables, pictures by what they are of. `group`: a sweep's name."""

    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    group: str | None = None


def log(cfg: RunConfig, folder: Path, summarise: Callable[[], Summary]) -> None:
    """Send the summary of `folder` to every sink that is on; an empty one is not sent."""
    if cfg.log.wandb.mode == "disabled":
        return
    try:
        what = summarise()
        if what.numbers or what.tables:
            to_wandb(cfg, folder, what)
    except Exception as error:  # whatever a service does, the run is done and recorded
        print(f"warning: wandb: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)


def run_summary(cfg: RunConfig, run_dir: Path, record: dict[str, Any], group: str | None = None) -> Summary:
    """One run of one method: scalars of the record, the most that any rank holds and sends, the ranks, the images."""
    import pandas as pd

    summary = Summary(f"{cfg.model.name}-{cfg.method.name}-{cfg.devices}", group=group)
    summary.numbers = {key: record.get(key) for key in SCALARS}
    hardware = record.get("hardware") or {}
    summary.numbers["hardware"] = hardware.get("gpu") or hardware.get("cpu")
    if record["status"] == "ok":
        label = "predicted_latency_s" if record.get("predicted") else "latency_s"
        summary.numbers[label] = record["latency_s"]["median"]
        summary.tables["ranks"] = ranks = pd.read_csv(run_dir / "ranks.csv")
        most = ranks.reindex(columns=MOST).max().dropna()
        summary.numbers |= {str(key): int(value) for key, value in most.items()}
        summary.pictures["images"] = sorted((run_dir / "images").glob("*.png"))
    return summary


def study_summary(cfg: RunConfig, folder: Path) -> Summary:
    """A measure of many runs: its rows, every CSV of its directory and every list of rows in its JSON are tables.

    Rows of (`setting`, `metric`, `against`, `network`, `value`), as quality has them, are numbers too, and
    images/SETTING/ are pictures.
    """
    import pandas as pd

    summary = Summary(f"{cfg.model.name}-{cfg.measure.name}")
    summary.tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    summary.tables |= {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("rows.parquet"))}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        for name, rows in record.items() if isinstance(record, dict) else ():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                summary.tables[f"{path.stem}/{name}"] = pd.json_normalize(rows)
    table = summary.tables.get("rows")
    if table is not None and "setting" in table:
        summary.tables["rows"], summary.numbers = table.drop(columns="values"), numbers(table)
        summary.pictures = {name: pictures(folder, name) for name in table.setting.dropna().unique()}
    return summary


def numbers(table: pd.DataFrame) -> dict[str, float]:
    """The values of metrics by what they are called and what they are of."""
    found = table[table.metric.notna() & table.value.notna()]
    columns = found[["metric", "against", "network", "what", "setting", "value"]]
    return {
        "/".join([" ".join(part for part in parts if isinstance(part, str)), setting]): value
        for *parts, setting, value in columns.itertuples(index=False, name=None)
    }


def pictures(folder: Path, key: str) -> list[Path]:
    """The pictures of one setting, none for one that was sampled as another."""
    return sorted((folder / "images" / key).glob("*.png"), key=lambda path: (len(path.stem), path.stem))


def to_wandb(cfg: RunConfig, folder: Path, summary: Summary) -> None:
    """One W&B run; offline, its files lie in `folder`/wandb."""
    import wandb

    options = cfg.log.wandb
    run = wandb.init(
        project=options.project,
        entity=options.entity,
        mode=options.mode,  # type: ignore[arg-type]
        tags=options.tags,
        name=summary.name,
        group=summary.group,
        config=as_dict(cfg),
        dir=folder,
        settings=wandb.Settings(console="off", silent=True),
    )
    try:
        run.summary.update(summary.numbers)
        run.log({name: wandb.Table(dataframe=plain(table)) for name, table in summary.tables.items()})
        run.log(
            {name: [wandb.Image(str(path)) for path in of] for name, of in summary.pictures.items() if of}
        )
    finally:
        run.finish()


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table as W&B wants it: one type per column (what is no number is text), None where there is no value."""
    text = table.select_dtypes(exclude=["number", "bool"])
    table = table.assign(**{str(name): text[name].map(str, na_action="ignore") for name in text})
    return table.astype(object).where(table.notna(), None)
