"""`measure=staleness` from the command line on a tiny model: its files, its status rows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments import cli
from experiments.compose import plan
from experiments.config import from_hydra
from experiments.errors import ConfigError
from experiments.methods import METHODS
from experiments.staleness import measure
from experiments.staleness.measure import TABLES, check_staleness, position_errors, staleness
from tests.experiments.staleness.cases import model, run, serial

DISPLACED = [name for name in METHODS if not METHODS[name].exact]
TINY = ["experiment=staleness", "model=pixart_tiny", "steps=4", "prompt=[a tree,a house]"]
TINY += ["measure.pictures=2", "measure.probe.steps=3", "measure.probe.devices=[3,2]", "guidance_scale=3"]
TINY += ["measure.swept=[distrifusion]", "measure.warmups=[0,9]"]


def config(*overrides: str):
    cli.set_up()
    return from_hydra(plan([*TINY, *overrides]).jobs[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("staleness")
    assert staleness(config(), out) == "ok"
    return out


def test_the_record_says_what_was_run_and_why_something_was_not(folder):
    record = json.loads((folder / "staleness.json").read_text())
    assert record["prompts"] == ["a tree", "a house"] and record["branches"] == 2
    assert record["git_commit"] and record["config"]["measure"]["name"] == "staleness"
    runs = {(run["method"], run["warmup"]): run for run in record["runs"]}
    swept = {name: (0, 1, 9) if name == "distrifusion" else (1,) for name in DISPLACED}
    assert [*runs] == [(name, w) for name, warmups in swept.items() for w in warmups]
    assert [key for key, run in runs.items() if run["status"] != "ok"] == [("distrifusion", 9)]
    assert runs["distrifusion", 9]["status"] == "skipped"
    assert runs["distrifusion", 9]["reason"].startswith("method.warmup=9")
    assert [key[0] for key, run in runs.items() if run["watched"]] == DISPLACED
    assert all(run["unexplained"] < 1e-5 for run in runs.values() if run["watched"])
    skipped = [probe for probe in record["probes"] if probe["status"] == "skipped"]
    assert {(probe["method"], probe["devices"]) for probe in skipped} == {
        (name, 3)
        for name in METHODS
        if METHODS[name].problem(model().shape, 3, 3, METHODS[name].Config()) and name != "serial"
    }
    assert all(probe["reason"].startswith("devices=3") for probe in skipped)


def test_tables_have_a_row_for_everything_that_was_measured(folder):
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    assert not ((tables["freshness"].devices == 3) & (tables["freshness"].method == "ring")).any()
    changes = tables["redundancy"]
    assert changes.groupby("quantity").size().to_dict() == {"hidden": 48, "k": 48, "v": 48, "latent": 12}
    assert (changes.change > 0).all()
    errors = tables["error"]
    assert set(errors.method) == {*DISPLACED} and set(errors.warmup) == {1}
    synchronous = errors[errors.step == 0]
    assert (synchronous.attention_error < 1e-5).all() and synchronous.k_error.isna().all()
    assert (errors[errors.step > 1].attention_error > 0).any()
    steps = tables["steps"].groupby(["method", "warmup"]).size().to_dict()
    assert steps == {("distrifusion", 0): 8} | {(name, 1): 8 for name in DISPLACED}
    assert tables["map"].groupby("method").size().to_dict() == dict.fromkeys(DISPLACED, 64)


def test_the_map_adds_up_to_the_error_of_the_latent():
    from experiments.staleness.settings import Setting

    shape = model().shape
    got, want = run(Setting("pipefusion", 1, 4, 1)).latents, serial().latents
    positions = [*position_errors(got, want, shape)]
    assert [(one["row"], one["column"]) for one in positions[:9]] == [(0, c) for c in range(8)] + [(1, 0)]
    mean = sum(one["rms_error"] ** 2 for one in positions) / len(positions)
    assert mean == pytest.approx(float((got - want).square().mean()), rel=1e-4)
    changed = want.clone()
    changed[:, :, 4:8, 8:12] += 0.5  # token row 1, column 2
    assert [one["rms_error"] for one in position_errors(changed, want, shape) if one["rms_error"]] == [
        pytest.approx(0.5, rel=1e-5)
    ]


def test_attention_that_the_probe_does_not_explain_fails_the_run(monkeypatch, tmp_path, capsys):
    """The probe of another warm-up says other origins than those the run has."""
    from dataclasses import replace

    honest = measure.probe
    monkeypatch.setattr(measure, "probe", lambda view, s, sched: honest(view, replace(s, warmup=2), sched))
    cfg = config("measure.methods=[naive_patch]", "measure.swept=[]", "measure.probe.devices=[2]")
    assert staleness(cfg, tmp_path) == "failed"
    assert "off what the probe explains" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["measure.pictures=3"], "measure.pictures=3 pictures, and there are 2 prompts; allowed: 1..2"),
        (
            ["measure.methods=[distrifuson]"],
            "measure.methods='distrifuson' is unknown, nearest: distrifusion",
        ),
        (["measure.swept=[tensor]"], "measure.swept='tensor' is unknown"),
        (["measure.warmups=[-1]"], "measure.warmups.0=-1 is too small; allowed: 0.."),
        (["measure.probe.model=nope"], "measure.probe.model='nope' is unknown"),
        (["measure.probe.warmups=[]"], "measure.probe.warmups=[] leaves nothing to do"),
        (["steps=1"], "steps=1 leaves no step with an age; allowed: 2 or more"),
        (["model.dtype=bfloat16"], "model.dtype=bfloat16 has errors of its own; allowed: float32"),
        (["seed=[1,2]"], "seed=[1, 2] is no number"),
    ],
)
def test_what_is_refused(overrides, says):
    with pytest.raises(ConfigError) as error:
        check_staleness(config(*overrides))
    assert str(error.value).startswith(says) and "allowed:" in str(error.value)
