"""From a published number to the run that predicts it, or to the reason why none does.

A row is called FILE:LINE, as in `latency.csv:15` (the header is line 1); columns in results/published/README.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from analysis.paper.facts import METHODS, MODELS, model_of, stated
from analysis.rows import Row, Rows, read_rows

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
FILES = ("latency", "scalability", "patch_sweep", "warmup", "quality_fid", "memory", "claims")

CLUSTERS = ("l20_pcie", "l40_pcie", "l40_pcie_ethernet", "a100_pcie", "a100_nvlink", "h100_nvlink", "t4_pcie")
SEARCHED = [2, 4, 8, 16, 32]
"""The numbers of patches that the sources say they searched where they name none."""


@dataclass(frozen=True)
class Target:
    """A run to predict, and the published seconds it is to be compared with (None where that is `OOM`)."""

    row_id: str
    model: str
    cluster: str
    devices: int
    method: str
    resolution: int
    steps: int
    warmup: int | None = None  # synchronous steps, of the two displaced methods
    split: str | None = None  # of PipeFusion, like `patches`: M as stated, or all candidates
    patches: list[int] = field(default_factory=list)
    parallel: dict[str, int] = field(default_factory=dict)  # degrees beside the method's own axis
    published_s: float | None = None
    oom: bool = False
    digitized: bool = False  # read off a curve: good to 5 %
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # why the source itself cannot be right
    duplicate_of: str | None = None  # an earlier row with the same setting and the same number
    contradicted_by: list[str] = field(default_factory=list)  # the same setting, another number


def published_rows(folder: Path = FOLDER) -> Rows:
    """All published rows that are numbers of a run."""
    return read_rows(folder / f"{name}.csv" for name in FILES)


def unpredicted(folder: Path = FOLDER) -> dict[str, str]:
    """The other rows: row id -> reason."""
    found = {row_id: target_of(row_id, row) for row_id, row in published_rows(folder).items()}
    return {row_id: reason for row_id, reason in found.items() if isinstance(reason, str)}


def target_of(row_id: str, row: Row) -> Target | str:
    """What has to be run for a row, or in one sentence why nothing is."""
    reason = not_a_run(row)
    if reason:
        return reason
    model = model_of(row)
    if model not in MODELS.values():
        return f"no model {model} here"
    for key in ("resolution", "steps", "n_devices"):
        if not row[key].isdecimal():
            return f"{key} is {row[key]!r}"
    devices = int(row["n_devices"])
    run = run_of(row, devices)
    if run is None:
        text = f"{row['method']} ({row['setting']}) is a hybrid of several methods"
        return f"{text}, whose degrees on {devices} devices are not stated"
    method, parallel = run
    cluster = cluster_of(row, devices)
    if cluster is None:
        return f"no profile of {row['hardware']} with {row['interconnect']}"
    oom = row["value"] == "OOM"
    notes = list(notes_of(row, method))
    return Target(
        row_id=row_id,
        model=model,
        cluster=cluster,
        devices=devices,
        method=method,
        resolution=int(row["resolution"]),
        steps=int(row["steps"]),
        warmup=warmup_of(row) if method in ("pipefusion", "distrifusion") else None,
        split="ceil" if method == "pipefusion" else None,
        patches=patches_of(row) if method == "pipefusion" else [],
        parallel=parallel,
        published_s=None if oom else float(row["value"]),
        oom=oom,
        digitized="digitized" in row["setting"],
        notes=notes,
    )


def not_a_run(row: Row) -> str | None:
    """Why a row is no latency of a run that could be made here, from its metric and setting."""
    metric = row["metric"]
    if "memory" in metric or "on disk" in metric or "params" in metric:
        return (
            f"{metric} as published counts the text encoders or the files; only the transformer is modelled"
        )
    if metric.startswith("FID") or metric in ("IS", "sFID", "Precision", "Recall"):
        return f"{metric} needs the trained weights"
    if metric != "latency":
        return f"{metric} is derived from other rows"
    for compiler in ("torch.compile", "onediff"):
        if compiler in row["setting"]:
            return f"compiled with {compiler}; costs are those of eager PyTorch"
    return None


def run_of(row: Row, devices: int) -> tuple[str, dict[str, int]] | None:
    """The method's name here and the degrees beside its own axis; None for a product that the row does not state.

    On one GPU every method is serial. The own axis (`pp` of PipeFusion, `ring` of USP) has what the others leave.
    """
    if devices == 1:
        return "serial", {}
    stated = degrees_in(row)
    alone = re.fullmatch(rf"(Ulysses|Ring)-{devices}", row["method"])  # `Ring-4`: all four in one ring
    if alone or (row["method"] in METHODS and "cfg" not in stated):
        return (alone[1].lower() if alone else METHODS[row["method"]]), {}
    if "PipeFusion" in row["method"]:
        method, own = "pipefusion", "pipe"
    elif "ulysses" in stated:
        method, own = "ring", "ring"
    else:
        return None
    given = {axis: counts[0] for axis, counts in stated.items() if axis != own}
    left, rest = divmod(devices, math.prod(given.values()))
    if rest or not given or left not in stated.get(own, [left]):
        return None
    return method, given


def degrees_in(row: Row) -> dict[str, list[int]]:
    """`cfg=2,pp=8 [sic; pp=4 if 8 GPUs]`: cfg [2] and pipe [8, 4], as the row's method and setting have them."""
    found: dict[str, list[int]] = {}
    text = f"{row['method']} {row['setting']}".lower()
    for name, count in re.findall(r"\b(cfg|pp|ulysses|ring)[=-](\d+)", text):
        found.setdefault("pipe" if name == "pp" else name, []).append(int(count))
    return found


def cluster_of(row: Row, devices: int) -> str | None:
    """The cluster's name here: GPU and link, and the network where one node is not enough."""
    match = re.match(r"(?:\d+x)?(?P<node>\d+)x(?P<gpu>[A-Z]+\d+)", row["hardware"])
    if not match:
        return None
    link = next((link for link in ("NVLink", "PCIe") if link in row["interconnect"]), "")
    name = f"{match['gpu']}_{link}".lower()
    if devices > int(match["node"]):
        name += "_ethernet" if "Ethernet" in row["interconnect"] else "_unknown"
    return name if name in CLUSTERS else None


def is_legacy(row: Row) -> bool:
    """Whether the older PipeFusion repository made the number: it ran W + 1 synchronous steps."""
    return row["source"].startswith("PipeFusion repo")


def warmup_of(row: Row) -> int:
    """Synchronous steps, in the convention of the source; W = 1 where none is stated, the paper's default."""
    warmup = stated("W", row["setting"])
    return (1 if warmup is None else warmup) + is_legacy(row)


def patches_of(row: Row) -> list[int]:
    """M as stated, or the candidates of which the fastest counts: the sources searched too."""
    patches = stated("M", row["setting"])
    return list(SEARCHED) if patches is None else [patches]


def notes_of(row: Row, method: str) -> Iterator[str]:
    """What had to be assumed or known to read the row."""
    degrees = degrees_in(row)
    if method == "pipefusion" and len(degrees.get("pipe", [])) > 1:
        yield f"pp={degrees['pipe'][0]} is more than the devices"
    if method == "ring" and "ulysses" in degrees and "ring" not in degrees:
        yield "ring is not stated: what Ulysses leaves"
    if method in ("pipefusion", "distrifusion"):
        if stated("W", row["setting"]) is None:
            yield "W is not stated: 1"
        if is_legacy(row):
            yield "W + 1 synchronous steps"
    if method == "pipefusion" and stated("M", row["setting"]) is None:
        yield "M is not stated: the fastest predicted"
    if "digitized" in row["setting"]:
        yield "read off a curve"


def overrides_of(target: Target, patches: int | None = None) -> list[str]:
    """The command line of a target, with one of its candidates for M."""
    overrides = [
        f"method={target.method}",
        f"cluster={target.cluster}",
        f"devices={target.devices}",
        f"model={target.model}",
        f"model.resolution={target.resolution}",
        f"steps={target.steps}",
        *(f"parallel.{axis}={degree}" for axis, degree in target.parallel.items()),
    ]
    if target.warmup is not None:
        overrides.append(f"method.warmup={target.warmup}")
    if target.method == "pipefusion":
        if patches is None:
            raise ValueError(f"{target.row_id} needs a number of patches; candidates: {target.patches}")
        overrides += [f"method.patches={patches}", f"method.split={target.split}"]
    return overrides
