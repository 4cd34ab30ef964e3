"""Tables over one folder of runs, one function each, and how one is written: csv in raw units, md to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd

from analysis import fidelity, frame
from analysis.record import load_record
from analysis.style import in_order, label

Columns = dict[str, tuple[str, Callable[..., str]]]
"""Column of a table -> its heading, and how a cell is written."""

MIB = 2**20
HELD = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "peak_bytes", "sent_bytes"]
METHOD_COLUMNS = ["method", "devices", "product", "patches", "warmup", "status", "reason", "latency_s"]
METHOD_COLUMNS += [
    "spread_s",
    "latency_ratio",
    *HELD[:-1],
    "sent_bytes_per_step",
    "relative_error",
    "psnr_db",
    "path",
]


def methods(*folders: str | Path) -> pd.DataFrame:
    """One row a run: latency in seconds and over serial, the fullest rank's bytes, distance to serial.

    ``*_bytes`` are the largest over the run's ranks, each taken on its own; ``sent_bytes_per_step`` is the
    busiest rank's, for all pictures of the run together.
    """
    runs, held = frame.runs(*folders), frame.ranks(*folders)
    if runs.empty:
        return runs
    runs = fidelity.to_serial(runs)
    fullest = held.groupby("path")[HELD].max() if not held.empty else pd.DataFrame(columns=HELD)
    runs = runs.join(fullest, on="path")
    runs["sent_bytes_per_step"] = runs.sent_bytes / runs.steps
    runs = runs.astype(dict.fromkeys([*HELD[:-1], "devices"], "Int64"))
    return in_order(runs)[METHOD_COLUMNS]


def devices(*folders: str | Path, method: str | None = None) -> pd.DataFrame:
    """One row a rank: layers, bytes held, shares of the model's parameters, bytes sent, seconds waited.

    ``model_share`` is of all parameters, ``block_share`` of those in the blocks; both as fractions of what
    the serial run of the same task holds, and missing when there is none.
    """
    runs, held = frame.runs(*folders), frame.ranks(*folders)
    if held.empty:
        return held
    serial = held.path.map(fidelity.to_serial(runs).set_index("path").serial_path)
    whole = held.groupby("path")[["param_bytes", "block_param_bytes"]].max().reindex(serial)
    held["model_share"] = held.param_bytes / whole.param_bytes.to_numpy()
    held["block_share"] = held.block_param_bytes / whole.block_param_bytes.to_numpy()
    return in_order(held if method is None else held[held.method == method])


def fullest(table: pd.DataFrame) -> pd.DataFrame:
    """Of a devices table, the most that any rank of each run holds, sends and waits, each column on its own."""
    if table.empty:
        return table
    most = ["layer_count", "param_bytes", "model_share", "block_share", "kv_bytes", "sent_bytes", "wait_s"]
    own = ["path", "method", "devices", "product"]
    return table.groupby(own, sort=False, as_index=False, dropna=False)[most].max()


def methods_text(table: pd.DataFrame) -> pd.DataFrame:
    """The methods table as words to read, units in the headings."""
    said = table.status.where(table.reason.isna(), table.status + ": " + table.reason.astype(str))
    return as_text(
        table.assign(status=said, ranks=ranks_of(table)),
        {
            "method": ("method", label),
            "ranks": ("ranks", str),
            "latency_s": ("latency s", _digits(2)),
            "latency_ratio": ("/ serial", _digits(2)),
            "param_bytes": ("params MiB", mib),
            "kv_bytes": ("KV MiB", mib),
            "peak_bytes": ("peak MiB", mib),
            "sent_bytes_per_step": ("sent MiB/step", mib),
            "relative_error": ("latents vs serial", small),
            "psnr_db": ("mean PSNR dB", _digits(1)),
            "status": ("status", str),
        },
    )


def devices_text(table: pd.DataFrame) -> pd.DataFrame:
    """The per-device table as words to read, units in the headings."""
    columns: Columns = {"method": ("method", label), "rank": ("device", str), "layers": ("layers", str)}
    return as_text(table, columns | AMOUNTS)


def fullest_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table of fullest ranks as words to read, units in the headings."""
    columns: Columns = {
        "method": ("method", label),
        "ranks": ("ranks", str),
        "layer_count": ("layers", str),
    }
    return as_text(table.assign(ranks=ranks_of(table)), columns | AMOUNTS)


def ranks_of(table: pd.DataFrame) -> pd.Series:
    """How many ranks share a run; of a product the degrees, `cfg 2 x pipe 2`."""
    return table["product"].where(table["product"].notna(), table.devices.astype(str))


def bench(path: str | Path) -> pd.DataFrame:
    """One row a case of a bench.json: median and extremes in seconds, ratio to serial, share of its bound."""
    rows = pd.DataFrame(load_record(Path(path))["rows"])
    times = rows.pop("seconds")
    rows["median_s"], rows["min_s"], rows["max_s"] = times.map(median), times.map(min), times.map(max)
    return rows.assign(share_of_bound=rows.ratio / rows.bound)


def bench_text(table: pd.DataFrame) -> pd.DataFrame:
    """The benchmark as words to read."""
    return as_text(
        table,
        {
            "case": ("case", str),
            "median_s": ("median s", _digits(2)),
            "min_s": ("min s", _digits(2)),
            "max_s": ("max s", _digits(2)),
            "ratio": ("× serial", _digits(3)),
            "bound": ("bound", _digits(3)),
            "share_of_bound": ("of bound", percent),
        },
    )


def worlds(path: str | Path) -> pd.DataFrame:
    """One row a method of a worlds.json: median seconds in each world, and over the wall clock."""
    rows = pd.DataFrame(load_record(Path(path))["rows"])
    times = rows.pop("seconds")
    for world in ("local", "sim", "plan"):
        rows[f"{world}_s"] = [median(one[world]) for one in times]
    return in_order(rows)


def worlds_text(table: pd.DataFrame) -> pd.DataFrame:
    """The three worlds as words to read."""
    columns: Columns = {"method": ("method", label)}
    columns |= {
        f"{world}_s": (f"{name} s", _digits(2))
        for world, name in (("local", "wall clock"), ("sim", "virtual"), ("plan", "planned"))
    }
    columns |= {"sim_ratio": ("virtual / wall", _digits(3)), "plan_ratio": ("planned / wall", _digits(3))}
    return as_text(table, columns)


def markdown(text: pd.DataFrame) -> str:
    """A table of strings as GitHub markdown; the first column to the left, the others to the right."""
    rows = [list(text.columns), ["---"] + ["---:"] * (len(text.columns) - 1), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def save(table: pd.DataFrame, text: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write NAME.csv (raw numbers in bytes and seconds) and NAME.md (words)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    # Paths, hosts and process numbers say where a run was, not what was found.
    table.drop(columns=["path", "host", "pid"], errors="ignore").to_csv(csv, index=False, lineterminator="\n")
    md.write_text(markdown(text))
    return [csv, md]


def as_text(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Columns with a heading and a way to write a cell; a cell without a value is a dash, never a zero."""
    cells = {}
    for key, (heading, write) in columns.items():
        cells[heading] = ["–" if pd.isna(cell) else write(cell) for cell in table[key]]
    return pd.DataFrame(cells)


def _digits(digits: int) -> Callable[[float], str]:
    return lambda value: "∞" if value == float("inf") else f"{value:.{digits}f}"


def mib(value: float) -> str:
    """Bytes in MiB, whole ones from 100 on."""
    return f"{value / MIB:.2f}" if value < 100 * MIB else f"{value / MIB:.0f}"


def percent(share: float) -> str:
    """As everywhere in text: 12.3 %."""
    return f"{100 * share:.1f} %"


def small(value: float) -> str:
    """A distance: two digits."""
    return "0" if value == 0 else f"{value:.1e}"


AMOUNTS: Columns = {
    "param_bytes": ("params MiB", mib),
    "model_share": ("of the model", percent),
    "block_share": ("of the blocks", percent),
    "kv_bytes": ("KV MiB", mib),
    "sent_bytes": ("sent MiB", mib),
    "wait_s": ("waited s", _digits(2)),
}
