"""What the abstracts of other methods claim, and what all methods on one transformer show of it.

The numbers of an abstract are of its own model and GPUs, mostly of U-Nets and video models that are not here. Orders of
methods and bytes carry over to the record of `experiment=methods_2026`; the numbers themselves are not testable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.claim import Claim, Comparison, faster, make_claim, weakest, within
from analysis.evidence.published import Rows, read
from analysis.evidence.records import Evidence
from analysis.methods import comparison
from analysis.quality.paired import ratio
from analysis.records.committed import METHODS_2026
from analysis.records.study import load_study

ABSTRACTS = "published/methods/abstracts.csv"
SMALL = "Latents of the small model (emoji64, 64 px), S = 20, N = 4, W = 1"
UNET = "is a U-Net: no transformer, and none of the models here"
STEPS, SIZE = 20, 2048


@dataclass(frozen=True)
class Found:
    """The rows of abstracts by FILE:LINE, and the record: `table` as joined, `pictures` by key and picture."""

    abstracts: Rows
    table: pd.DataFrame
    pictures: pd.DataFrame
    evidence: Evidence

    def source(self, paper: str, **wanted: str) -> str:
        """The only row of a paper with these columns. Raises ValueError where there is none, or are several."""
        (row_id,) = (
            name
            for name, row in self.abstracts.items()
            if paper in row["source"] and all(row[key] == value for key, value in wanted.items())
        )
        return row_id

    def plans(self, method: str, knobs: str = "", **wanted: Any) -> pd.DataFrame:
        """The plans of a method with S = 20, W = 1 and these knobs, at the larger size unless another is wanted."""
        rows, same = self.table, {"method": method, "knobs": knobs, "steps": STEPS} | wanted
        for key, value in same.items():
            rows = rows[rows[key] == value]
        return rows[rows.warmup.isna() | (rows.warmup == 1)]

    def seconds(self, cluster: str, devices: int, method: str, knobs: str = "") -> float:
        """Predicted seconds of a setting."""
        (value,) = self.plans(
            method, knobs, cluster=cluster, devices=devices, resolution=SIZE
        ).predicted_latency_s
        return float(value)

    def ratio(self, cluster: str, devices: int, one: tuple[str, str], other: tuple[str, str]) -> float:
        """Predicted seconds of one (method, knobs) over those of another."""
        return self.seconds(cluster, devices, *one) / self.seconds(cluster, devices, *other)

    def further(self, one: tuple[str, str], other: tuple[str, str]) -> Comparison:
        """Whether the latents of one (method, knobs) are further from serial's than another's, on the same pictures."""
        found = ratio(self.pictures, self.key(*one), self.key(*other), "relative_error")
        return Comparison(found.value, None, 0.0, "×", "more", 1.0, found.low, found.high, found.n)

    def key(self, method: str, knobs: str) -> str:
        rows = self.pictures.reset_index()
        same = (rows.method == method) & (rows.knobs == knobs) & (rows.devices == 4) & (rows.steps == STEPS)
        (key,) = rows[same & (rows.warmup.isna() | (rows.warmup == 1))].key.unique()
        return str(key)


def load(results: Path) -> Found:
    """Abstracts and the record below a results folder."""
    rows = load_study(results / METHODS_2026).rows
    pictures = rows[rows.picture.notna()].set_index(["key", "picture"])
    return Found(read(results / ABSTRACTS), comparison.joined(rows), pictures, Evidence(results))


def claims(found: Found) -> Iterator[Claim]:
    """A claim for every number of the abstracts, and the orders of methods that carry over."""
    yield from asyncdiff(found)
    yield from pcpp(found)
    yield from compact(found)
    yield from elsewhere(found)


def measured(name: str, statement: str, source: str, test: Comparison, *notes: str) -> Claim:
    return make_claim("measured", (METHODS_2026,), name, statement, [source], test, *notes)


def predicted(name: str, statement: str, source: str, test: Comparison, *notes: str) -> Claim:
    return make_claim("predicted", (METHODS_2026,), name, statement, [source], test, *notes)


def untested(found: Found, name: str, statement: str, source: str, why: str, *notes: str) -> Claim:
    """A number that nothing here can test."""
    test = Comparison(None, found.abstracts[source].value)
    return make_claim("published", (), name, statement, [source], test, *notes, blocked=why)


def asyncdiff(found: Found) -> Iterator[Claim]:
    """Numbers of Stable Diffusion 2.1; what a stride of 2 buys and costs."""
    paper, plain, strided = "2406.06911", ("asyncdiff", ""), ("asyncdiff", "stride 2")
    two, four = (found.source(paper, value=value) for value in ("2.7", "4.0"))
    for name, source in (("asyncdiff-2.7", two), ("asyncdiff-4.0", four)):
        statement = f"AsyncDiff is {found.abstracts[source]['value']} times as fast as one GPU on four A5000."
        yield untested(found, name, statement, source, f"SD 2.1 {UNET}; no profile of an A5000")
    loss = found.source(paper, value="0.38")
    yield untested(
        found, "asyncdiff-clip", "At 4.0 times its CLIP score falls by 0.38.", loss, f"SD 2.1 {UNET}"
    )
    speed = found.ratio("l40_pcie", 4, plain, strided)
    test = faster(speed, 4.0 / 2.7, found.evidence.error(SIZE, "asyncdiff"))
    text = "AsyncDiff is faster where stages compute in every second step."
    yield predicted(
        "asyncdiff-stride", text, four, test, f"PixArt, {SIZE} px, 4 L40 over PCIe: stride 1 over 2"
    )
    text = "Its pictures are then further from one GPU's."
    yield measured("asyncdiff-stride-distance", text, four, found.further(strided, plain), SMALL)


def pcpp(found: Found) -> Iterator[Claim]:
    """Against DistriFusion: bytes, seconds, and what not to see distant bands costs."""
    paper, mine, other = "2412.02962", ("pcpp", ""), ("distrifusion", "")
    source = found.source(paper, metric="communication reduction")
    sent = {
        n: [float(found.plans(method, devices=n).sent_bytes.median()) for method in (mine[0], other[0])]
        for n in (4, 8)
    }
    less = {n: 100 * (1 - ours / theirs) for n, (ours, theirs) in sent.items()}
    note = f"PixArt, half a neighbour seen, warm-up counted: {less[4]:.1f} % on 4 and {less[8]:.1f} % on 8"
    text = "PCPP sends around 70 % less than DistriFusion on 4 GPUs."
    yield measured("pcpp-bytes", text, source, within(less[4], 70.0, 0.1, "%"), note)
    for name, devices, ours, theirs in (("least", 4, "2.36", "2.32"), ("most", 8, "8.02", "6.71")):
        source = found.source(paper, method="PCPP", value=ours)
        speeds = [
            getattr(found.plans(method, devices=devices).speedup, {"least": "min", "most": "max"}[name])()
            for method in (mine[0], other[0])
        ]
        error = found.evidence.error(SIZE, "pcpp", "distrifusion")
        test = faster(speeds[0] / speeds[1], float(ours) / float(theirs), error)
        text = (
            f"The {name} speedup of PCPP on {devices} GPUs ({ours}) is more than DistriFusion's ({theirs})."
        )
        note = f"The {name} of four clusters and two sizes of PixArt: {speeds[0]:.2f} and {speeds[1]:.2f}"
        yield predicted(f"pcpp-{name}", text, source, test, note)
    source = found.source(paper, method="PCPP", value="8.02")
    text = "PCPP costs quality: its pictures are further from one GPU's than DistriFusion's."
    yield measured("pcpp-distance", text, source, found.further(mine, other), SMALL)


def compact(found: Found) -> Iterator[Claim]:
    """Compressed residuals in a ring against DistriFusion, which overlaps, and against the plain ring."""
    paper, plain = "2507.17511", ("ring", "")
    source = found.source(paper, value="3.0")
    kinds = [knobs for knobs in found.table[found.table.method == "ring"].knobs.unique() if knobs]
    text = "Compressed residuals are nearer to one GPU than DistriFusion, which overlaps."
    tests = {kind: found.further(("distrifusion", ""), ("ring", kind)) for kind in kinds}
    note = "DistriFusion's distance over that of a ring with " + ", ".join(
        f"{kind}: {test.value:.2g}" for kind, test in tests.items()
    )
    yield measured("compact-fidelity", text, source, weakest(tests.values()), note, SMALL)
    cluster = "l20_pcie_ethernet"
    ratios = {kind: found.ratio(cluster, 4, plain, ("ring", kind)) for kind in kinds}
    best = max(ratios, key=ratios.__getitem__)
    test = faster(ratios[best], None, found.evidence.error(SIZE, "ring"))
    text = "Compressing residuals makes a ring of four L20 over PCIe faster."
    note = f"PixArt, {SIZE} px, the fastest of {len(kinds)} ({best}); kernels are not fused here, as the paper's are"
    yield predicted("compact-ring", text, source, test, note)
    why = "The abstract names neither the model nor what it is compared with"
    yield untested(found, "compact-3.0", "CompactFusion is 3.0 times as fast on four L20.", source, why)
    slow = found.source(paper, value="6.7")
    text = "On slow networks it is 6.7 times as fast as an overlap-based method."
    yield untested(found, "compact-6.7", text, slow, "The record has no links between nodes")


def elsewhere(found: Found) -> Iterator[Claim]:
    """Papers whose models or methods are not in the record."""
    unknown = {
        "SVD": UNET,
        "AudioLDM2-large": UNET,
        "CogVideoX-2b": "has no weights here, and ParaStep no plan of it",
    }
    for model, why in unknown.items():
        source = found.source("2505.14741", model=model)
        text = f"ParaStep is up to {found.abstracts[source]['value']} times as fast on {model}."
        yield untested(found, f"parastep-{model}", text, source, f"{model} {why}")
    source = found.source("2411.16786")
    text = "DICE makes a mixture of experts 1.26 times as fast."
    yield untested(found, "dice-1.26", text, source, "No model here is a mixture of experts")
    text = "Layers that stay synchronous bring displaced parallelism nearer to one GPU."
    test = found.further(("distrifusion", ""), ("distrifusion", "sync layers [8, 9, 10, 11]"))
    yield measured("dice-layers", text, source, test, "DistriFusion, the last 4 of 12 layers", SMALL)
    source = found.source("2402.19481")
    (ours,) = found.plans("distrifusion", cluster="a100_nvlink", devices=8, resolution=SIZE).speedup
    note = f"PixArt at {SIZE} px on 8 A100 over NVLink: {ours:.2f} predicted"
    text = "DistriFusion is up to 6.1 times as fast as one GPU on eight A100."
    yield untested(found, "distrifusion-6.1", text, source, f"SDXL {UNET}", note)
    for metric, text in (
        ("speedup", "TeaCache is up to 4.41 times as fast"),
        ("VBench change", "It costs 0.07 % of VBench"),
    ):
        source = found.source("2411.19108", metric=metric)
        yield untested(found, f"teacache-{metric.split()[0]}", f"{text} (Open-Sora-Plan).", source,
                       "Open-Sora-Plan is not among the models here")  # fmt: skip
    source = found.source("ParaAttention")
    text = "The first-block cache makes FLUX.1-dev twice as fast with very good quality."
    why = "How many steps it skips is decided by weights of FLUX.1-dev, which are not here"
    yield untested(found, "fbcache-2", text, source, why)
