"""A claim that nothing could refute proves nothing: evidence of the opposite has to turn every verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from analysis.evidence import costs, latency, memory, quality, schedule, text
from analysis.evidence.claim import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, UNDECIDED, Claim
from analysis.evidence.claims import all_claims
from analysis.evidence.published import HYBRID, MODELS, read_row
from analysis.evidence.records import MODEL, Evidence
from analysis.memory import table1
from tests.analysis.evidence.planted import changed

SURE = 1e-6


def sure(evidence: Evidence, **changes: Any) -> Evidence:
    """Predictions that are off by next to nothing."""
    return changed(evidence, errors=dict.fromkeys(evidence.errors, SURE), **changes)


def as_published(evidence: Evidence) -> Evidence:
    table = evidence.predictions
    return sure(evidence, predictions=table.assign(predicted_s=table.published_s.fillna(table.predicted_s)))


def usp_fastest(evidence: Evidence) -> Evidence:
    """As published, where sources agree: in the text the best of the others is USP."""
    table = as_published(evidence).predictions
    more = table.method.map({"ring": 2.0, "ulysses": 2.0, "tensor": 2.0}).fillna(1.0)
    return sure(evidence, predictions=table.assign(predicted_s=more * table.predicted_s))


def upside_down(evidence: Evidence) -> Evidence:
    """What was published as slow is predicted to be fast, and PipeFusion and tensor parallelism as slower by far."""
    table = evidence.predictions
    more = table.method.map({"pipefusion": 3.0, "tensor": 5.0}).fillna(1.0)
    return sure(evidence, predictions=table.assign(predicted_s=more / table.published_s**3))


def swift(evidence: Evidence) -> Evidence:
    """Of what was published only PipeFusion's latencies are a tenth."""
    table = evidence.predictions
    share = table.method.map({"pipefusion": 0.1}).fillna(1.0)
    return sure(evidence, predictions=table.assign(predicted_s=share * table.published_s))


def flat(evidence: Evidence) -> Evidence:
    """At the smallest size everything takes nearly as long."""
    table = evidence.predictions
    return sure(
        evidence,
        predictions=table.assign(
            predicted_s=table.published_s.mask(table.resolution == 1024, table.published_s**1e-3)
        ),
    )


def as_the_text_says(evidence: Evidence, power: float = 1.0) -> Evidence:
    """Of other models: every ratio of seconds is the one that claims.csv has, or its inverse."""
    models, predictions = evidence.models.copy(), evidence.predictions.copy()
    for row in (evidence.rows[row_id] for row_id in evidence.pick("claims", metric="speedup")):
        alone, px, factor = row["setting"] == "vs 1 GPU", row.px or 0, row.value**power
        base = ("serial", 1) if row.method == HYBRID else ("pipefusion", 8)
        mine = evidence.seconds(row.model, "l40_pcie", px, base[1], base[0])
        if mine and row.row_id in predictions.index:
            predictions.loc[row.row_id, "predicted_s"] = mine * (1 / factor if alone else factor)
        if mine and row.model != MODEL and row.method != HYBRID:
            here = (models.model == row.model) & (models.cluster == "l40_pcie") & (models.resolution == px)
            others = here & (models.method != "pipefusion") & ((models.method == "serial") == alone)
            models.loc[others, "predicted_latency_s"] = mine * factor
    return sure(evidence, models=models, predictions=predictions)


def slower(evidence: Evidence) -> Evidence:
    """No method is as slow as PipeFusion."""
    return as_the_text_says(evidence, -1.0)


def scaled(column: str, factor: float, *methods: str) -> Callable[[Evidence], Evidence]:
    """Counted bytes of some methods, of all by default, times a factor on more than one device."""

    def change(evidence: Evidence) -> Evidence:
        def one(table: pd.DataFrame) -> pd.DataFrame:
            rows = (table.devices > 1) & (table.method.isin(methods) if methods else True)
            values = table[column].astype(float)
            return table.assign(**{column: values.mask(rows, values * factor)})

        peaks = {key: int(size * factor) for key, size in evidence.peaks.items() if size}
        more = {"peaks": peaks} if column == "peak_bytes" else {}
        return changed(evidence, cases=one(evidence.cases), printed=one(evidence.printed), **more)

    return change


def as_printed(evidence: Evidence) -> Evidence:
    """What Table 1 counts is what was counted, at every N."""
    table = evidence.printed.copy()
    for what, (_, ours) in table1.CLAIMS.items():
        table[ours] = table[ours].astype(float)
        for devices, found in costs.ratios(evidence).items():
            for row in found[(found.what == what) & (found.ratio > 0)].to_dict("records"):
                same = (table.devices == devices) & (table.model == row["model"])
                same &= (table.method == row["method"]) & (table.resolution == row["resolution"])
                same &= table.warmup.isna() if pd.isna(row["warmup"]) else table.warmup == row["warmup"]
                wire = (
                    (devices - 1) / devices
                    if ours == "step_sent_bytes" and row["method"] != "pipefusion"
                    else 1
                )
                table.loc[same, ours] *= wire / row["ratio"]
    return changed(evidence, printed=table)


def of_devices(evidence: Evidence) -> Evidence:
    """K, V that depend on N in DistriFusion, and on M; parameters and messages that depend on N."""
    table, scaling = evidence.cases, evidence.scaling
    return changed(
        evidence,
        cases=table.assign(kv_bytes=table.kv_bytes.astype(float) / table.devices),
        scaling=scaling.assign(kv_bytes=scaling.kv_bytes * scaling.patches.fillna(1)),
        params=evidence.params.assign(
            block_share=evidence.params.block_share * 2,
            sent_bytes=evidence.params.sent_bytes * evidence.params.devices,
        ),
    )


def other_models(evidence: Evidence) -> Evidence:
    """Models of twice the parameters."""
    models = {
        name: facts | {"diffusers_parameters": 2 * facts["diffusers_parameters"]}
        for name, facts in evidence.accounts["models"].items()
    }
    return changed(evidence, accounts=evidence.accounts | {"models": models})


def of_claim(theme: Any, name: str, number: float) -> Callable[[Evidence], Evidence]:
    """The first row that a claim cites prints another number."""

    def change(evidence: Evidence) -> Evidence:
        claim = next(one for one in theme.claims(evidence) if one.id == name)
        row_id = claim.sources[0]
        row = read_row(row_id, evidence.rows[row_id].printed | {"value": str(number)})
        return changed(evidence, rows=evidence.rows | {row_id: row})

    return change


def other_pictures(evidence: Evidence) -> Evidence:
    """What is near is far, what is equal is not, and nothing is further from real pictures than serial's."""
    table = evidence.quality.assign(equal_error=evidence.quality.equal_error + 1e-3)
    excess = quality.EXCESS
    table[[excess, f"{excess}_low", f"{excess}_high"]] = -table[
        [excess, f"{excess}_high", f"{excess}_low"]
    ].to_numpy()
    return changed(evidence, quality=table, paired=1 / evidence.paired)


def other_staleness(evidence: Evidence) -> Evidence:
    """Stale where it was fresh and the other way round, and never of the step before."""
    table = evidence.stale.freshness
    fresh = (table.tokens - table.age_0).where(table.method.isin(["pipefusion", "distrifusion"]), 0)
    fresh = fresh.mask(table.method == "distrifusion", table.tokens)
    fresh = fresh.mask(table.method == "pipefusion", table.tokens * 0.01)
    return changed(evidence, stale=replace(evidence.stale, freshness=table.assign(age_0=fresh, age_1=0)))


OPPOSITES: list[tuple[Callable[[Evidence], Evidence], tuple[Any, ...]]] = [
    (as_published, (text, latency, schedule)),
    (upside_down, (text, latency, schedule)),
    (usp_fastest, (text,)),
    (swift, (text,)),
    (flat, (schedule,)),
    (as_the_text_says, (text,)),
    (slower, (text,)),
    (as_printed, (costs,)),
    (scaled("step_sent_bytes", 1e3, "pipefusion"), (costs,)),
    *((scaled(column, 2), (costs,)) for column in ("step_sent_bytes", "param_bytes")),
    (scaled("kv_bytes", 2, "pipefusion"), (costs,)),
    (scaled("kv_bytes", 2, "distrifusion"), (costs,)),
    (of_devices, (costs,)),
    (other_staleness, (costs, quality)),
    (other_pictures, (quality,)),
    (other_models, (memory,)),
    *((scaled("peak_bytes", factor, "distrifusion"), (memory,)) for factor in (0.01, 1.86, 10)),
    *((scaled("peak_bytes", factor, "pipefusion"), (memory,)) for factor in (0.01, 0.1, 0.3, 0.5)),
    (scaled("peak_bytes", 100), (memory,)),
    (of_claim(schedule, "warmup-convention", 56.9), (schedule,)),
    (of_claim(text, "claims.csv:20", 90.0), (text,)),
]


@pytest.fixture(scope="module")
def few(evidence: Evidence) -> Evidence:
    """Of the committed records, two models of those that were counted."""
    models = [MODEL, *MODELS.values()]
    return changed(
        evidence,
        cases=evidence.cases[evidence.cases.model.isin(models)],
        printed=evidence.printed[evidence.printed.model == MODEL],
    )


@pytest.fixture(scope="module")
def claims(few: Evidence) -> dict[str, Claim]:
    return {claim.id: claim for claim in all_claims(few)}


def verdicts(evidence: Evidence, themes: Iterable[Any]) -> dict[str, str]:
    return {claim.id: claim.verdict for theme in themes for claim in theme.claims(evidence)}


def test_evidence_of_the_opposite_turns_every_verdict(few: Evidence, claims: dict[str, Claim]) -> None:
    seen = {name: {claim.verdict} for name, claim in claims.items()}
    for change, themes in OPPOSITES:
        for name, found in verdicts(change(few), themes).items():
            seen[name].add(found)
    tested = {name: found for name, found in seen.items() if claims[name].verdict != NOT_TESTABLE}
    assert {name: found for name, found in tested.items() if NOT_CONFIRMED not in found} == {}
    # What is a bound, or within a tolerance as wide as the number, can only be refuted.
    bounds = {
        name
        for name in tested
        for test in [claims[name].test]
        if test.relation == "at most" or test.tolerance >= abs(test.against or 0) > 0
    }
    assert {name: tested[name] for name in bounds if UNDECIDED not in tested[name]} == {}
    assert {name: tested[name] for name in set(tested) - bounds if CONFIRMED not in tested[name]} == {}


def test_what_cannot_fail_is_called_not_testable_and_why(claims: dict[str, Claim]) -> None:
    for name in ("warmup-linear", "redundancy"):
        assert claims[name].verdict == NOT_TESTABLE and claims[name].blocked, name
    for claim in claims.values():
        assert claim.verdict != NOT_TESTABLE or claim.blocked or claim.test.value is None, claim.id
