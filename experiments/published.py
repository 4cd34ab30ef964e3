"""From a published number to the run that predicts it, or to the reason why none does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from analysis.evidence.doubts import doubts
from analysis.evidence.published import DISPLACED, MODELS, PRODUCT, Published, Rows, read
from experiments.config import LatencyConfig, RunConfig
from experiments.grid import cluster_config, model_config
from experiments.methods import METHODS
from experiments.programs import find_program
from pipefusion.core.parallel import Parallel

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"
FILES = ("latency", "scalability", "patch_sweep", "warmup", "quality_fid", "memory", "claims", "third_party")

CLUSTERS = [f"{gpu}_pcie" for gpu in ("l20", "l40", "a100", "t4", "rtx4090")]
CLUSTERS += ["l40_pcie_ethernet", "a100_nvlink", "h100_nvlink"]
SEARCHED = [2, 4, 8, 16, 32]
"""The numbers of patches that the sources say they searched where they name none."""

T5_WIDE = 1_006_632_960
"""Parameters of T5-XXL's encoder (the `wo` of its layers) that transformers keeps in float32 beside float16."""
T5_HALF = ("pixart_alpha", "sd3_medium")
"""Models that were published with T5-XXL in float16; FLUX.1's is in bfloat16."""


@dataclass(frozen=True)
class Target:
    """A run to predict, and the published seconds it is to be compared with.

    These are None where that is `OOM`, and for a run that the text only has a ratio of.
    """

    row_id: str
    model: str
    cluster: str
    devices: int
    method: str
    resolution: int | None  # None: a video of `height`, `width` and `frames`
    steps: int
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    host: str = "eager"  # or compiled
    warmup: int | None = None  # synchronous steps, of the two displaced methods
    split: str | None = None  # of PipeFusion, like `patches`: M as stated, or all candidates
    patches: list[int] = field(default_factory=list)
    parallel: dict[str, int] = field(default_factory=dict)  # degrees beside the method's own axis
    products: list[dict[str, int]] = field(
        default_factory=list
    )  # all that `parallel` may be, where not stated
    decoded: bool = False  # whether the published seconds include the VAE's
    offloaded: bool = False  # whether only the part at work is on the device
    published_s: float | None = None
    oom: bool = False
    digitized: bool = False  # read off a curve: good to 5 %
    notes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # why the source itself cannot be right
    duplicate_of: str | None = None  # an earlier row with the same setting and the same number
    contradicted_by: list[str] = field(default_factory=list)  # the same setting, another number


@cache
def published_rows(folder: Path = FOLDER) -> Rows:
    """All published rows that are numbers of a run."""
    return read(*(folder / f"{name}.csv" for name in FILES))


def targets(folder: Path = FOLDER) -> list[Target]:
    """Every published row that can be predicted, with its doubts marked."""
    rows = published_rows(folder)
    each = [found for row in rows.values() if isinstance(found := find_target(row), Target)]
    marks = doubts([rows[one.row_id] for one in each if one.published_s or one.oom])
    return [replace(one, **vars(marks[one.row_id])) if one.row_id in marks else one for one in each]


def unpredicted(folder: Path = FOLDER) -> dict[str, str]:
    """The other rows: row id -> reason."""
    found = {row_id: find_target(row) for row_id, row in published_rows(folder).items()}
    return {row_id: reason for row_id, reason in found.items() if isinstance(reason, str)}


def find_target(row: Published) -> Target | str:
    """What has to be run for a row, or in one sentence why nothing is."""
    reason = not_a_run(row)
    if reason:
        return reason
    if row.model not in MODELS.values():
        return f"no model {row.model} here"
    for key, stated in (
        ("resolution", row.px or row.video),
        ("steps", row.steps),
        ("n_devices", row.devices),
    ):
        if stated is None:
            return f"{key} is {row[key]!r}"
    assert row.steps is not None and row.devices is not None
    products = row.products
    if not products:
        text = f"{row['method']} ({row['setting']}) is a hybrid of several methods"
        return f"{text}, whose degrees on {row.devices} devices are not stated"
    cluster = find_cluster(row, row.devices)
    if cluster is None:
        return f"no profile of {row['hardware']} with {row['interconnect']}"
    height, width, frames = row.video or (None, None, None)
    method, timed = PRODUCT.get(row.product, row.method), row["metric"] == "latency"
    program = find_program(row)
    return Target(
        row_id=row.row_id,
        model=row.model,
        cluster=cluster,
        devices=row.devices,
        method=method,
        resolution=row.px,
        height=height,
        width=width,
        frames=frames,
        steps=row.steps,
        host="compiled" if row.compiler else "eager",
        warmup=row.synchronous if method in DISPLACED else None,
        split="ceil" if method == "pipefusion" else None,
        patches=candidate_patches(row) if method == "pipefusion" else [],
        parallel=products[0],
        products=products if len(products) > 1 else [],
        decoded=program.decoded,
        offloaded=program.offloaded,
        published_s=row.value if timed and not row.oom else None,
        oom=row.oom,
        digitized=row.digitized,
        notes=list(list_assumptions(row, method)),
    )


def not_a_run(row: Published) -> str | None:
    """Why a row is no latency of a run that could be made here, from its metric and setting."""
    metric = row["metric"]
    if "memory" in metric or "on disk" in metric or "params" in metric:
        return (
            f"{metric} as published counts the text encoders or the files; only the transformer is modelled"
        )
    if metric.startswith("FID") or metric in ("IS", "sFID", "Precision", "Recall"):
        return f"{metric} needs the trained weights"
    if metric.startswith("latency with"):
        return f"{row['method']} changes what is computed, or by which kernels"
    if metric == "rank":
        return "named the best, without a number"
    if metric != "latency" and not (metric == "speedup" and row.product in PRODUCT and row.degrees):
        return f"{metric} is derived from other rows"
    return None


def find_cluster(row: Published, devices: int) -> str | None:
    """The cluster's name here: GPU and link, and the network where one node is not enough; of one device any link."""
    match = re.match(r"(?:\d+x)?(?P<node>\d+)x(?P<gpu>[A-Z]+\d+)", row["hardware"])
    if not match:
        return None
    link = next((link for link in ("NVLink", "PCIe") if link in row["interconnect"]), "")
    name = f"{match['gpu']}_{link}".lower()
    if devices == 1 and not link:
        return next((cluster for cluster in CLUSTERS if cluster.startswith(name)), None)
    if devices > int(match["node"]):
        name += "_ethernet" if "Ethernet" in row["interconnect"] else "_unknown"
    return name if name in CLUSTERS else None


def candidate_patches(row: Published) -> list[int]:
    """M as stated, or the candidates of which the fastest counts: the sources searched too."""
    return list(SEARCHED) if row.patches is None else [row.patches]


def list_assumptions(row: Published, method: str) -> Iterator[str]:
    """What had to be assumed or known to read the row."""
    degrees = row.degrees
    if row["metric"] != "latency":
        yield "a run that the text has only a ratio of"
    if row.product in PRODUCT and not degrees:
        yield "degrees are not stated: the fastest predicted"
    if method == "pipefusion" and len(degrees.get("pipe", [])) > 1:
        yield f"pp={degrees['pipe'][0]} is more than the devices"
    if method == "ring" and "ulysses" in degrees and "ring" not in degrees:
        yield "ring is not stated: what Ulysses leaves"
    if method in DISPLACED:
        if row.warmup is None:
            yield "W is not stated: 1"
        if row.legacy:
            yield "W + 1 synchronous steps"
    if method == "pipefusion" and row.patches is None:
        yield "M is not stated: the fastest predicted"
    if row.digitized:
        yield "read off a curve"
    program = find_program(row)
    if program.decoded:
        yield "decoding is timed: its seconds on one device are added"
    if program.offloaded:
        yield "encoders and VAE are off the device while it samples"
    if row["model"].startswith("ConsisID"):
        yield "without what ConsisID adds to the model: a branch for faces"


def target_run(target: Target, base: RunConfig) -> RunConfig:
    """The run of a target, with the first of its candidates; what no source states is as in `base`."""
    patches = target.patches[0] if target.patches else None
    own = {"warmup": target.warmup, "patches": patches, "split": target.split}
    if target.method == "tensor":
        own["cross"] = "whole"  # as in what was published: two all-reduces a block
    own["qkv"] = "separate"  # as well: xDiT's calls for Q, K, V and the result of Ulysses ranks, four a layer
    return replace(
        base,
        model=replace(
            model_config(target.model),
            resolution=target.resolution,
            height=target.height,
            width=target.width,
            frames=target.frames,
        ),
        cluster=replace(cluster_config(target.cluster), host=target.host),
        method=METHODS[target.method].Config(**{key: v for key, v in own.items() if v is not None}),
        devices=target.devices,
        steps=target.steps,
        parallel=Parallel(**target.parallel),
        measure=LatencyConfig(),
    )
