"""`measure=plan`: the grid, its ranking and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from experiments.choose import best, check_plan, points, product_row, rivals_of, row_of, search, verdict
from experiments.models import open_model, resolved
from experiments.plan import Planner
from experiments.products import expanded, products
from experiments.records import read_json
from pipefusion.core.parallel import AXES
from tests.experiments.runs import command, config

PLAN = ["measure=plan", "cluster=l40_pcie", "model=pixart_tiny", "log.wandb.mode=disabled"]


def plan_config(*overrides: str):
    from experiments import cli
    from experiments.compose import plan
    from experiments.config import from_hydra

    cli.set_up()
    return from_hydra(plan([*PLAN, *overrides]).jobs[0])


def test_the_grid_has_every_setting_once():
    cfg = plan_config(
        "measure.methods=[serial,ring,pipefusion]",
        "measure.devices=[2,4]",
        "measure.patches=[2,8]",
        "measure.resolutions=[32,64]",
    )
    found = [
        (p.method.name, p.devices, getattr(p.method, "patches", None), p.model.resolution)
        for p in points(cfg)
    ]
    assert len(found) == len(set(found)) == 2 * (1 + 2 + 2 * 2)


def test_a_plan_ranks_what_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = [
        "measure.methods=[serial,ring,pipefusion]",
        "measure.resolutions=[32]",
        "steps=3",
        "measure.devices=[2,3]",
        "measure.patches=[2]",
        "measure.workers=1",
    ]
    assert command(monkeypatch, *PLAN, *keys, "hydra.run.dir=here") == 0
    table = pd.read_csv(tmp_path / "here" / "plan.csv")
    skipped = table[table.status == "skipped"]
    assert list(skipped.method) == ["ring"] and "does not divide" in skipped.reason.iloc[0]
    assert (table[list(AXES)].prod(axis=1) == table.devices).all()
    assert set(table[table.devices == 2].parallel) == {"cfg 2", "ring 2", "pipe 2"}
    assert dict(zip(table.parallel, table.exact, strict=True))["pipe 2"] == False  # noqa: E712
    assert read_json(tmp_path / "here" / "plan.json")["predicted"] is True
    text = capsys.readouterr().out
    assert "fastest: " in text and "1 skipped" in text and "pruned: not planned" in text
    ranked = best(table)
    assert list(ranked.predicted_latency_s) == sorted(ranked.predicted_latency_s)


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
    own = sorted(points(cfg), key=rivals_of)
    model, planner = open_model(replace(cfg.model, resolution=32)), Planner()
    rows, planned = [], []
    for group in (
        [one for one in own if rivals_of(one) == kind] for kind in dict.fromkeys(map(rivals_of, own))
    ):
        rows += search(group)
        given = [resolved(one, model) for one in group]
        every = [*given, *(other for one in given for other in expanded(one, model))]
        planned += [row_of(one, model, planner) | product_row(one, model) for one in every]
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
    monkeypatch.setattr(Planner, "plan", lambda *_: pytest.fail("planned"))
    rows = pd.DataFrame(search(list(points(cfg))))
    assert set(rows.status) == {"oom"} and rows.reason.str.contains("parameters and K, V alone").all()
    room = cfg.cluster.hardware.memory_bytes - cfg.cluster.hardware.reserved_bytes
    assert (rows.missing_bytes == rows.param_bytes + rows.kv_bytes - room).all()


def test_a_plan_of_a_picture_that_is_not_square(tmp_path, monkeypatch, capsys):
    keys = ["measure.methods=[serial]", "measure.workers=1", "model.height=96", "model.width=64"]
    assert command(monkeypatch, *PLAN, *keys, f"hydra.run.dir={tmp_path}") == 0
    (row,) = pd.read_csv(tmp_path / "plan.csv").to_dict("records")
    assert (row["height"], row["width"], row["status"]) == (96, 64, "ok")
    assert "pixart_tiny at 96 x 64 px on l40_pcie, predicted" in capsys.readouterr().out


def test_what_does_not_fit_comes_last_and_is_never_the_fastest():
    row = {"patches": None, "warmup": None, "split": None, "devices": 2, "wait_s": 0.0}
    table = pd.DataFrame(
        [
            row | {"method": "a", "status": "oom", "predicted_latency_s": None, "peak_bytes": 1 << 40},
            row | {"method": "b", "status": "ok", "predicted_latency_s": 2.0, "peak_bytes": 1 << 31},
            row | {"method": "c", "status": "ok", "predicted_latency_s": 3.0, "peak_bytes": 1 << 30},
            row | {"method": "d", "status": "skipped", "predicted_latency_s": None, "peak_bytes": None},
        ]
    )
    assert list(best(table).method) == ["b", "c", "a"]
    assert verdict(table) == "fastest: b N=2, 2.00 s; leanest: c N=2, 1.00 GiB a device, 3.00 s"
    assert verdict(table[table.method == "a"]) == "nothing fits"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["cluster=local"], "cluster=local has no costs"),
        (["measure.methods=[magic]"], "measure.methods='magic' is unknown"),
        (["measure.patches=[]"], "measure.patches=[] leaves nothing"),
        (["measure.resolutions=[33]"], "model.resolution=33 is not a multiple"),
        (["measure.resolutions=[64]", "model.height=96"], "model.height=96 contradicts model.resolution=64"),
    ],
)
def test_what_is_refused(overrides, says):
    from experiments.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        check_plan(plan_config(*overrides))
    assert str(error.value).startswith(says)


def test_config_of_a_plain_run_is_untouched():
    assert config().measure.name == "latency"
