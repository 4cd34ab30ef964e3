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

from analysis.claims.claim import Claim, Comparison, exactly, of_cases, weakest
from analysis.claims.evidence import PAIRED, QUALITY, STALENESS, Evidence
from analysis.quality.paired import ratio, together
from analysis.staleness.tables import SETTING, mean_of, of_setting, steady

SMALL = "On a small model (emoji64, 64 px), not PixArt: evidence for the order only"
ERROR = "latent_error"
REAL, EXCESS = "frechet_real_efficientnet_lite0", "frechet_excess_real_efficientnet_lite0"
TABLE, OLD = "Table 2", "image_quality.png"


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
    yield fids(evidence)


def setting(evidence: Evidence, method: str, **wanted: int) -> pd.Series:
    """A setting of the usual task: 20 steps, guidance 2, the shipped scheduler."""
    table = evidence.quality
    usual = evidence.quality[evidence.quality.method == "serial"].iloc[0]
    keep = (table.method == method) & (table.status == "ok")
    for key in ("steps", "guidance_scale", "scheduler", "resolution"):
        keep &= table[key] == usual[key]
    for key, value in wanted.items():
        keep &= table[key] == value
    return table[keep].iloc[0]


def larger(
    evidence: Evidence, one: pd.Series, other: pd.Series, published: float | None = None
) -> Comparison:
    """Whether latents are further from serial's in one setting than in another, on the pictures that both have."""
    found = ratio(evidence.paired, one.key, other.key, ERROR)
    return Comparison(found.value, published, 0.0, "×", "more", 1.0, found.low, found.high, found.n)


def over(one: pd.Series, other: pd.Series, measure: str, published: float | None) -> Comparison:
    """Whether a measure of a whole set is larger in one setting than in another, beyond the intervals of both."""
    value, low, high = (
        float(one[f"{measure}{a}"] / other[f"{measure}{b}"])
        for a, b in (("", ""), ("_low", "_high"), ("_high", "_low"))
    )
    n = min(int(row[f"{measure}_n"]) for row in (one, other))
    return Comparison(value, published, 0.0, "×", "more", 1.0, low, high, n)


def further(one: pd.Series, other: pd.Series, published: float | None) -> Comparison:
    """Whether one setting's pictures are further from real ones than another's.

    By how much each is further than serial's, where that was measured: its interval is of pairs, and far narrower.
    """
    first, second = (excess(row) for row in (one, other))
    if first is None or second is None:
        return over(one, other, REAL, published)
    (value, low, top), (base, least, most) = first, second
    more, n = 1 + (value - base) / other[REAL], min(int(row[f"{REAL}_n"]) for row in (one, other))
    below, above = (
        hypot(value - low, most - base) / other[REAL],
        hypot(top - value, base - least) / other[REAL],
    )
    return Comparison(more, published, 0.0, "×", "more", 1.0, more - below, more + above, n)


def excess(row: pd.Series) -> tuple[float, float, float] | None:
    """How much further from real pictures than serial's, and its interval; None where that was not measured."""
    if row.method == "serial":
        return 0.0, 0.0, 0.0
    found = tuple(float(row.get(EXCESS + part, nan)) for part in ("", "_low", "_high"))
    return None if any(isnan(number) for number in found) else found  # type: ignore[return-value]


def fid(evidence: Evidence, metric: str, method: str, devices: str, model: str = "PixArt-XL-2-256-MS") -> str:
    """The row of Table 2."""
    ids = evidence.pick("quality_fid", source=TABLE, metric=metric, method=method, model=model)
    return next(row_id for row_id in ids if evidence.rows[row_id]["n_devices"].startswith(devices))


def any_devices(evidence: Evidence) -> Claim:
    """The same M on another N gives the same pictures."""
    ids = [
        evidence.one("quality_fid", source=OLD, metric="FID", method="PipeFusion", n_devices=n, setting="M=8")
        for n in (4, 8)
    ]
    table = evidence.quality[evidence.quality.method == "pipefusion"]
    # All that were compared, not only those that were found equal and hence not sampled themselves.
    table = table[(table.devices > 1) & table.equal_to.str.startswith("pipefusion_N1_", na=False)]
    few = table.equal_n.min()
    test = replace(of_cases(table.equal_error == 0), n=None if pd.isna(few) else int(few))
    values = " and ".join(evidence.rows[row_id]["value"] for row_id in ids)
    statement = f"PipeFusion's pictures do not depend on N at the same M (FID {values} on 4 and 8 devices)."
    note = (
        f"Latents on N = 4 against N = 1, bit by bit; a case is a setting, of {test.n} pictures each. {SMALL}"
    )
    return Claim("any-devices", statement, tuple(ids), "measured", (QUALITY,), test, note)


def nearer(evidence: Evidence) -> Claim:
    """The same N, and M = N."""
    theirs, mine = (fid(evidence, "FID w/ Orig.", method, "4") for method in ("DistriFusion", "PipeFusion"))
    published = evidence.value(theirs) / evidence.value(mine)
    test = larger(
        evidence,
        setting(evidence, "distrifusion", devices=4, warmup=1),
        setting(evidence, "pipefusion", patches=4, warmup=1),
        published,
    )
    statement = "PipeFusion's pictures are nearer to one GPU's than DistriFusion's on as many devices."
    what = (
        "DistriFusion's distance over PipeFusion's: FID to the original in print, error of the latents here"
    )
    note = f"N = 4 as printed. {what}. {SMALL}"
    return Claim("nearer", statement, (theirs, mine), "measured", (PAIRED,), test, note)


def worse_with_devices(evidence: Evidence) -> Claim:
    """DistriFusion's patches are its devices."""
    more, fewer = (fid(evidence, "FID w/ Orig.", "DistriFusion", n) for n in ("8", "4"))
    published = evidence.value(more) / evidence.value(fewer)
    steps = [setting(evidence, "distrifusion", devices=n, warmup=1) for n in (2, 4, 8)]
    test = weakest(larger(evidence, b, a, published) for a, b in pairwise(steps))
    statement = "DistriFusion's pictures get further from one GPU's with more devices."
    common = together(evidence.paired, [row.key for row in steps], ERROR)
    each = ", ".join(f"{100 * common[row.key].mean():.2g} %" for row in steps)
    note = f"Error of the latents on N = 2, 4, 8: {each}; the rise with least to spare is tested. {SMALL}"
    return Claim("distrifusion-devices", statement, (more, fewer), "measured", (PAIRED,), test, note)


def worse_with_patches(evidence: Evidence) -> Claim:
    """More patches, staler K, V."""
    more, fewer = (
        evidence.one(
            "quality_fid", source=OLD, metric="FID", method="PipeFusion", n_devices=8, setting=f"M={m}"
        )
        for m in (8, 4)
    )
    test = larger(
        evidence,
        setting(evidence, "pipefusion", patches=8, warmup=1),
        setting(evidence, "pipefusion", patches=4, warmup=1),
        evidence.value(more) / evidence.value(fewer),
    )
    statement = "PipeFusion's pictures get worse from M = 4 to M = 8."
    note = f"FID to real pictures in print, error of the latents here. {SMALL}"
    return Claim("pipefusion-patches", statement, (more, fewer), "measured", (PAIRED,), test, note)


def against_real(evidence: Evidence, worse: str, better: str) -> Claim:
    """Distance to real pictures, where both methods are as far as random pictures make it."""
    names = {"serial": "Original", "distrifusion": "DistriFusion", "pipefusion": "PipeFusion"}
    devices = {"serial": "1", "distrifusion": "4", "pipefusion": "4"}
    rows = [fid(evidence, "FID w/ G.T.", names[method], devices[method]) for method in (worse, better)]
    usual = {
        "serial": {},
        "distrifusion": {"devices": 4, "warmup": 1},
        "pipefusion": {"patches": 4, "warmup": 1},
    }
    one, other = (setting(evidence, method, **usual[method]) for method in (worse, better))
    test = further(one, other, evidence.value(rows[0]) / evidence.value(rows[1]))
    what = "one GPU's" if better == "serial" else f"{names[better]}'s"
    statement = f"{names[worse]}'s pictures are further from real ones than {what}."
    paired = "" if excess(one) is None else ", pairs from the same noise resampled together"
    note = f"Fréchet distance of EfficientNet-Lite0 features{paired}. {SMALL}"
    return Claim(f"real-{worse}-{better}", statement, tuple(rows), "measured", (QUALITY,), test, note)


def warmup_helps(evidence: Evidence, warmup: int) -> Claim:
    """Synchronous steps at the beginning."""
    without, with_ = (setting(evidence, "pipefusion", patches=4, warmup=w) for w in (0, warmup))
    test = larger(evidence, without, with_)
    steps = "One synchronous step brings" if warmup == 1 else f"{warmup} synchronous steps bring"
    statement = f"{steps} PipeFusion nearer to one GPU's pictures."
    note = f"Error of the latents at W = 0 over that at W = {warmup}. {SMALL}"
    return Claim(
        f"warmup-{warmup}", statement, ("method section: warm-up",), "measured", (PAIRED,), test, note
    )


def alike(evidence: Evidence) -> Claim:
    """The premise of every displaced method."""
    table = evidence.stale.redundancy
    hidden = table[table.quantity == "hidden"]
    value = mean_of(hidden.change, hidden.rows)
    test = Comparison(100 * value, None, unit="%")
    statement = "What the blocks see hardly changes from step to step."
    note = f"Mean relative change of the blocks' inputs. {SMALL}"
    blocked = "The source gives no number, and no model would change as much as unrelated inputs do, by √2"
    return Claim(
        "redundancy",
        statement,
        ("introduction: input temporal redundancy",),
        "measured",
        (STALENESS,),
        test,
        note,
        blocked,
    )


def settings_of(table: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """Every choice of N, M and W of a method that a table is about."""
    found = table[table.method == method][["key", *SETTING]].drop_duplicates().to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in found]


def shares(evidence: Evidence, method: str) -> list[tuple[int, float]]:
    """(patches, share of fresh tokens) of every setting of a method."""
    table = evidence.stale.freshness
    settings = settings_of(table, method)
    found = []
    for row in settings:
        part = steady(of_setting(table, row), row)
        patches = row["devices"] if pd.isna(row["patches"]) else row["patches"]
        found.append((int(patches), mean_of(part.age_0 / part.tokens, part.rows)))
    return found


def fresher(evidence: Evidence) -> Claim:
    """At as many patches: (M + 1) / 2M against 1/M."""
    mine, theirs = dict(shares(evidence, "pipefusion")), dict(shares(evidence, "distrifusion"))
    common = sorted(set(mine) & set(theirs))
    forms = [exactly(mine[m], (m + 1) / (2 * m)) for m in mine] + [exactly(theirs[n], 1 / n) for n in theirs]
    test = weakest(
        Comparison(mine[m] / theirs[m], None, unit="×", relation="more", bound=1.0) for m in common
    )
    statement = "PipeFusion attends to more fresh K, V than DistriFusion cut into as many patches."
    exact = sum(abs((form.value or 0) - (form.published or 0)) < 1e-9 for form in forms)
    closed = f"{exact} of {len(forms)} mean shares are exactly (M + 1)/2M and 1/N"
    note = f"Shares of fresh tokens, one over the other; {closed}"
    sources = tuple(evidence.pick("table1_costs", version="README-c", method="PipeFusion"))
    return Claim("fresher", statement, sources, "measured", (STALENESS,), test, note)


def one_step_old(evidence: Evidence) -> Claim:
    """Nothing is older than the step before."""
    table = evidence.stale.freshness
    cases: list[bool] = []
    for method in ("distrifusion", "pipefusion"):
        settings = settings_of(table, method)
        for row in settings:
            part = steady(of_setting(table, row), row)
            old = part.tokens - part.age_0 - part.age_1
            cases.append(bool((old == 0).all()))
    statement = "Stale K, V are one step old in DistriFusion and PipeFusion, and never older."
    sources = ("method section: stale K, V",)
    return Claim(
        "one-step-old",
        statement,
        sources,
        "measured",
        (STALENESS,),
        of_cases(cases),
        "A case is a setting, after the warm-up",
    )


def fids(evidence: Evidence) -> Claim:
    """The numbers themselves."""
    ids = evidence.pick("quality_fid", source=TABLE)
    statement = f"The {len(ids)} FIDs of Table 2."
    blocked = "FID needs the weights of PixArt and Flux, and COCO's pictures: none are here"
    return Claim("fids", statement, tuple(ids), "published", (), Comparison(None, None), "", blocked)
