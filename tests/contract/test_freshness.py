"""How fresh the K, V of every method in the table are. A new row in the table is tested without a word here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import open_model, scheduler_of
from experiments.staleness.freshness import freshness_rows
from experiments.staleness.probe import probe
from experiments.staleness.settings import settings_of
from pipefusion.sim.engine import RankFailed

STEPS = 4
MODELS = {name: open_model(model_config(name)) for name in ("pixart_tiny", "sd3_tiny", "hunyuan_tiny")}
VIEWS = {name: model.view() for name, model in MODELS.items()}


def probed(name: str, family: str, warmups: list[int], devices: tuple[int, ...] = (1, 2, 3, 4)):
    """Every N and M of a method that can run, with what its attentions saw."""
    shape = MODELS[family].shape
    scheduler = scheduler_of(MODELS[family], "shipped", STEPS)
    for setting in settings_of(name, devices, [3, 4], warmups):
        if setting.problem(shape, STEPS) is None:
            yield setting, probe(VIEWS[family], setting, scheduler)


@pytest.mark.parametrize(
    ("family", "devices", "warmups"),
    [("pixart_tiny", (1, 2, 3, 4), [0, 1, STEPS]), ("sd3_tiny", (1, 3), [1]), ("hunyuan_tiny", (1, 3), [1])],
    ids=["cross-attention", "joint prompt", "long skips"],
)
@pytest.mark.parametrize("name", METHODS)
def test_own_rows_are_fresh_nothing_is_of_the_future_and_no_token_is_missing(name, family, devices, warmups):
    shape, runs = MODELS[family].shape, 0
    for setting, seen in probed(name, family, warmups, devices):
        runs += 1
        jobs = {(one.place.step, one.place.layer): set() for one in seen}
        for one in seen:
            step, rows, layer = one.place[1:]
            jobs[step, layer] |= {*rows}
            assert all(one.origins[row] == step for row in rows), f"{setting}: own rows are not fresh"
            each = [shape.token_cols if row in one.attended else 0 for row in range(shape.token_rows)]
            assert {*rows} <= {*one.attended}
            assert one.never or one.counts.sum(0).tolist() == each, f"{setting}: tokens missing or seen twice"
            synchronous = setting.warmup is None or step < setting.warmup
            assert not synchronous or one.ages[0] == shape.tokens, f"{setting}: stale in {one.place}"
            assert one.never == 0 or setting.warmup == 0, f"{setting}: zeros in {one.place}"
        every = {(step, layer) for step in range(STEPS) for layer in range(shape.layers)}
        assert jobs == {key: {*range(shape.token_rows)} for key in every}, (
            f"{setting}: not every row of every layer"
        )
    assert runs


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].exact])
def test_displaced_methods_are_stale_after_the_warm_up_and_start_from_zeros_without(name):
    cut = [found for found in probed(name, "pixart_tiny", [0, 1]) if found[0].patches or found[0].devices > 1]
    assert cut
    for setting, seen in cut:
        later = [one for one in seen if one.place.step >= 1]
        assert any(one.ages[0] < one.tokens for one in later), f"{setting}: nothing is stale"
        assert any(one.never for one in seen if one.place.step == 0) == (setting.warmup == 0)


@pytest.mark.parametrize(("name", "says"), [("pcpp", "distrifusion"), ("distrifusion", "pcpp")])
def test_a_method_that_attends_to_other_rows_than_it_declares_is_found(name, says, monkeypatch):
    declared = METHODS[says].attends
    lying = replace(
        METHODS[name], attends=lambda *which: declared(*which[:2], METHODS[says].Config(), which[3])
    )
    monkeypatch.setitem(METHODS, name, lying)
    with pytest.raises(RankFailed, match=r"not the mean over .* those of rows"):
        [*probed(name, "pixart_tiny", [1], (4,))]


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_the_table_are_by_rank_and_job(name):
    _, seen = next(probed(name, "pixart_tiny", [1]))
    rows = [*freshness_rows(seen)]
    assert len(rows) == len(seen)
    assert [(row["rank"], row["job"]) for row in rows] == sorted((row["rank"], row["job"]) for row in rows)
    assert all(sum(row[f"age_{age}"] for age in range(STEPS)) + row["never"] == row["tokens"] for row in rows)
