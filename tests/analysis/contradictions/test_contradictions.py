"""Contradictions that are planted in made-up rows are found, and nothing is found where there are none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from analysis.contradictions import bounds, labels, memory, settings, table1, text, warmup
from analysis.contradictions import found as against
from analysis.contradictions.finding import CONTRADICTS, FOLLOWS, UNCHECKED
from analysis.paper.facts import Latency, latencies
from analysis.rows import Row, Rows

RESULTS = Path(__file__).resolve().parents[3] / "results"
LAYERS = {"pixart_alpha": 28}


def row(method: str, devices: int, value: float | str, **more: str) -> Row:
    """A published latency on L40 cards."""
    said = {"source": "figure 1", "version": "v1", "hardware": "8xL40-48GB", "interconnect": "PCIe"}
    said |= {
        "model": "PixArt",
        "resolution": "1024",
        "steps": "20",
        "n_devices": str(devices),
        "method": method,
    }
    return said | {"setting": "", "metric": "latency", "value": str(value), "unit": "s"} | more


def rows(*each: Row) -> Rows:
    return {f"latency.csv:{line}": one for line, one in enumerate(each, 2)}


def read(*each: Row) -> list[Latency]:
    return latencies(rows(*each))


def test_a_time_below_its_bound_is_found_and_one_at_it_is_not() -> None:
    one = row("Original", 1, 80)  # W=1 of 20 steps on 4 devices: 80 (1 + 19/4) / 20 = 23
    low = list(bounds.below_bound(read(one, row("PipeFusion", 4, 20, setting="W=1"))))
    assert [(each.rows, each.expected) for each in low] == [(("latency.csv:3",), "at least 23 s")]
    assert low[0].size == pytest.approx(1 - 20 / 23)
    assert not list(bounds.below_bound(read(one, row("PipeFusion", 4, 23, setting="W=1"))))
    assert not list(bounds.below_bound(read(one, row("PipeFusion", 4, 20, setting="W=0"))))
    assert not list(bounds.below_bound(read(one, row("SP-Ring", 4, 20))))
    curve = "W=1 digitized from curve"
    assert not list(bounds.below_bound(read(one, row("PipeFusion", 4, 22, setting=curve))))


def test_layers_are_not_cut() -> None:
    one = row("Original", 1, 28)  # 28 layers on 8 devices: four on one, 4 s
    assert list(bounds.whole_layers(read(one, row("PipeFusion", 8, 3.7)), LAYERS))
    assert not list(bounds.whole_layers(read(one, row("PipeFusion", 8, 4)), LAYERS))


def test_more_than_n_times_one_device_is_found() -> None:
    one = row("Original", 1, 80)
    assert [
        each.rows for each in bounds.superlinear(read(one, row("hybrid", 8, 9), row("hybrid", 4, 20)))
    ] == [("latency.csv:3",)]
    claim = row("cfg=2,pp=4", 8, 8.5, metric="speedup", setting="vs 1 GPU")
    assert [each.size for each in bounds.speedups({"claims.csv:2": claim})] == [0.0625]


@pytest.mark.parametrize(("steps", "verdict"), [(1, FOLLOWS), (2, CONTRADICTS), (0, CONTRADICTS)])
def test_the_number_of_synchronous_steps_is_found(steps: int, verdict: str) -> None:
    each = []
    for size, one in (("1024", 28.0), ("2048", 280.0)):
        each.append(row("Original", 1, one, resolution=size))
        each.append(
            row("PipeFusion", 8, one * (steps + (20 - steps) / 7) / 20, resolution=size, setting="W=1")
        )
    (found,) = warmup.synchronous_steps(read(*each), LAYERS)
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
    assert [found.size for found in labels.swapped(each, wrong)] == [3.0]


def test_one_number_of_two_methods_is_found() -> None:
    each = read(row("PipeFusion", 8, 0.62), row("hybrid", 8, 0.62, source="figure 2"), row("TP", 8, 0.7))
    assert [found.rows for found in labels.one_number(each)] == [("latency.csv:2", "latency.csv:3")]


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
        return len(list(settings.two_numbers(read(one, other | more))))

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
    assert not list(settings.two_numbers(read(*displaced)))


def test_degrees_that_need_more_devices_are_found() -> None:
    each = rows(
        row("PipeFusion", 8, 1, setting="cfg=2,pp=8 [sic; pp=4]"), row("hybrid", 8, 2, setting="cfg=2,pp=4")
    )
    (found,) = settings.too_many_devices(latencies(each), each)
    assert (found.rows, found.expected, found.size) == (("latency.csv:2",), "16 devices", 1.0)


def test_steps_in_doubt_are_decided_by_another_gpu() -> None:
    other = {"hardware": "8xL20-48GB"}
    each = rows(
        row("Original", 1, 1),
        row("Original", 1, 2, **other),
        row("Original", 1, 50, model="HunyuanDiT", steps="20[sic; likely 50]"),
        row("Original", 1, 100, model="HunyuanDiT", steps="50", **other),
    )
    (found,) = settings.other_steps(latencies(each), each)
    assert (found.rows, found.expected) == (("latency.csv:4", "latency.csv:5"), "50 steps")


def test_a_claim_follows_or_not_or_cannot_be_checked() -> None:
    each = read(row("Original", 1, 80), row("PipeFusion", 8, 16))
    claim = row("PipeFusion", 8, 5, metric="speedup", setting="vs 1 GPU", unit="x")
    flux = claim | {"model": "Flux.1-dev"}
    claims = {"claims.csv:2": claim, "claims.csv:3": claim | {"value": "5.2"}, "claims.csv:4": flux}
    found = list(text.claims(each, claims))
    assert [one.verdict for one in found] == [FOLLOWS, CONTRADICTS, UNCHECKED]
    assert found[0].rows == ("claims.csv:2", "latency.csv:2", "latency.csv:3")


def test_rounding_is_half_of_the_last_digit_and_a_little() -> None:
    assert text.tolerance("32") > 0.5 / 32 > text.tolerance("32.16") > 0


def test_too_little_memory_is_found() -> None:
    peak = {"metric": "max memory", "unit": "GB", "model": "Flux.1-dev"}
    disk = {"model": "Flux.1-dev", "n_devices": ""}
    each = {
        "m:2": row("Original", 1, 36, **peak),
        "m:3": row("PipeFusion", 8, 11, **peak),
        "m:4": row("", 8, 24, metric="DiT on disk", **disk),
        "m:5": row("", 8, 10, metric="text encoders on disk", **disk),
    }
    assert [found.expected for found in memory.too_little(each)] == ["at least 13 GB"]
    enough = each | {"m:3": row("PipeFusion", 8, 13, **peak)}
    smaller = each | {"m:2": row("Original", 1, 20, **peak)}  # held as half of what is on disk
    assert not list(memory.too_little(enough)) and not list(memory.too_little(smaller))


def test_versions_of_one_cell_are_found_and_two_spellings_are_one() -> None:
    cell = {"attn_KV": "-", "overlap": "no", "param_memory": "P", "activation_memory": "-"}
    cell |= {"method": "SP-Ulysses", "KV_or_buffer_memory": "KV/N"}
    each = {
        "table1_costs.csv:2": cell | {"version": "a", "communication_per_timestep": "4O(p*hs)L"},
        "table1_costs.csv:3": cell
        | {
            "version": "b",
            "communication_per_timestep": "(4/N)O(p*hs)L",
            "KV_or_buffer_memory": "(2/N)A=KV/N",
        },
    }
    (found,) = table1.versions(each, layers=28)
    assert (found.what, found.size) == ("SP-Ulysses, communication per timestep", 7.0)


def test_the_published_rows_have_every_kind_and_every_line_names_rows_that_exist(tmp_path: Path) -> None:
    sources = against.load(RESULTS)
    found = against.table(sources)
    assert set(found.kind) == set(against.KINDS) and set(found.verdict) <= set(against.VERDICTS)
    assert not found.duplicated(["kind", "rows", "what"]).any()
    for line in found.itertuples():
        assert set(line.rows.split()) <= set(sources.rows) and line.rows and line.printed and line.how
    order = list(against.VERDICTS)
    assert [order.index(verdict) for verdict in found.verdict] == sorted(
        order.index(v) for v in found.verdict
    )
    checked = Counter(row_id for ids in found[found.kind == text.TEXT].rows for row_id in ids.split()[:1])
    assert {row_id for row_id in sources.rows if row_id.startswith("claims")} <= set(checked)
    first = [path.read_bytes() for path in against.save(found, tmp_path / "a", "x")]
    assert first == [path.read_bytes() for path in against.save(against.table(sources), tmp_path / "b", "x")]
