"""Predictions beside published numbers: one table, the statistics over it, and the check that none of them is fitted.

A row of the record (records/published) has `row_id` (`latency.csv:15`), `cluster`, `devices`, `method`, `resolution`,
`status` (ok, oom, skipped or failed), `predicted_s`, `missing_bytes`, `patches`, `calibrated_on` (the rows that the
cluster's device and links were fitted on), and the doubts `flags`, `duplicate_of`, `contradicted_by`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from analysis.evidence.published import read, stated
from analysis.presentation.style import in_order, label
from analysis.records.committed import PREDICTIONS
from analysis.records.study import load_study, plain_rows

EAGER = "eager"
LARGE = 2048
APART = 0.1
"""Two methods are in an order when their published latencies differ by more than this share of the smaller."""

CUTS = {"all": "all rows", "unflagged": "not in doubt", "once": "each number once"}
"""Over which rows a statistic is taken: all; those whose source is not in doubt; of these each number once."""

Fitted = dict[str, set[str]]
"""Cluster -> the rows its profile was fitted on."""


def load(folder: str | Path) -> list[dict[str, Any]]:
    """The predictions of a record."""
    return plain(load_study(Path(folder)).rows)


def plain(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain Python, lists included."""
    return [
        {key: value.tolist() if hasattr(value, "tolist") else value for key, value in row.items()}
        for row in plain_rows(rows)
    ]


def load_joined(results: Path, record: str = PREDICTIONS) -> pd.DataFrame:
    """The committed predictions, joined with the published rows."""
    return joined(load(results / record), results / "published")


def joined(predictions: list[dict[str, Any]], folder: str | Path) -> pd.DataFrame:
    """One row a prediction with its published row beside it.

    `error` is (predicted - published) / published; a video has no `resolution`; `printed_warmup` is the W of the
    source, which may be one less than the synchronous steps that it ran (`warmup`); `role` is `prediction`,
    `calibration` for a row that its own cluster was fitted on, or `repeats calibration` for the same number printed
    elsewhere. A product of degrees (its record has `product`) is no row of one method: its `method` is `hybrid` or
    `USP`.
    Raises KeyError for a row that is not among the published ones, ValueError when that row says another number.
    """
    published, origins = read(Path(folder)), trace_origins(predictions)
    rows = []
    for one in predictions:
        row = published[one["row_id"]]
        timed = row["metric"] == "latency"
        seconds = row.value if timed and not row.oom else None
        if (seconds, timed and row.oom) != (one["published_s"], one["published_oom"]):
            text = f"{one['row_id']} is {row['value']}, and its prediction was made for {one['published_s']}"
            raise ValueError(text)
        predicted = one["predicted_s"] if one["status"] == "ok" else None
        rows.append(
            {
                **{key: one[key] for key in ("row_id", "model", "cluster", "resolution", "devices")},
                "method": row.product if one.get("product") else one["method"],
                "size": row["resolution"],
                "setting": row["setting"],
                "steps": one.get("steps"),
                "printed_warmup": stated("W", row["setting"]),
                "warmup": one.get("warmup"),
                "patches": one.get("patches"),
                "published_s": seconds,
                "predicted_s": predicted,
                "decode_s": one.get("decode_s") or 0.0,
                "error": predicted / seconds - 1 if predicted and seconds else None,
                "published_oom": one["published_oom"],
                "predicted_oom": one["status"] == "oom",
                "own_oom": one.get("own_oom", one["status"] == "oom"),
                "host": one.get("host", "eager"),
                "third_party": row.third_party,
                "borrowed": one.get("borrowed") or "",
                "missing_bytes": one.get("missing_bytes"),
                "status": one["status"],
                "role": row_role(one["row_id"], set(one["calibrated_on"]), origins),
                "doubt": "; ".join(one["flags"]),
                "duplicate_of": one["duplicate_of"],
                "contradicted_by": " ".join(one.get("contradicted_by") or []),
                "digitized": one.get("digitized", False),
                "source": row["source"],
            }
        )
    kinds = dict.fromkeys(["published_s", "predicted_s", "error"], "float64")
    return pd.DataFrame(rows).astype(kinds | {"printed_warmup": "Int64", "resolution": "Int64"})


def trace_origins(predictions: list[dict[str, Any]]) -> dict[str, str]:
    """Row id -> the row that it repeats, or itself."""
    return {one["row_id"]: one["duplicate_of"] or one["row_id"] for one in predictions}


def row_role(row_id: str, fitted: set[str], origins: dict[str, str]) -> str:
    """What a row is to a profile that was fitted on the rows `fitted`."""
    if row_id in fitted:
        return "calibration"
    numbers = {origins.get(fit, fit) for fit in fitted}
    return "repeats calibration" if origins.get(row_id, row_id) in numbers else "prediction"


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that errors are counted over: predictions with a number on both sides."""
    return table[(table.role == "prediction") & table.error.notna()]


def groups(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The statistics of errors by name, each with exactly the rows it is made of.

    Rows of compiled models, of other people's code and of videos are groups of their own.
    """
    found = in_order(scored(table).sort_values("resolution", kind="stable"))
    every = found[found.resolution.notna()]
    rows = every[(every.host == EAGER) & ~every.third_party]
    yield "overall", rows
    for method, part in rows.groupby("method", sort=False):
        yield label(str(method)), part
    for size, part in rows.groupby("resolution"):
        yield f"{size} px", part
    for cluster, part in rows.groupby("cluster"):
        yield str(cluster), part
    for key, part in rows.groupby(["method", "resolution"], sort=False):
        yield f"{label(str(key[0]))}, {key[1]} px", part
    large = (rows.method == "pipefusion") & (rows.resolution >= LARGE)
    yield f"{label('pipefusion')}, {LARGE} px and more", rows[large]
    yield "compiled", every[(every.host != EAGER) & ~every.third_party]
    yield "third party, eager", every[(every.host == EAGER) & every.third_party]
    yield "third party, compiled", every[(every.host != EAGER) & every.third_party]
    yield "videos", found[found.resolution.isna()]


def cuts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each of `CUTS`."""
    sound = rows[rows.doubt == ""]
    return {"all": rows, "unflagged": sound, "once": sound[sound.duplicate_of.isna()]}


def statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Median absolute error of each group: over all rows, without flagged ones, and without repeated ones too."""
    lines = []
    for name, rows in groups(table):
        line: dict[str, Any] = {"statistic": name}
        for cut, part in cuts(rows).items():
            line |= {f"rows_{cut}": len(part), f"error_{cut}": part.error.abs().median()}
        lines.append(line)
    return pd.DataFrame(lines)


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Two methods on the same model, hardware, resolution and N whose published latencies are apart, and whether
    the predicted ones are in the same order; eager, and from the papers, both."""
    found, rows = [], rows[(rows.host == EAGER) & ~rows.third_party]
    for _, cell in scored(rows).groupby(["model", "cluster", "resolution", "devices"]):
        for one, two in combinations(cell.to_dict("records"), 2):
            low, high = sorted((one, two), key=lambda row: row["published_s"])
            if one["method"] != two["method"] and high["published_s"] > (1 + APART) * low["published_s"]:
                right = low["predicted_s"] < high["predicted_s"]
                found.append({"faster": low["row_id"], "slower": high["row_id"], "right": right})
    return pd.DataFrame(found, columns=["faster", "slower", "right"])


def confusion(table: pd.DataFrame) -> dict[tuple[bool, bool], int]:
    """(out of memory as published, as predicted) -> how many settings; a prediction that failed counts nowhere."""
    rows = memory_rows(table)
    found = list(zip(rows.published_oom, rows.predicted_oom, strict=True))
    return {
        (was, predicted): found.count((was, predicted))
        for was in (True, False)
        for predicted in (True, False)
    }


def memory_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that the verdict on memory is made of: published latencies, and OOM in the place of one."""
    timed = table.published_oom | table.published_s.notna()
    return table[(table.role == "prediction") & table.status.isin(["ok", "oom"]) & timed]


def uses(table: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Every statistic and verdict, with the ids of the rows it uses."""
    for name, rows in groups(table):
        yield f"error of {name}", list(rows.row_id)
    ordered = pairs(table)
    yield "order of methods", [*ordered.faster, *ordered.slower]
    yield "out of memory", list(memory_rows(table).row_id)


def check(
    predictions: list[dict[str, Any]], folder: str | Path, profiles: Fitted | None = None
) -> str | None:
    """One line that says which statistic uses a row its own cluster was fitted on; None when none does.

    What a cluster was fitted on is all that any of its predictions says, and what `profiles` says today: a profile
    that is fitted anew makes the predictions of before worthless.
    """
    try:
        table = joined(predictions, folder)
    except (KeyError, ValueError) as error:
        return f"{error} (no such published row)" if isinstance(error, KeyError) else str(error)
    fitted: Fitted = {cluster: set(rows) for cluster, rows in (profiles or {}).items()}
    for one in predictions:
        fitted.setdefault(one["cluster"], set()).update(one["calibrated_on"])
    origins = trace_origins(predictions)
    cluster_of = dict(zip(table.row_id, table.cluster, strict=True))
    for name, used in uses(table):
        for row_id in used:
            cluster = cluster_of[row_id]
            if row_role(row_id, fitted[cluster], origins) != "prediction":
                return f"{name} uses {row_id}, which {cluster} was calibrated on"
    return None


def read_profiles(conf: str | Path) -> Fitted:
    """What the clusters in `conf/cluster` are fitted on: their own rows and those of their device and links."""

    def rows(path: Path) -> set[str]:
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        found = set(content.get("calibrated_on") or [])
        for entry in content.get("defaults") or []:
            for group, name in entry.items() if isinstance(entry, dict) else []:
                part = Path(conf) / str(group).split("@")[0].strip("/") / f"{name}.yaml"
                found |= rows(part) if part.exists() else set()
        return found

    return {path.stem: rows(path) for path in sorted((Path(conf) / "cluster").glob("*.yaml"))}
