"""All methods beside each other: fronts and means whose answer is known, and abstracts held against made-up numbers."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from analysis.evidence.claim import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE
from analysis.evidence.methods import ABSTRACTS, Found, claims
from analysis.evidence.published import read
from analysis.evidence.records import Evidence
from analysis.methods.comparison import beaten, distances, front, joined, places, setting_name
from analysis.methods.comparison_figure import figure
from analysis.methods.comparison_tables import better, caches, every, forecasts, usual
from analysis.methods.comparison_warmup import figure as warmup_figure
from analysis.methods.comparison_warmup import table as warmup_table
from analysis.methods.comparison_warmup import warmups
from analysis.presentation.columns import typed

RESULTS = Path(__file__).resolve().parents[3] / "results"
Row = dict[str, Any]


def setting(method: str, seconds: float, error: float, devices: int = 4, **more: Any) -> list[Row]:
    """A plan and two pictures of one setting, at half and at one and a half of an error."""
    own: Row = {
        "method": method,
        "devices": devices,
        "patches": None,
        "warmup": None,
        "knobs": "",
        "steps": 20,
    }
    own |= {"key": f"{method} {devices} {more.get('knobs', '')}", "status": "ok", "reason": None, **more}
    where = {key: own.pop(key, usual) for key, usual in (("cluster", "l40_pcie"), ("resolution", 1024))}
    plan = where | {"predicted_latency_s": seconds, "sent_bytes": own.pop("sent_bytes", 0), "borrowed": ""}
    plan |= {"peak_bytes": 1, "param_bytes": 1, "kv_bytes": 0}
    ends = ((0, error / 2), (1, 1.5 * error))
    pictures = [{"picture": k, "relative_error": e, "sampled_as": method, "psnr_db": 30.0} for k, e in ends]
    return [own | plan, *(own | one for one in pictures)]


ROWS = [
    *setting("serial", 8.0, 0.0, devices=1),
    *setting("ring", 4.0, 0.0),
    *setting("ulysses", 5.0, 0.0),  # as near as ring, and slower
    *setting("pipefusion", 3.0, 0.04, patches=4, warmup=1),
    *setting("distrifusion", 2.0, 0.03, warmup=1),
    *setting("asyncdiff", 2.5, 0.2, warmup=1),
    *setting("pcpp", 1.0, 0.3, warmup=1),
    *setting("distrifusion", 1.5, 0.05, devices=8, warmup=1),
]


def test_the_front_of_planted_points() -> None:
    seconds = pd.Series([1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 0.5, math.nan])
    error = pd.Series([0.9, 0.5, 0.6, 0.5, 0.0, 0.0, math.nan, 0.1])
    on = [True, True, False, False, True, True, False, False]
    assert front(seconds, error) == on


def test_the_front_and_what_is_better_than_pipefusion() -> None:
    rows = typed(pd.DataFrame(ROWS))
    errors = distances(rows).set_index("method")
    assert errors.relative_error["pcpp"] == pytest.approx(0.3)
    assert errors.rms_error["pcpp"] == pytest.approx(0.15)  # of 0.15 and 0.45: deviation / sqrt(2)
    table = joined(rows)
    assert {*table[table.front].method} == {"serial", "ring", "distrifusion", "pcpp"}
    four, eight = places(table).values()
    assert {*four.devices} == {1, 4} and {*eight.devices} == {1, 8}  # serial is beside every N
    assert table[table.method == "distrifusion"].speedup.tolist() == [4.0, pytest.approx(16 / 3)]
    (row,) = beaten(table).to_dict("records")
    assert (row["better"], row["fastest"], row["nearest"]) == (1, "DistriFusion W=1", "DistriFusion W=1")
    assert (row["predicted_latency_s"], row["fastest_predicted_latency_s"]) == (3.0, 2.0)


def test_tables_and_figure_have_every_setting() -> None:
    rows = joined(typed(pd.DataFrame(ROWS)))
    rows = rows.assign(
        low_s=rows.predicted_latency_s / 2, high_s=rows.predicted_latency_s * 2, resolution=2048
    )
    assert "3.00 [1.50, 6.00]" in every(rows, "note").text
    assert usual(rows, "note").text.count("| PipeFusion |") == 1 and "note" in usual(rows, "note").text
    assert "DistriFusion W=1" in better(rows, "note").text
    drawn = figure(rows, 2048, 4, 20, "note")
    names = {text.get_text() for text in drawn.axes[0].texts}
    assert {"Ring", "DistriFusion W=1", "PCPP W=1"} <= names and "PipeFusion M=4 W=1" not in names


def test_automatic_warm_up_beside_fixed_w() -> None:
    """Distances fall by 0.1 a step on one picture and by 0.2 on the other; auto has W = 1 and W = 3."""
    rows: list[Row] = []
    for w in range(5):
        rows += setting("pipefusion", 2.0 + w, 0.0, patches=4, warmup=w, key=w, resolution=2048)
        for picture in (0, 1):
            rows[picture - 2]["relative_error"] = (1 - 0.2 * w, 1 - 0.1 * w)[picture]
    auto = {"knobs": "warmup auto, warmup threshold 0.3", "warmup_threshold": 0.3, "resolution": 2048}
    _, *pictures = setting("pipefusion", 0.0, 0.0, patches=4, **auto)
    for picture, (w, error) in enumerate(((3, 0.4), (1, 0.9))):
        rows.append(pictures[picture] | {"found_warmup": w, "relative_error": error})
    found = warmups(typed(pd.DataFrame(rows)))
    last = found.iloc[-1]
    assert [*found.mean_warmup] == [0, 1, 2, 3, 4, 2] and last.share == 0.1
    assert (last.least_warmup, last.most_warmup, last.l40_pcie) == (1, 3, 4.0)
    assert last.relative_error == pytest.approx(0.65) and last.even == pytest.approx(0.35 / 0.15)
    assert last.gap == pytest.approx(0.65 - 0.7) and last.gap_error == pytest.approx(0.15)  # of -0.2 and 0.1
    assert "auto, 0.3" in warmup_table(found, "note").text
    assert "W=4" in {text.get_text() for text in warmup_figure(found, "note").axes[0].texts}


def test_caches_by_how_much_they_compute() -> None:
    own = {"cache": "fbcache", "cache_threshold": 0.2, "knobs": "cache fbcache, cache threshold 0.2"}
    _, *pictures = setting("ulysses", 0.0, 0.1, **own)
    for picture, steps in zip(pictures, (6.0, 8.0), strict=True):
        picture["computed_steps"] = steps
    text = caches(typed(pd.DataFrame(ROWS + pictures)), "note").text
    assert "| Ulysses | 4 | – | – | fbcache | 0.2 | 20 | 7 | 35.0 % | 10.0 % | 30.0 |" in text, text
    assert setting_name(pictures[0]) == "Ulysses fbcache 0.2"


def test_orders_by_what_stands_for_the_input() -> None:
    """Rotation is named beside plain order with the same N and M."""
    rows: list[Row] = []
    for knobs, seconds, error in (("", 3.0, 0.02), ("order rotational", 2.0, 0.08)):
        more = {"patches": 2, "warmup": 1, "knobs": knobs, "resolution": 2048}
        rows += setting("pipefusion", seconds, error, **more)
    text = forecasts(joined(typed(pd.DataFrame(rows))), "note").text
    assert "| 4 | 2 | 2.0 % | 8.0 % | – | – | – | 1.500 |" in text


KINDS = ("int1", "int2", "int4", "topk", "lowrank")
SETTINGS = {
    ("serial", ""): (8.0, 0.0),
    ("ring", ""): (4.0, 0.0),
    **{("ring", f"compress {kind}"): (3.0, 0.01) for kind in KINDS},
    ("asyncdiff", ""): (2.0, 0.2),
    ("asyncdiff", "stride 2"): (1.0, 0.3),
    ("pcpp", ""): (2.0, 0.3),
    ("distrifusion", ""): (2.5, 0.03),
    ("distrifusion", "sync layers [8, 9, 10, 11]"): (3.0, 0.02),
}
SENT = {"pcpp": 30, "distrifusion": 100}


def verdicts(settings: dict[tuple[str, str], tuple[float, float]], sent: dict[str, int]) -> dict[str, str]:
    """Those of every claim, by id; the record has a cluster, both N, and every setting of `settings`."""
    clusters = ("l40_pcie", "a100_nvlink", "l20_pcie_ethernet")
    rows: list[Row] = []
    for ((method, knobs), (seconds, error)), n, cluster in product(settings.items(), (4, 8), clusters):
        more = {"knobs": knobs, "cluster": cluster, "resolution": 2048, "sent_bytes": sent.get(method, 0)}
        made = setting(method, seconds, error, 1 if method == "serial" else n, warmup=None, **more)
        rows += made if cluster == clusters[0] else made[:1]
    frame = typed(pd.DataFrame(rows)).drop_duplicates(["key", "cluster", "picture"])
    pictures = frame[frame.picture.notna()].set_index(["key", "picture"])
    evidence = cast(Evidence, SimpleNamespace(error=lambda px, *methods: 0.05))
    found = Found(read(RESULTS / ABSTRACTS), joined(frame), pictures, evidence)
    every_claim = list(claims(found))
    assert {*found.abstracts} >= {source for one in every_claim for source in one.sources}
    return {one.id: one.verdict for one in every_claim}


def test_verdicts_on_abstracts_follow_the_record() -> None:
    ours = verdicts(SETTINGS, SENT)
    orders = {"asyncdiff-stride", "asyncdiff-stride-distance", "pcpp-bytes", "pcpp-least", "pcpp-most"}
    orders |= {"pcpp-distance", "compact-fidelity", "compact-ring", "dice-layers"}
    assert {name for name, verdict in ours.items() if verdict == CONFIRMED} == orders
    assert {verdict for name, verdict in ours.items() if name not in orders} == {NOT_TESTABLE}
    worse = {("ring", f"compress {kind}"): (5.0, 0.04) for kind in KINDS} | {("pcpp", ""): (3.0, 0.01)}
    worse |= {
        ("asyncdiff", "stride 2"): (3.0, 0.1),
        ("distrifusion", "sync layers [8, 9, 10, 11]"): (3.0, 0.05),
    }
    theirs = verdicts(SETTINGS | worse, SENT | {"pcpp": 60})
    assert {theirs[name] for name in orders} == {NOT_CONFIRMED}
