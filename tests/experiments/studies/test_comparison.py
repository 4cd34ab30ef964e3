"""`measure=comparison`: a tiny model with two methods, a knob and a machine, by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.methods.comparison import joined
from analysis.records.study import load_study
from tests.experiments.commands import command

SMALL = [
    "measure=comparison",
    "cluster=sim",
    "model=pixart_tiny",
    *(f"++model.architecture.{name}=3" for name in ("in_channels", "out_channels")),
    "model.resolution=64",
    "steps=3",
    "prompt=[one,two]",
    "log.wandb.mode=disabled",
    "hydra.run.dir=run",
    "measure.workers=1",
    "measure.latency_resolutions=[1024]",
]
GRIDS = [
    "{methods: [serial, ring], devices: [4]}",
    "{methods: [ring], devices: [4], compresses: [int4]}",
    "{methods: [pipefusion], patches: [4], warmups: [1, S], devices: [2, 4]}",
    "{methods: [ulysses], caches: [none, fbcache], cache_thresholds: [1000.0], devices: [2]}",
    "{methods: [asyncdiff, pipefusion], patches: [4], warmups: [auto], warmup_thresholds: [0.0, 1000.0], devices: [2]}",
]


@pytest.mark.slow
def test_settings_are_sampled_once_and_planned_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    grids = f"measure.grids=[{','.join(GRIDS)}]"
    assert command(monkeypatch, *SMALL, "measure.latency_clusters=[l40_pcie]", grids) == 0
    rows = load_study(tmp_path / "run").rows
    (skipped,) = rows[rows.method == "asyncdiff"].reason
    assert skipped == "method.warmup=auto is not known of asyncdiff; allowed: a number"
    rows = rows[rows.method != "asyncdiff"]
    found = rows[rows.found_warmup.notna()].set_index("warmup_threshold")
    assert len(found) == 2 * 2 and found.warmup.isna().all()  # each picture alone, and no plan
    assert {*found.found_warmup[0.0]} == {3} and (found.relative_error[0.0] == 0).all()
    assert {*found.found_warmup[1000.0]} == {2} and (found.relative_error[1000.0] > 0).all()
    cached = rows[(rows.cache == "fbcache") & rows.picture.notna()]  # of three steps the first and the last
    assert [*cached.computed_steps] == [2.0, 2.0] and (cached.relative_error > 0).all()
    plans = joined(rows).set_index(["method", "knobs"]).predicted_latency_s
    skips = plans["ulysses", "cache fbcache, cache threshold 1000.0"]
    assert plans["ulysses", ""] * 2 / 3 < skips < plans["ulysses", ""] * 0.75  # and its first block
    rows = rows[rows.found_warmup.isna() & (rows.cache != "fbcache")]
    sampled = rows[rows.picture.notna()].set_index(["method", "knobs", "warmup", "devices"]).sort_index()
    assert len(sampled) == 2 * 8 and set(rows.cluster) == {"sim", "l40_pcie"}
    assert (sampled.relative_error[sampled.sampled_as.str.startswith("serial")] == 0).all()
    assert (sampled.relative_error.loc["ring", "compress int4"] > 0).all()
    pipefusion = sampled.loc["pipefusion"].relative_error
    assert (pipefusion.xs(1, level="warmup") > 0).all() and (pipefusion.xs(3, level="warmup") == 0).all()
    two, four = (pipefusion.xs((1, devices), level=("warmup", "devices")) for devices in (2, 4))
    assert [*two] == [*four]  # the result does not depend on N
    table = joined(rows)
    assert len(table) == 8 and (table.predicted_latency_s > 0).all()
    exact = table[(table.method == "ring") & (table.knobs == "")].iloc[0]
    assert exact.relative_error == 0 and exact.psnr_db == float("inf")
    assert table[table.method == "serial"].speedup.tolist() == [1.0]
    capsys.readouterr()
    assert command(monkeypatch, *SMALL, "measure.latency_clusters=[sim]") == 2
    assert "measure.latency_clusters=sim has no costs; allowed: " in capsys.readouterr().err
    assert command(monkeypatch, *SMALL, "measure.latency_model=nothing") == 2
    assert "measure.latency_model='nothing' is unknown" in capsys.readouterr().err
