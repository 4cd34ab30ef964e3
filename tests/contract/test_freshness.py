"""How fresh the K, V of every method in the table are. A new row in the table is tested without a word here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from experiments.config import ModelConfig, RunConfig
from experiments.grid import GridConfig, expand, model_config
from experiments.methods import METHODS, find_problem, parallel_degrees
from experiments.session import Session
from experiments.staleness.probe import Seen, freshness_rows, probe
from pipefusion.core.grid import rows_in
from pipefusion.core.parallel import Parallel
from pipefusion.sim.engine import RankFailed

STEPS = 3
SESSION = Session()


def narrow(name: str, layers: int, height: int, width: int) -> ModelConfig:
    """Few layers and token columns: what is seen is the same in all."""
    cfg = model_config(name)
    return replace(
        cfg, height=height, width=width, architecture=(cfg.architecture or {}) | {"num_layers": layers}
    )


PIXART = narrow("pixart_tiny", 3, 32, 8)
FAMILIES = {
    "cross-attention": PIXART,
    "four layers": narrow("pixart_tiny", 4, 32, 8),
    "joint prompt": narrow("sd3_tiny", 3, 192, 32),
    "long skips": narrow("hunyuan_tiny", 4, 192, 32),
}
PRODUCTS = [
    Parallel(**dict.fromkeys(axes, 2)) for axes in (["cfg"], ["data"], ["ulysses"], ["ring"], ["tensor"])
]
PRODUCTS += [Parallel(ring=2, ulysses=2), Parallel(cfg=2, tensor=2)]


def probed(name: str, model: ModelConfig, **lists: Any) -> Iterator[tuple[RunConfig, list[Seen]]]:
    """Every setting of a method that can run, with what its attentions saw."""
    cfg = RunConfig(model=model, method=METHODS["serial"].Config(), steps=STEPS)
    grid = {"devices": [1, 2, 3], "patches": [3, 4]} | lists
    for one in expand(cfg, GridConfig(methods=[name], **grid)):
        if find_problem(SESSION.model(one.model).shape, one) is None:
            yield one, seen_by(one)


def seen_by(cfg: RunConfig) -> list[Seen]:
    with torch.inference_mode():
        return probe(cfg, SESSION)


def check_seen(cfg: RunConfig, seen: list[Seen]) -> None:
    """Own rows are fresh, nothing is of the future, no token is missing, no step incomplete."""
    shape, warmup = SESSION.model(cfg.model).shape, getattr(cfg.method, "warmup", None)
    jobs: dict[tuple[int, int], set[int]] = {(one.place.step, one.place.layer): set() for one in seen}
    for one in seen:
        step, rows, layer = one.place.step, rows_in(one.place.rows), one.place.layer
        jobs[step, layer] |= {*rows}
        assert all(one.origins[row] == step for row in rows), f"{cfg}: own rows are not fresh"
        each = [shape.token_cols if row in one.attended else 0 for row in range(shape.token_rows)]
        assert {*rows} <= {*one.attended}
        assert one.never or one.counts.sum(0).tolist() == each, f"{cfg}: tokens missing or seen twice"
        synchronous = warmup is None or step < warmup
        assert not synchronous or one.ages[0] == shape.tokens, f"{cfg}: stale in {one.place}"
        assert one.never == 0 or warmup == 0, f"{cfg}: zeros in {one.place}"
    every = {(step, layer) for step in range(STEPS) for layer in range(shape.layers)}
    assert jobs == {key: {*range(shape.token_rows)} for key in every}, f"{cfg}: not every row of every layer"


@pytest.mark.parametrize(
    ("family", "devices", "warmups"),
    [
        ("cross-attention", [1, 2, 3], [0, 1, STEPS]),
        pytest.param("four layers", [4], [0, 1, STEPS], marks=pytest.mark.slow),
        ("joint prompt", [1, 3], [1]),
        ("long skips", [1, 3], [1]),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_own_rows_are_fresh_nothing_is_of_the_future_and_no_token_is_missing(name, family, devices, warmups):
    found = [*probed(name, FAMILIES[family], warmups=warmups, devices=devices)]
    assert found
    for cfg, seen in found:
        check_seen(cfg, seen)


@pytest.mark.parametrize("name", ["pipefusion", "distrifusion"])
def test_sums_of_linear_attention_are_as_old_as_keys_and_values(name):
    found, model = {}, narrow("sana_tiny", 3, 12 * 32, 2 * 32)
    for each in (model, narrow("sd3_tiny", 3, 192, 32)):
        ((cfg, seen),) = probed(name, each, warmups=[1], devices=[3], patches=[3])
        check_seen(cfg, seen)
        found[each.name] = by_row(seen)
    assert found["sana_tiny"] == found["sd3_tiny"]


@pytest.mark.parametrize("own", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("given", PRODUCTS, ids=str)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.fast_cases(20)
def test_a_product_sees_what_the_method_alone_does(name, given, own):
    devices = given.world * (1 if METHODS[name].axis in given.axes else own)
    lists = {"devices": [devices], "patches": [2], "warmups": [0, 1], "products": [given]}
    found = [*probed(name, PIXART, **lists)]
    assert found
    for cfg, seen in found:
        check_seen(cfg, seen)
        stages = getattr(parallel_degrees(cfg), METHODS[name].axis or "pipe")
        assert by_row(seen) == alone(name, stages, getattr(cfg.method, "warmup", 0)), (
            f"{cfg}: other ages than alone"
        )


@cache
def alone(name: str, devices: int, warmup: int) -> dict[tuple[int, int, int], list[int]]:
    """The ages that rows of the method without another axis see, two patches where it has any."""
    ((_, seen),) = probed(name, PIXART, devices=[devices], patches=[2], warmups=[warmup])
    return by_row(seen)


def by_row(seen: list[Seen]) -> dict[tuple[int, int, int], list[int]]:
    """The ages that the tokens of a row see, in a step and layer."""
    return {
        (one.place.step, one.place.layer, row): one.ages for one in seen for row in rows_in(one.place.rows)
    }


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].stale_kv])
def test_displaced_methods_are_stale_after_the_warm_up_and_start_from_zeros_without(name):
    cut = [
        found
        for found in probed(name, PIXART, warmups=[0, 1])
        if METHODS[name].has("patches") or found[0].devices > 1
    ]
    assert cut
    for cfg, seen in cut:
        later = [one for one in seen if one.place.step >= 1]
        assert any(one.ages[0] < one.tokens for one in later), f"{cfg}: nothing is stale"
        assert any(one.never for one in seen if one.place.step == 0) == (cfg.method.warmup == 0)


@pytest.mark.parametrize(("name", "declares"), [("pcpp", "distrifusion"), ("distrifusion", "pcpp")])
def test_a_method_that_attends_to_other_rows_than_it_declares_is_found(name, declares, monkeypatch):
    declared = METHODS[declares].attends
    lying = replace(
        METHODS[name], attends=lambda *which: declared(*which[:2], METHODS[declares].Config(), which[3])
    )
    monkeypatch.setitem(METHODS, name, lying)
    with pytest.raises(RankFailed, match=r"not the mean over .* those of rows"):
        [*probed(name, PIXART, warmups=[1], devices=[4])]


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_the_table_are_by_rank_and_job(name):
    _, seen = next(probed(name, PIXART, warmups=[1]))
    rows = [*freshness_rows(seen)]
    assert len(rows) == len(seen)
    assert [(row["rank"], row["job"]) for row in rows] == sorted((row["rank"], row["job"]) for row in rows)
    assert all(sum(row["ages"]) + row["never"] == row["tokens"] for row in rows)
