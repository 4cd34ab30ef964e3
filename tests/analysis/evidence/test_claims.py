"""All claims on the committed records: complete, with reasons, and made by the numbers."""

from __future__ import annotations

from collections import Counter
from math import hypot, log1p

import numpy as np
import pandas as pd
import pytest

from analysis.evidence import costs
from analysis.evidence.claim import (
    CONFIRMED,
    KINDS,
    NOT_CONFIRMED,
    NOT_TESTABLE,
    UNDECIDED,
    VERDICTS,
    Claim,
    verdict,
)
from analysis.evidence.claims import all_claims
from analysis.evidence.published import cited
from analysis.evidence.quality import EXCESS, REAL, any_devices, further
from analysis.evidence.records import ALL, LEAST, MODEL, Evidence, prediction_errors
from analysis.evidence.tables import claims as table
from analysis.evidence.tables import claims_text, summary, summary_text
from analysis.records.committed import LATENCY
from tests.analysis.evidence.planted import changed


@pytest.fixture(scope="module")
def claims(evidence: Evidence) -> list[Claim]:
    return all_claims(evidence)


def by_id(claims: list[Claim]) -> dict[str, Claim]:
    return {claim.id: claim for claim in claims}


def test_every_row_of_the_text_has_one_claim_and_there_are_many_more(
    claims: list[Claim], evidence: Evidence
) -> None:
    rows = len((evidence.results / "published/claims.csv").read_text().splitlines()) - 1
    cited_rows = Counter(
        source for claim in claims for source in claim.sources if source.startswith("claims.csv:")
    )
    assert cited_rows == {f"claims.csv:{line}": 1 for line in range(2, rows + 2)}
    assert len(claims) >= rows + 20


def test_claims_are_whole(claims: list[Claim], evidence: Evidence) -> None:
    known = set(evidence.rows)
    assert len({claim.id for claim in claims}) == len(claims)
    for claim in claims:
        assert claim.statement.endswith(".") and "nan" not in claim.statement + claim.reason, claim.id
        assert claim.kind in KINDS and claim.verdict in VERDICTS and claim.reason, claim.id
        assert claim.sources and all(row in known for row in claim.sources if ".csv:" in row), claim.id
        # Only what rests on published rows or on a closed form alone has no record.
        assert claim.records or claim.kind in ("published", "computed"), claim.id
        assert all((evidence.results / record).exists() or record == LATENCY for record in claim.records), (
            claim.id
        )
    assert {claim.verdict for claim in claims} == set(VERDICTS)


def test_no_prediction_is_evidence_for_the_row_it_was_fitted_on(
    claims: list[Claim], evidence: Evidence
) -> None:
    fitted = evidence.predictions[
        (evidence.predictions.role != "prediction") & (evidence.predictions.devices > 1)
    ]
    assert len(fitted)
    for row_id in fitted.index:
        assert evidence.predicted(str(row_id)) is None
    assert any("fitted" in claim.reason and claim.verdict == NOT_TESTABLE for claim in claims)


PRODUCTS = [*(f"claims.csv:{line}" for line in (5, 6, 7, 10, 11)), "network-hybrid", "warmup-hybrid"]


def test_products_that_the_record_does_not_have_are_not_measured_and_bound_nothing(
    evidence: Evidence,
) -> None:
    alone = evidence.predictions[~evidence.predictions.method.isin(["hybrid", "USP"])]
    found = by_id(all_claims(changed(evidence, predictions=alone, made={})))
    for name in PRODUCTS:
        assert found[name].verdict == NOT_TESTABLE and "Not measured" in found[name].reason, name
    # The best in print may be one: any other is the most that it can be.
    for line in (2, 3, 4, 8, 9, 12, 13, 17, 19):
        assert found[f"claims.csv:{line}"].test.relation == "at most", line


def test_products_that_the_record_has_are_compared(claims: list[Claim]) -> None:
    found = by_id(claims)
    for name in PRODUCTS:
        assert found[name].verdict != NOT_TESTABLE and found[name].test.low is not None, name
    assert all(found[f"claims.csv:{line}"].test.relation == "equal" for line in (2, 4, 8, 13, 17, 19))


def test_a_record_that_comes_makes_claims_testable(evidence: Evidence) -> None:
    seconds = {"serial": 34.2, "pipefusion": 10.0, "ulysses": 30.0, "ring": 20.0}
    setting = {
        "model": "flux_dev",
        "cluster": "l40_pcie",
        "resolution": 1024,
        "status": "ok",
        "fastest": True,
    }
    rows = [
        setting
        | {"method": method, "devices": 1 if method == "serial" else 8, "predicted_latency_s": latency}
        for method, latency in seconds.items()
    ]
    alone = evidence.predictions[evidence.predictions.method != "USP"]
    found = by_id(all_claims(changed(evidence, models=pd.DataFrame(rows), predictions=alone)))
    assert found["claims.csv:14"].test.value == pytest.approx(3.42)
    assert (
        found["claims.csv:14"].verdict == UNDECIDED
    )  # predictions at that size are off by more than a tenth
    assert found["claims.csv:12"].test.value == pytest.approx(2.0)
    assert found["claims.csv:12"].verdict == UNDECIDED
    assert found["claims.csv:15"].reason.startswith("Not measured")


def test_intervals_come_from_the_errors_cover_most_of_them_and_are_never_small(evidence: Evidence) -> None:
    for px in (1024, 2048, 4096):
        one, two = evidence.error(px, "pipefusion"), evidence.error(px, "pipefusion", "ring")
        assert log1p(LEAST) <= one < two == pytest.approx(hypot(one, evidence.error(px, "ring")))
        assert evidence.error(px, "a method of which nothing is known") == evidence.errors[ALL, px]
    rows = pd.DataFrame(
        {
            "method": ["ring"] * 10 + ["tensor"] * 4,
            "resolution": 1024,
            "error": [*np.linspace(0.1, 1.0, 10), *[-0.5] * 4],
            "role": "prediction",
            "doubt": "",
            "duplicate_of": None,
            "contradicted_by": [""] * 9 + ["row"] + [""] * 4,
        }
    )
    found = prediction_errors(rows)
    assert found["ring", 1024] == pytest.approx(np.quantile(np.log1p(np.linspace(0.1, 0.9, 9)), 0.9))
    assert set(found) == {("ring", 1024), (ALL, 1024)}  # four predictions say nothing of a method


def test_a_prediction_never_confirms_within_its_own_error(claims: list[Claim]) -> None:
    """The interval is where our value may be; it is not the tolerance, and one that reaches past it is undecided."""
    found = by_id(claims)
    assert found["tensor-l40"].verdict == UNDECIDED
    for claim in claims:
        test = claim.test
        if claim.kind == "predicted" and claim.verdict in (CONFIRMED, NOT_CONFIRMED) and test.unit != "GB":
            assert test.low is not None and test.high is not None, claim.id
            assert not test.low < (test.against or 0) < test.high or claim.verdict == CONFIRMED, claim.id
            if test.relation == "equal" and claim.verdict == CONFIRMED:
                assert test.high - test.low <= 2 * test.tolerance, claim.id


def test_pictures_are_compared_on_common_ones_and_n_is_said(claims: list[Claim], evidence: Evidence) -> None:
    found = by_id(claims)
    counts = {
        "warmup-1": 16,
        "warmup-6": 16,
        "pipefusion-patches": 16,
        "distrifusion-devices": 16,
        "nearer": 2000,
        "any-devices": 2,
    }
    assert {name: found[name].test.n for name in counts} == counts
    rows = claims_text(table([found["warmup-1"], found["any-devices"]]), evidence.rows)
    assert rows.n.to_list() == ["16", "2"]
    assert rows.ours[0].startswith("1.19 × [1.08, 1.3]")


def test_devices_that_differ_are_seen_though_such_settings_are_sampled_themselves(evidence: Evidence) -> None:
    table = evidence.quality.copy()
    at = table.index[table.equal_to.str.startswith("pipefusion_N1_", na=False)][0]
    table.loc[at, ["equal_error", "sampled_as"]] = [0.5, table.loc[at, "key"]]
    assert any_devices(changed(evidence, quality=table)).verdict == NOT_CONFIRMED


def test_activations_are_those_of_every_case_and_not_of_the_nearest(evidence: Evidence) -> None:
    table = evidence.printed.copy()
    (name,) = (claim.id for claim in costs.claims(evidence) if claim.id == "table1-activations")
    row = table.index[(table.model == MODEL) & (table.devices == 8) & (table.method == "ring")][0]
    nearest = costs.ratios(evidence)[8]
    ratio = nearest[
        (nearest.model == MODEL) & (nearest.method == "ring") & (nearest.what == "activations")
    ].ratio
    table["activation_bytes"] = table.activation_bytes.astype(float)
    table.loc[row, "activation_bytes"] /= ratio.iloc[0]
    found = by_id(list(costs.claims(changed(evidence, printed=table))))[name]
    assert found.verdict == NOT_CONFIRMED


def test_summary_counts_every_claim_once(claims: list[Claim]) -> None:
    rows = summary(claims).set_index("evidence")
    assert rows.loc["all", "claims"] == len(claims)
    assert rows.drop(index="all").sum().to_list() == rows.loc["all"].to_list()
    assert rows[list(VERDICTS)].sum(axis="columns").to_list() == rows.claims.to_list()
    assert len(summary_text(summary(claims))) == len(KINDS) + 1


def test_tables_have_every_claim_in_words(claims: list[Claim], evidence: Evidence) -> None:
    rows = table(claims)
    text = claims_text(rows, evidence.rows)
    assert len(rows) == len(text) == len(claims)
    assert text.verdict.to_list() == [claim.verdict for claim in claims]
    assert all(text.source) and all(text.why)


def test_sources_are_cited_in_ranges() -> None:
    assert cited(["a.csv:3", "a.csv:2", "a.csv:5", "b.csv:7", "a.csv:4"]) == "a.csv:2-5; b.csv:7"
    assert cited(["a.csv:9", "a.csv:2"]) == "a.csv:2, 9"


def of_real(method: str, distance: float, *excess: float) -> pd.Series:
    """A setting with its distance to real pictures, 5 % each way, and what it is over serial's, if measured."""
    row = {"method": method, REAL: distance, f"{REAL}_low": 0.95 * distance, f"{REAL}_high": 1.05 * distance}
    row |= {f"{REAL}_n": 2000}
    return pd.Series(row | dict(zip((EXCESS, f"{EXCESS}_low", f"{EXCESS}_high"), excess, strict=False)))


def test_pairs_tell_apart_what_intervals_of_distances_cannot() -> None:
    serial, without = of_real("serial", 100.0), of_real("distrifusion", 102.0)
    assert verdict(further(without, serial, 1.35)) == "undecided"
    test = further(of_real("distrifusion", 102.0, 2.0, 1.5, 2.5), serial, 1.35)
    assert (test.value, test.published, test.n) == (pytest.approx(1.02), 1.35, 2000)
    assert (test.low, test.high) == (pytest.approx(1.015), pytest.approx(1.025))
    assert verdict(test) == "confirmed"
    # Two excesses have the uncertainty of both, and one without a number is none.
    test = further(
        of_real("distrifusion", 102.0, 2.0, 1.6, 2.4), of_real("pipefusion", 101.0, 1.0, 0.7, 1.3), None
    )
    assert (test.value, test.low) == (pytest.approx(102 / 101), pytest.approx((102 - 0.5) / 101))
    nan = float("nan")
    low = further(of_real("distrifusion", 102.0, nan, nan, nan), serial, None).low
    assert low is not None and low < 0.95
