"""`measure=staleness` from the command line on a tiny model: its rows, what becomes of failures, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from analysis.staleness.tables import Record, load
from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.methods import METHODS
from experiments.runner import check
from experiments.runner import run as run_study
from experiments.staleness import measure
from experiments.staleness.measure import STALENESS, position_errors
from pipefusion.core.parallel import Parallel
from tests.experiments.commands import composed
from tests.experiments.staleness.cases import case, run, serial, shape

DISPLACED = [name for name in METHODS if METHODS[name].stale_kv]
TINY = ["experiment=staleness", "model=pixart_tiny", "steps=4", "prompt=[a tree,a house]"]
TINY += ["measure.pictures=2", "measure.probe.steps=[3]", "measure.probe.devices=[3,2]", "guidance_scale=3"]
TINY += ["measure.swept=[distrifusion]", "measure.warmups=[0,9]", "measure.workers=1"]


def config(*overrides: str) -> RunConfig:
    return composed(*TINY, *overrides)


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Record:
    out = tmp_path_factory.mktemp("staleness")
    assert run_study(STALENESS, config(), out) == "ok"
    return load(out)


@pytest.mark.slow
def test_the_record_says_what_was_run_and_why_something_was_not(record):
    assert record.facts["prompts"] == ["a tree", "a house"] and record.facts["branches"] == 2
    runs = {(run["method"], run["warmup"]): run for run in record.runs.to_dict("records")}
    swept = {name: (0, 1, 9) if name == "distrifusion" else (1,) for name in DISPLACED}
    assert [*runs] == [(name, w) for name, warmups in swept.items() for w in warmups]
    assert [key for key, run in runs.items() if run["status"] != "ok"] == [("distrifusion", 9)]
    assert runs["distrifusion", 9]["reason"].startswith("method.warmup=9")
    watched = record.runs[record.runs.watched.fillna(False)]
    assert watched.method.tolist() == DISPLACED and (watched.unexplained < 1e-5).all()
    assert set(record.runs[record.runs.method == "pipefusion"].devices) == {1}
    unable = record.probes[record.probes.status == "skipped"]
    without = unable.reason.str.startswith("method.warmup=0")
    assert {*unable[without].method} == {"asyncdiff", "parastep"}  # nothing kept that could start from zeros
    skipped = unable[~without]
    assert {*skipped.method} == {
        name
        for name in METHODS
        if METHODS[name].problem(shape(), 3, 3, METHODS[name].Config()) and name != "serial"
    }
    assert set(skipped.devices) == {3} and skipped.reason.str.startswith("devices=3").all()


def test_tables_have_a_row_for_everything_that_was_measured(record):
    changes, errors = record.redundancy, record.error
    assert changes.groupby("quantity").size().to_dict() == {"hidden": 48, "k": 48, "v": 48, "latent": 12}
    assert (changes.change > 0).all()
    assert set(errors.method) == {*DISPLACED} and set(errors.warmup) == {1}
    synchronous = errors[errors.step == 0]
    assert (synchronous.attention_error < 1e-5).all() and synchronous.k_error.isna().all()
    assert (errors[errors.step > 1].attention_error > 0).any()
    steps = record.steps.groupby(["method", "warmup"]).size().to_dict()
    assert steps == {("distrifusion", 0): 8} | {(name, 1): 8 for name in DISPLACED}
    assert record.map.groupby("method").size().to_dict() == dict.fromkeys(DISPLACED, 64)


@pytest.mark.slow
def test_products_are_cells_like_others(tmp_path):
    lists = ["measure.methods=[pipefusion]", "measure.probe.methods=[pipefusion]", "measure.swept=[]"]
    cfg = config(*lists, "measure.probe.devices=[4]", "measure.probe.patches=[2]")
    given = [Parallel(), Parallel(cfg=2), Parallel(ulysses=2)]
    cfg.measure = replace(cfg.measure, products=given, probe=replace(cfg.measure.probe, products=given))
    assert run_study(STALENESS, cfg, tmp_path) == "ok"
    record = load(tmp_path)
    assert record.runs.parallel.tolist() == ["1 device", "cfg 2", "ulysses 2"]
    probes = record.probes.drop_duplicates("parallel").parallel.tolist()
    assert probes == ["pipe 4", "cfg 2 x pipe 2", "pipe 2 x ulysses 2"]
    assert (record.runs.status == "ok").all() and (record.probes.status == "ok").all()


def test_the_map_adds_up_to_the_error_of_the_latent():
    got, want = run(case("pipefusion", patches=4))[-1], serial()[-1]
    positions = [*position_errors(got, want, shape())]
    assert [(one["row"], one["column"]) for one in positions[:9]] == [(0, c) for c in range(8)] + [(1, 0)]
    mean = sum(one["rms_error"] ** 2 for one in positions) / len(positions)
    assert mean == pytest.approx(float((got - want).square().mean()), rel=1e-4)
    changed = want.clone()
    changed[:, :, 4:8, 8:12] += 0.5  # token row 1, column 2
    assert [one["rms_error"] for one in position_errors(changed, want, shape()) if one["rms_error"]] == [
        pytest.approx(0.5, rel=1e-5)
    ]


@pytest.mark.slow
def test_attention_that_the_probe_does_not_explain_fails_the_run(monkeypatch, tmp_path, capsys):
    """The probe of another warm-up says other origins than those the run has."""
    honest = measure.probe
    late = replace(METHODS["naive_patch"].Config(), warmup=2)
    monkeypatch.setattr(measure, "probe", lambda cfg, session: honest(replace(cfg, method=late), session))
    lists = ["measure.methods=[naive_patch]", "measure.swept=[]", "measure.probe.methods=[serial]"]
    assert run_study(STALENESS, config(*lists), tmp_path) == "failed"
    assert "off what the probe explains" in capsys.readouterr().err
    assert load(tmp_path).runs.status.tolist() == ["failed"] and len(load(tmp_path).error)


@pytest.mark.slow
def test_a_failing_probe_and_a_failing_serial_run_are_rows(monkeypatch, tmp_path):
    def fail(*args, **kwargs) -> torch.Tensor:
        raise FloatingPointError("latents are NaN")

    monkeypatch.setattr(measure, "latents_by_step", fail)
    monkeypatch.setattr(measure, "probe", fail)
    lists = ["measure.methods=[distrifusion]", "measure.swept=[]", "measure.probe.methods=[serial]"]
    assert run_study(STALENESS, config(*lists), tmp_path) == "failed"
    record = load(tmp_path)
    for rows in (record.probes, record.runs):
        assert rows.reason.tolist() == ["FloatingPointError: latents are NaN"]
    assert record.redundancy.empty and record.facts["counts"] == {"failed": 3}


def test_several_seeds_are_refused():
    with pytest.raises(ConfigError, match=r"^seed=\[1, 2\] is no number; allowed: "):
        check(STALENESS, config("seed=[1,2]"))
