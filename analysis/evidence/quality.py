"""What staleness costs: orders of methods in published FIDs, beside the same orders on the small model's pictures.

FID itself is not here: neither the weights of PixArt nor COCO are. A small model is evidence for an order only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import hypot, isnan, nan
from typing import Any

import pandas as pd

from analysis.evidence.claim import Claim, Comparison, exactly, of_cases, weakest
from analysis.evidence.published import TABLE1
from analysis.evidence.records import Evidence
from analysis.quality.paired import ratio, together
from analysis.records.committed import QUALITY, STALENESS
from analysis.staleness.tables import SETTING, of_setting, steady, weighted_mean

SMALL = "On a small model (emoji64, 64 px), not PixArt: evidence for the order only"
ERROR = "latent_error"
REAL, EXCESS = "frechet_real_efficientnet_lite0", "frechet_excess_real_efficientnet_lite0"
TABLE, OLD = "Table 2", "image_quality.png"
PRINTED = {"serial": "Original", "distrifusion": "DistriFusion", "pipefusion": "PipeFusion"}
USUAL: dict[str, dict[str, int]] = {
    "serial": {},
    "distrifusion": {"devices": 4, "warmup": 1},
    "pipefusion": {"patches": 4, "warmup": 1},
}
"""The setting that Table 2 is held against: N = 4, M = N."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    yield any_devices(evidence)
    yield nearer(evidence)
    yield worse_with_devices(evidence)
    yield worse_with_patches(evidence)
    yield against_real(evidence, "distrifusion", "serial")
    yield against_real(evidence, "distrifusion", "pipefusion")
    yield warmup_helps(evidence, 1)
    yield warmup_helps(evidence, 6)
    yield alike(evidence)
    yield fresher(evidence)
    yield one_step_old(evidence)
    ids = tuple(evidence.pick("quality_fid", source=TABLE))
    blocked = "FID needs the weights of PixArt and Flux, and COCO's pictures: none are here"
    statement = f"The {len(ids)} FIDs of Table 2."
    yield Claim("fids", statement, ids, "published", (), Comparison(None, None), "", blocked)


Sources = tuple[str, ...]


def measured(
    name: str, statement: str, sources: Sources, record: str, test: Comparison, *notes: str
) -> Claim:
    """A claim about pictures, or about what was attended to."""
    return Claim(name, statement, sources, "measured", (record,), test, ". ".join(notes))


def setting(evidence: Evidence, method: str, **wanted: int) -> pd.Series:
    """A setting of the usual task: 20 steps, guidance 2, the shipped scheduler."""
    table = evidence.quality
    usual = table[table.method == "serial"].iloc[0]
    wanted = {key: usual[key] for key in ("steps", "guidance_scale", "scheduler", "px")} | wanted
    keep = (table.method == method) & (table.status == "ok")
    for key, value in wanted.items():
        keep &= table[key] == value
    return table[keep].iloc[0]


def larger(
    evidence: Evidence, one: pd.Series, other: pd.Series, published: float | None = None
) -> Comparison:
    """Whether latents are further from serial's in one setting than in another, on the pictures that both have."""
    found = ratio(evidence.paired, one.key, other.key, ERROR)
    return Comparison(found.value, published, 0.0, "×", "more", 1.0, found.low, found.high, found.n)


def further(one: pd.Series, other: pd.Series, published: float | None) -> Comparison:
    """Whether one setting's pictures are further from real ones than another's.

    By how much each is further than serial's, where that was measured: its interval is of pairs, and far narrower. Else
    beyond the intervals of both distances.
    """
    first, second = excess(one), excess(other)
    if first is None or second is None:
        ends = ("", ""), ("_low", "_high"), ("_high", "_low")
        value, low, high = (float(one[REAL + a] / other[REAL + b]) for a, b in ends)
    else:
        value = 1 + (first[0] - second[0]) / other[REAL]
        low = value - hypot(first[0] - first[1], second[2] - second[0]) / other[REAL]
        high = value + hypot(first[2] - first[0], second[0] - second[1]) / other[REAL]
    n = min(int(row[f"{REAL}_n"]) for row in (one, other))
    return Comparison(value, published, 0.0, "×", "more", 1.0, low, high, n)


def excess(row: pd.Series) -> tuple[float, ...] | None:
    """How much further from real pictures than serial's, and its interval; None where that was not measured."""
    if row.method == "serial":
        return 0.0, 0.0, 0.0
    found = tuple(float(row.get(EXCESS + part, nan)) for part in ("", "_low", "_high"))
    return None if any(map(isnan, found)) else found


def fid(evidence: Evidence, metric: str, method: str, devices: int) -> str:
    """The row of Table 2 on PixArt."""
    ids = evidence.pick("quality_fid", source=TABLE, metric=metric, method=method, model="PixArt-XL-2-256-MS")
    return next(row_id for row_id in ids if evidence.rows[row_id]["n_devices"].startswith(str(devices)))


def old_fid(evidence: Evidence, devices: int, patches: int) -> str:
    """PipeFusion's row of the older figure."""
    of_figure = {"source": OLD, "metric": "FID", "method": "PipeFusion"}
    return evidence.one("quality_fid", **of_figure, n_devices=devices, setting=f"M={patches}")


def over(evidence: Evidence, one: str, other: str) -> float:
    return evidence.value(one) / evidence.value(other)


def any_devices(evidence: Evidence) -> Claim:
    """The same M on another N gives the same pictures."""
    ids = tuple(old_fid(evidence, n, 8) for n in (4, 8))
    table = evidence.quality[evidence.quality.method == "pipefusion"]
    # All that were compared, not only those that were found equal and hence not sampled themselves.
    table = table[(table.devices > 1) & table.equal_to.str.startswith("pipefusion_N1_", na=False)]
    few = table.equal_n.min()
    test = replace(of_cases(table.equal_error == 0), n=None if pd.isna(few) else int(few))
    values = " and ".join(evidence.rows[row_id]["value"] for row_id in ids)
    statement = f"PipeFusion's pictures do not depend on N at the same M (FID {values} on 4 and 8 devices)."
    note = f"Latents on N = 4 against N = 1, bit by bit; a case is a setting, of {test.n} pictures each"
    return measured("any-devices", statement, ids, QUALITY, test, note, SMALL)


def nearer(evidence: Evidence) -> Claim:
    """The same N, and M = N."""
    names = ("distrifusion", "pipefusion")
    ids = tuple(fid(evidence, "FID w/ Orig.", PRINTED[name], 4) for name in names)
    one, other = (setting(evidence, name, **USUAL[name]) for name in names)
    test = larger(evidence, one, other, over(evidence, *ids))
    statement = "PipeFusion's pictures are nearer to one GPU's than DistriFusion's on as many devices."
    what = (
        "DistriFusion's distance over PipeFusion's: FID to the original in print, error of the latents here"
    )
    return measured("nearer", statement, ids, QUALITY, test, "N = 4 as printed", what, SMALL)


def worse_with_devices(evidence: Evidence) -> Claim:
    """DistriFusion's patches are its devices."""
    ids = tuple(fid(evidence, "FID w/ Orig.", "DistriFusion", n) for n in (8, 4))
    steps = [setting(evidence, "distrifusion", devices=n, warmup=1) for n in (2, 4, 8)]
    test = weakest(larger(evidence, b, a, over(evidence, *ids)) for a, b in pairwise(steps))
    statement = "DistriFusion's pictures get further from one GPU's with more devices."
    common = together(evidence.paired, [row.key for row in steps], ERROR)
    each = ", ".join(f"{100 * common[row.key].mean():.2g} %" for row in steps)
    note = f"Error of the latents on N = 2, 4, 8: {each}; the rise with least to spare is tested"
    return measured("distrifusion-devices", statement, ids, QUALITY, test, note, SMALL)


def worse_with_patches(evidence: Evidence) -> Claim:
    """More patches, staler K, V."""
    ids = tuple(old_fid(evidence, 8, m) for m in (8, 4))
    one, other = (setting(evidence, "pipefusion", patches=m, warmup=1) for m in (8, 4))
    test = larger(evidence, one, other, over(evidence, *ids))
    statement = "PipeFusion's pictures get worse from M = 4 to M = 8."
    note = "FID to real pictures in print, error of the latents here"
    return measured("pipefusion-patches", statement, ids, QUALITY, test, note, SMALL)


def against_real(evidence: Evidence, worse: str, better: str) -> Claim:
    """Distance to real pictures, where both methods are as far as random pictures make it."""
    both = worse, better
    ids = tuple(fid(evidence, "FID w/ G.T.", PRINTED[name], 1 if name == "serial" else 4) for name in both)
    one, other = (setting(evidence, name, **USUAL[name]) for name in both)
    test = further(one, other, over(evidence, *ids))
    what = "one GPU's" if better == "serial" else f"{PRINTED[better]}'s"
    statement = f"{PRINTED[worse]}'s pictures are further from real ones than {what}."
    paired = "" if excess(one) is None else ", pairs from the same noise resampled together"
    note = f"Fréchet distance of EfficientNet-Lite0 features{paired}"
    return measured(f"real-{worse}-{better}", statement, ids, QUALITY, test, note, SMALL)


def warmup_helps(evidence: Evidence, warmup: int) -> Claim:
    """Synchronous steps at the beginning."""
    without, with_ = (setting(evidence, "pipefusion", patches=4, warmup=w) for w in (0, warmup))
    steps = "One synchronous step brings" if warmup == 1 else f"{warmup} synchronous steps bring"
    statement, sources = f"{steps} PipeFusion nearer to one GPU's pictures.", ("method section: warm-up",)
    note = f"Error of the latents at W = 0 over that at W = {warmup}"
    test = larger(evidence, without, with_)
    return measured(f"warmup-{warmup}", statement, sources, QUALITY, test, note, SMALL)


def alike(evidence: Evidence) -> Claim:
    """The premise of every displaced method."""
    hidden = evidence.stale.redundancy[evidence.stale.redundancy.quantity == "hidden"]
    test = Comparison(100 * weighted_mean(hidden.change, hidden.rows), None, unit="%")
    statement = "What the blocks see hardly changes from step to step."
    sources, note = ("introduction: input temporal redundancy",), "Mean relative change of the blocks' inputs"
    blocked = "The source gives no number, and no model would change as much as unrelated inputs do, by √2"
    return replace(measured("redundancy", statement, sources, STALENESS, test, note, SMALL), blocked=blocked)


def settings(table: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """Every choice of N, M and W of a method that a table is about."""
    found = table[table.method == method][["key", *SETTING]].drop_duplicates().to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in found]


def steady_jobs(evidence: Evidence, method: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Number of patches, and the ages of what was attended to after the warm-up, of every setting of a method."""
    table = evidence.stale.freshness
    for row in settings(table, method):
        patches = row["devices"] if pd.isna(row["patches"]) else row["patches"]
        yield int(patches), steady(of_setting(table, row), row)


def fresher(evidence: Evidence) -> Claim:
    """At as many patches: (M + 1) / 2M against 1/M."""
    mine, theirs = (
        {m: weighted_mean(part.age_0 / part.tokens, part.rows) for m, part in steady_jobs(evidence, method)}
        for method in ("pipefusion", "distrifusion")
    )
    forms = [exactly(mine[m], (m + 1) / (2 * m)) for m in mine] + [exactly(theirs[n], 1 / n) for n in theirs]
    over = [mine[m] / theirs[m] for m in sorted({*mine} & {*theirs})]
    test = weakest(Comparison(one, None, unit="×", relation="more", bound=1.0) for one in over)
    statement = "PipeFusion attends to more fresh K, V than DistriFusion cut into as many patches."
    exact = sum(abs((form.value or 0) - (form.published or 0)) < 1e-9 for form in forms)
    closed = f"{exact} of {len(forms)} mean shares are exactly (M + 1)/2M and 1/N"
    note = f"Shares of fresh tokens, one over the other; {closed}"
    sources = tuple(evidence.pick(TABLE1, version="README-c", method="PipeFusion"))
    return measured("fresher", statement, sources, STALENESS, test, note)


def one_step_old(evidence: Evidence) -> Claim:
    """Nothing is older than the step before."""
    parts = [part for method in ("distrifusion", "pipefusion") for _, part in steady_jobs(evidence, method)]
    test = of_cases(bool((part.tokens == part.age_0 + part.age_1).all()) for part in parts)
    statement = "Stale K, V are one step old in DistriFusion and PipeFusion, and never older."
    note, sources = "A case is a setting, after the warm-up", ("method section: stale K, V",)
    return measured("one-step-old", statement, sources, STALENESS, test, note)
