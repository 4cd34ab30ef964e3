"""Contradictions that are planted in made-up rows are found, and nothing is found where there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from analysis.evidence import bounds, labels, tables, text
from analysis.evidence import contradictions as against
from analysis.evidence.bounds import BOUND, LINEAR, UNCUT, refuted
from analysis.evidence.claim import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, Claim
from analysis.evidence.published import Published, Row, latencies
from analysis.evidence.records import Evidence
from tests.analysis.evidence.planted import row as line
from tests.analysis.evidence.planted import rows

LAYERS = {"pixart_alpha": 28}


def row(method: str, devices: int, value: float | str, **more: str) -> Row:
    """A published latency at 1024 px."""
    return line(method, devices, value, **{"resolution": "1024", "source": "figure 1"} | more)


def read(*each: Row) -> list[Published]:
    return latencies(rows(*each))


def below(kind: str, *each: Row) -> list[Claim]:
    return [one for one in refuted(bounds.latencies(read(*each), LAYERS)) if one.id == kind]


def sizes(found: Iterable[Claim]) -> list[float | None]:
    return [one.off for one in found]


def test_a_time_below_its_bound_is_found_and_one_at_it_is_not() -> None:
    one = row("Original", 1, 80)  # W=1 of 20 steps on 4 devices: 80 (1 + 19/4) / 20 = 23
    low = below(BOUND, one, row("PipeFusion", 4, 20, setting="W=1"))
    assert [(each.sources, each.expected) for each in low] == [(("latency.csv:3",), "at least 23 s")]
    assert low[0].off == pytest.approx(1 - 20 / 23)
    assert not below(BOUND, one, row("PipeFusion", 4, 23, setting="W=1"))
    assert not below(BOUND, one, row("PipeFusion", 4, 20, setting="W=0"))
    assert not below(BOUND, one, row("SP-Ring", 4, 20))
    assert not below(BOUND, one, row("PipeFusion", 4, 22, setting="W=1 digitized from curve"))
    # Of cfg 2 x pipe 2 the synchronous step takes half: 80 (1/2 + 19/4) / 20 = 21
    assert below(BOUND, one, row("CFG+PipeFusion", 4, 20.8, setting="cfg=2,pp=2"))
    assert not below(BOUND, one, row("CFG+PipeFusion", 4, 21, setting="cfg=2,pp=2"), row("hybrid", 4, 20.8))


def test_layers_are_not_cut() -> None:
    one = row("Original", 1, 28)  # 28 layers on 8 devices: four on one, 4 s
    assert below(UNCUT, one, row("PipeFusion", 8, 3.7))
    assert not below(UNCUT, one, row("PipeFusion", 8, 4))


def test_more_than_n_times_one_device_is_found() -> None:
    found = below(LINEAR, row("Original", 1, 80), row("hybrid", 8, 9), row("hybrid", 4, 20))
    assert [each.sources for each in found] == [("latency.csv:3",)]
    claim = row("cfg=2,pp=4", 8, 8.5, metric="speedup", setting="vs 1 GPU", unit="x")
    lines = rows(claim, claim | {"value": "8.01"}, file="claims")
    assert sizes(refuted(bounds.of_text([], lines))) == [0.0625]


@pytest.mark.parametrize(("steps", "verdict"), [(1, CONFIRMED), (2, NOT_CONFIRMED), (0, NOT_CONFIRMED)])
def test_the_number_of_synchronous_steps_is_found(steps: int, verdict: str) -> None:
    each = []
    for size, one in (("1024", 28.0), ("2048", 280.0)):
        each.append(row("Original", 1, one, resolution=size))
        each.append(
            row("PipeFusion", 8, one * (steps + (20 - steps) / 7) / 20, resolution=size, setting="W=1")
        )
    (found,) = bounds.synchronous_steps(read(*each), LAYERS)
    assert (found.verdict, found.expected) == (verdict, f"w={steps}, median error 0.0 %")


def test_swapped_labels_are_found_by_the_order_that_is_predicted() -> None:
    each = read(*(
        row(method, 8, value, resolution=size)
        for size in ("1024", "2048")
        for method, value in (("SP-Ring", 2), ("SP-Ulysses", 4))
    ))  # fmt: skip
    right = {one.row_id: {"ring": 2.0, "ulysses": 4.0}[one.method] for one in each}
    wrong = {one.row_id: {"ring": 4.0, "ulysses": 2.0}[one.method] for one in each}
    assert not list(labels.swapped(each, right))
    assert sizes(labels.swapped(each, wrong)) == [3.0]


def test_one_number_of_two_methods_is_found() -> None:
    each = read(row("PipeFusion", 8, 0.62), row("hybrid", 8, 0.62, source="figure 2"), row("TP", 8, 0.7))
    assert [found.sources for found in labels.one_number(each)] == [("latency.csv:2", "latency.csv:3")]


def test_one_curve_of_two_methods_is_found() -> None:
    def curve(method: str, version: str, *seconds: float) -> list[Row]:
        sizes = ("1024", "2048")
        return [
            row(method, 8, s, version=version, resolution=size)
            for size, s in zip(sizes, seconds, strict=True)
        ]

    own = curve("PipeFusion", "v2", 14, 22)
    assert list(
        labels.one_curve(read(*curve("PipeFusion", "v1", 10, 20), *curve("hybrid", "v2", 10.2, 20), *own))
    )
    assert not list(
        labels.one_curve(read(*curve("PipeFusion", "v1", 14, 22), *curve("hybrid", "v2", 10, 20), *own))
    )


def test_two_numbers_of_one_setting_are_found_and_other_settings_are_not() -> None:
    one, other = row("TP", 8, 10), row("TP", 8, 12, source="figure 2")

    def found(**more: str) -> int:
        return len(list(refuted(against.two_numbers(read(one, other | more)))))

    assert found() == 1
    assert (
        found(value="10.9")
        == found(source="figure 1")
        == found(setting="torch.compile")
        == found(steps="28")
        == 0
    )
    displaced = (
        row("PipeFusion", 8, 10, setting="W=0"),
        row("PipeFusion", 8, 12, setting="W=1", source="figure 2"),
    )
    assert not list(against.two_numbers(read(*displaced)))


def test_degrees_that_need_more_devices_are_found() -> None:
    each = read(
        row("PipeFusion", 8, 1, setting="cfg=2,pp=8 [sic; pp=4]"), row("hybrid", 8, 2, setting="cfg=2,pp=4")
    )
    (found,) = against.too_many_devices(each)
    assert (found.sources, found.expected, found.off) == (("latency.csv:2",), "16 devices", 1.0)


def test_steps_in_doubt_are_decided_by_another_gpu() -> None:
    other = {"hardware": "8xL20-48GB"}
    each = rows(
        row("Original", 1, 1),
        row("Original", 1, 2, **other),
        row("Original", 1, 50, model="HunyuanDiT", steps="20[sic; likely 50]"),
        row("Original", 1, 100, model="HunyuanDiT", steps="50", **other),
    )
    (found,) = against.other_steps(latencies(each), each)
    assert (found.sources, found.expected) == (("latency.csv:4", "latency.csv:5"), "50 steps")


def test_a_claim_follows_or_not_or_cannot_be_checked() -> None:
    each = read(row("Original", 1, 80), row("PipeFusion", 8, 16))
    claim = row("PipeFusion", 8, 5, metric="speedup", setting="vs 1 GPU", unit="x")
    found = list(
        text.published(
            each, rows(claim, claim | {"value": "5.2"}, claim | {"model": "Flux.1-dev"}, file="claims")
        )
    )
    assert [one.verdict for one in found] == [CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE]
    assert found[0].sources == ("claims.csv:2", "latency.csv:2", "latency.csv:3")
    # Half of the last digit, and a little for the numbers it is made from.
    less_precise = text.published(
        each, rows(claim | {"value": "5.4"}, claim | {"value": "5.40"}, file="claims")
    )
    assert next(less_precise).test.tolerance > 0.05 > next(less_precise).test.tolerance > 0


SECONDS = {"PipeFusion": 16.0, "SP-Ring": 20.0, "SP-Ulysses": 32.0}


def ratio(**more: str) -> float | None:
    """What a claim comes to by seconds of one device and of three methods on eight."""
    each = [row("Original", 1, 80), *(row(name, 8, seconds) for name, seconds in SECONDS.items())]
    claim = row("PipeFusion", 8, 4, metric="speedup", setting="vs 1 GPU", unit="x") | more
    (found,) = text.published(read(*each), rows(claim, file="claims"))
    return found.test.value


def test_ratios_are_over_one_device_or_the_fastest_rival_and_beyond_an_nth() -> None:
    assert ratio() == 5.0
    assert ratio(method="SP", metric="communication cost", unit="s") == 10.0
    assert ratio(metric="communication cost", setting="T8-T1/8", unit="s") == 6.0
    assert ratio(method="SP", metric="communication share", setting="(T8-T1/8)/T8", unit="%") == 50.0
    assert ratio(setting="vs best USP (ulysses=4 ring=2)") == 1.25
    assert ratio(method="cfg=2,pp=4") is None
    assert ratio(setting="vs second best") is None  # USP is the likely one, and not printed
    busy = ratio(
        metric="effective computation ratio", n_devices="4", steps="25", setting="M=N=4,S=25", unit="%"
    )
    assert busy == pytest.approx(100 * 100 / 103)


def test_too_little_memory_is_found() -> None:
    peak = {"metric": "max memory", "unit": "GB", "model": "Flux.1-dev"}
    disk = {"model": "Flux.1-dev"}

    def found(one: float, many: float) -> list[str]:
        each = rows(
            row("Original", 1, one, **peak),
            row("PipeFusion", 8, many, **peak),
            row("", 8, 24, metric="DiT on disk", **disk),
            row("", 8, 10, metric="text encoders on disk", **disk),
            file="memory",
        )
        return [claim.expected for claim in refuted(bounds.too_little(each))]

    assert found(36, 11) == ["at least 13 GB"]
    assert found(36, 13) == found(20, 11) == []  # held as half of what is on disk


def test_versions_of_one_cell_are_found_and_two_spellings_are_one() -> None:
    cell = {
        "attn_KV": "-",
        "overlap": "no",
        "param_memory": "P",
        "activation_memory": "-",
        "method": "SP-Ulysses",
    }
    cell |= {"KV_or_buffer_memory": "KV/N", "communication_per_timestep": "4O(p*hs)L", "version": "a"}
    other = {
        "communication_per_timestep": "(4/N)O(p*hs)L",
        "KV_or_buffer_memory": "(2/N)A=KV/N",
        "version": "b",
    }
    (found,) = against.versions(rows(cell, cell | other, file="table1_costs"), layers=28)
    assert (found.statement, found.off) == ("SP-Ulysses, communication per timestep", 7.0)


def test_the_published_rows_have_every_kind_and_every_line_names_rows_that_exist(evidence: Evidence) -> None:
    found = tables.contradictions(list(against.contradictions(evidence)))
    assert set(found.kind) == set(against.KINDS) and set(found.verdict) <= set(tables.PRINTED)
    assert not found.duplicated(["kind", "rows", "what"]).any()
    for one in found.itertuples():
        assert set(one.rows.split()) <= set(evidence.rows) and one.rows and one.printed and one.how
    order = [*tables.PRINTED]
    assert [order.index(v) for v in found.verdict] == sorted(order.index(v) for v in found.verdict)
    checked = Counter(row_id for ids in found[found.kind == text.TEXT].rows for row_id in ids.split()[:1])
    assert {row_id for row_id in evidence.rows if row_id.startswith("claims")} <= set(checked)
