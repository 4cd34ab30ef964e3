"""`measure=plan`: the grid, its ranking and what it refuses."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.choose import best, check_plan, points, verdict
from experiments.records import read_json
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
        "measure.devices=[2,3]",
        "measure.patches=[2]",
        "measure.workers=1",
    ]
    assert command(monkeypatch, *PLAN, *keys, "hydra.run.dir=here") == 0
    table = pd.read_csv(tmp_path / "here" / "plan.csv")
    assert len(table) == 5
    skipped = table[table.status == "skipped"]
    assert list(skipped.method) == ["ring"] and "does not divide" in skipped.reason.iloc[0]
    assert read_json(tmp_path / "here" / "plan.json")["predicted"] is True
    text = capsys.readouterr().out
    assert "fastest: " in text and "1 of them skipped" in text
    ranked = best(table)
    assert list(ranked.predicted_latency_s) == sorted(ranked.predicted_latency_s)


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
