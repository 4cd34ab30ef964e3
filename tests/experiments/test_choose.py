"""`measure=plan`: the search among products, its ranking and what it refuses."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.study import Record, load_study
from experiments.choose import PLAN, best, product_row, search, searches, verdict
from experiments.grid import expand, problem
from experiments.methods import METHODS, find_problem, parallel_degrees
from experiments.products import expanded, products
from experiments.runner import check, study_cells
from experiments.scaling import planned_row
from experiments.session import Session
from pipefusion.core.parallel import AXES
from tests.experiments.runs import command

MODEL = ["measure=plan", "cluster=l40_pcie", "model=pixart_tiny", "log.wandb.mode=disabled"]


def plan_config(*overrides: str):
    from experiments import cli
    from experiments.compose import plan
    from experiments.config import from_hydra

    cli.set_up()
    return from_hydra(plan([*MODEL, *overrides]).jobs[0])


def test_rivals_of_each_size_and_n_are_one_cell():
    cfg = plan_config(
        "measure.methods=[serial,ring,tensor,pipefusion]",
        "measure.devices=[2,4]",
        "measure.resolutions=[32,64]",
    )
    found = [(p.measure.methods, p.devices, p.model.resolution) for p in searches(cfg, Session())]
    one = [
        (["serial"], 1),
        (["ring", "tensor"], 2),
        (["pipefusion"], 2),
        (["ring", "tensor"], 4),
        (["pipefusion"], 4),
    ]
    assert found == [(*each, size) for size in (32, 64) for each in one]


def test_a_plan_ranks_what_fits(tmp_path, monkeypatch, capsys):
    keys = ["measure.methods=[serial,ring,pipefusion]", "measure.resolutions=[32]", "steps=3"]
    keys += ["measure.devices=[2,3]", "measure.patches=[2]", "measure.workers=1", f"hydra.run.dir={tmp_path}"]
    assert command(monkeypatch, *MODEL, *keys) == 0
    table = load_study(tmp_path).rows
    skipped = table[table.status == "skipped"]
    assert list(skipped.method) == ["ring"] and "does not divide" in skipped.reason.iloc[0]
    assert (table[list(AXES)].prod(axis=1) == table.devices).all()
    assert set(table[table.devices == 2].parallel) == {"cfg 2", "ring 2", "pipe 2"}
    assert not dict(zip(table.parallel, table.exact, strict=True))["pipe 2"]
    text = capsys.readouterr().out
    assert "fastest " in text and "1 skipped" in text and "pruned: not planned" in text
    ranked = best(table)
    assert list(ranked.predicted_latency_s) == sorted(ranked.predicted_latency_s)
    assert command(monkeypatch, *MODEL, *keys) == 0
    assert "cells are done already" in capsys.readouterr().out


@pytest.mark.parametrize(("heads", "ranks"), [("even", {1, 2, 4}), ("pad", {1, 2, 4, 8})])
def test_padded_heads_are_planned_when_asked_for(heads, ranks):
    """Of the 4 heads of the small model; its 8 token rows allow all of these."""
    grid = ["measure.methods=[ulysses,pipefusion]", "measure.devices=[2,4,8,16]", "measure.patches=[1]"]
    session = Session()
    found = {True: set(), False: set()}
    for cell in study_cells(PLAN, plan_config(*grid, f"method.heads={heads}"), session):
        model = session.model(cell.cfg.model)
        for point in expand(cell.cfg, cell.cfg.measure):
            runs = [one for one in (point, *expanded(point, model)) if not find_problem(model.shape, one)]
            found[METHODS[point.method.name].exact] |= {parallel_degrees(one).ulysses for one in runs}
    assert found == {True: ranks, False: ranks}


@pytest.mark.parametrize(("devices", "count"), [(1, 1), (8, 20), (12, 40)])
def test_products_are_all_ways_to_write_n_and_each_once(devices, count):
    """2^3 over four axes: C(6, 3); 2^2 * 3: C(5, 3) * 4."""
    found = list(products(("cfg", "ring", "ulysses", "tensor"), devices))
    assert len(found) == len({str(one) for one in found}) == count
    assert {one.world for one in found} == {devices}


FOUR = ["steps=3", "measure.devices=[4]", "measure.patches=[2]", "measure.resolutions=[32]"]


@pytest.fixture(scope="module")
def searched():
    """Every product of four devices on the small model: the rows of the search, and all of them planned."""
    cfg = plan_config(*FOUR, "measure.methods=[tensor,ulysses,ring,sync_pipeline,distrifusion,pipefusion]")
    session, rows, planned = Session(), [], []
    for cell in study_cells(PLAN, cfg, session):
        rows += [cell.place | row for row in search(cell, session)]
        model = session.model(cell.cfg.model)
        own = list(expand(cell.cfg, cell.cfg.measure))
        for one in [*own, *(other for each in own for other in expanded(each, model))]:
            planned += (
                [product_row(one, model.shape) | planned_row(one, session)]
                if problem(one, model) is None
                else []
            )
    return pd.DataFrame(rows), pd.DataFrame(planned)


def test_the_fastest_of_all_products_is_never_pruned(searched):
    assert "pruned" in set(searched[0].status)
    for exact, method in ((True, None), (False, "distrifusion"), (False, "pipefusion")):
        ours, all_of_them = (t[(t.exact == exact) & (method is None or t.method == method)] for t in searched)
        assert ours.predicted_latency_s.min() == pytest.approx(all_of_them.predicted_latency_s.min())
        pruned = ours[ours.status == "pruned"]
        assert (pruned.bound_s > ours.predicted_latency_s.min()).all()


def test_a_bound_is_below_what_is_planned_and_not_far(searched):
    both = searched[0].merge(
        searched[1], on=[*AXES, "patches", "warmup", "split", "exact"], suffixes=("", "_all")
    )
    both = both[both.status_all == "ok"]
    assert len(both) > 20
    ratios = both.bound_s / both.predicted_latency_s_all
    assert ratios.max() <= 1
    assert ratios.median() > 0.5


def test_an_exact_product_is_planned_once_whatever_it_is_called(searched):
    exact = searched[0][searched[0].exact & (searched[0].status != "skipped")]
    assert not exact.duplicated(list(AXES)).any()
    assert {"cfg 2 x ring 2", "ulysses 2 x tensor 2", "cfg 2 x pipe 2"} <= set(exact.parallel)
    own = searched[0][~searched[0].exact]
    assert ((own["pipe"] > 1) | (own["patch"] > 1)).all()  # a displaced method keeps its axis


def test_what_cannot_hold_its_parameters_and_kv_is_oom_without_a_plan(monkeypatch):
    cfg = plan_config(*FOUR, "measure.methods=[pipefusion]", "cluster.hardware.memory_bytes=1")
    monkeypatch.setattr("experiments.choose.plan", lambda *_: pytest.fail("planned"))
    session = Session()
    (cell,) = study_cells(PLAN, cfg, session)
    rows = pd.DataFrame(search(cell, session))
    assert set(rows.status) == {"oom"} and rows.reason.str.contains("parameters and K, V alone").all()
    room = cfg.cluster.hardware.memory_bytes - cfg.cluster.hardware.reserved_bytes
    assert (rows.missing_bytes == rows.param_bytes + rows.kv_bytes - room).all()


def test_a_plan_of_a_picture_that_is_not_square(tmp_path, monkeypatch, capsys):
    keys = ["measure.methods=[serial]", "measure.workers=1", "model.height=96", "model.width=64"]
    assert command(monkeypatch, *MODEL, *keys, f"hydra.run.dir={tmp_path}") == 0
    (row,) = load_study(tmp_path).rows.to_dict("records")
    assert (row["height"], row["width"], row["status"]) == (96, 64, "ok")
    assert "96 x 64 px: fastest serial" in capsys.readouterr().out


def test_what_does_not_fit_comes_last_and_is_never_the_fastest():
    row = {
        "patches": None,
        "warmup": None,
        "split": None,
        "devices": 2,
        "wait_s": 0.0,
        "height": 8,
        "width": 8,
    }
    row |= {"parallel": "ring 2"} | dict.fromkeys(AXES, 1)
    table = pd.DataFrame(
        [
            row | {"method": "a", "status": "oom", "predicted_latency_s": None, "peak_bytes": 1 << 40},
            row | {"method": "b", "status": "ok", "predicted_latency_s": 2.0, "peak_bytes": 1 << 31},
            row | {"method": "c", "status": "ok", "predicted_latency_s": 3.0, "peak_bytes": 1 << 30},
            row | {"method": "d", "status": "skipped", "predicted_latency_s": None, "peak_bytes": None},
        ]
    )
    assert list(best(table).method) == ["b", "c", "a"]
    said = "8 x 8 px: fastest b N=2 (ring 2), 2.00 s; leanest c N=2 (ring 2), 1.00 GiB per device, 3.00 s"
    assert verdict(Record({}, table)).startswith(said)
    assert verdict(Record({}, table[table.method == "a"])).startswith("8 x 8 px: nothing fits")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["cluster=local"], "cluster=local has no costs"),
        (["measure.methods=[magic]"], "measure.methods='magic' is unknown"),
        (
            ["measure.resolutions=[33]"],
            "measure=plan leaves no cell that can run: model.resolution=33 is",
        ),
    ],
)
def test_what_is_refused(overrides, says):
    from experiments.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        check(PLAN, plan_config(*overrides))
    assert str(error.value).startswith(says) and "allowed: " in str(error.value)
