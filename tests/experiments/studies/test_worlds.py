"""`cluster=sim` and `cluster=` named hardware by command: the run directory, what does not fit, what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from experiments.records import read_json
from pipefusion.sim.faults import Faults, Kill
from pipefusion.sim.world import World
from tests.experiments.commands import QUICK, command


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, folder: str, *overrides: str) -> int:
    return command(monkeypatch, *QUICK, *overrides, f"hydra.run.dir={folder}")


@pytest.mark.slow
def test_sim_writes_what_local_writes(tmp_path, monkeypatch, capsys):
    keys = ("devices=3", "method.patches=4", "steps=3")
    assert run(monkeypatch, "local", *keys) == 0
    assert run(monkeypatch, "sim", *keys, "cluster=sim") == 0
    assert "s (virtual time)  sim\n" in capsys.readouterr().out
    ours, theirs = ({path.name for path in (tmp_path / name).iterdir()} for name in ("sim", "local"))
    assert ours == theirs - {"logs"}
    latents = [load_file(tmp_path / name / "latents.safetensors")["latents"] for name in ("sim", "local")]
    assert torch.equal(*latents)
    tables = [pd.read_csv(tmp_path / name / "ranks.csv") for name in ("sim", "local")]
    exact = [name for name in tables[0] if name.endswith("_bytes") and "cuda" not in name] + ["layers"]
    pd.testing.assert_frame_equal(tables[0][exact], tables[1][exact])
    ledgers = [pd.read_parquet(tmp_path / name / "ledger.parquet") for name in ("sim", "local")]
    places = ["rank", "step", "patch", "op", "peer", "bytes"]
    pd.testing.assert_frame_equal(ledgers[0][places], ledgers[1][places])


def test_a_killed_rank_of_sim_ends_the_run_and_is_named(tmp_path, monkeypatch, capsys):
    world = partial(World, faults=Faults(kill=Kill(rank=1, call=3)))
    monkeypatch.setattr("experiments.runs.simulate.World", world)
    assert run(monkeypatch, "killed", "devices=2", "cluster=sim") == 1
    reason = "RankFailed: rank 1: Killed: killed at communication 3"
    assert reason in capsys.readouterr().err
    record = read_json(tmp_path / "killed" / "run.json")
    assert (record["status"], record["reason"]) == ("failed", reason)


@pytest.mark.slow
def test_plan_writes_a_run_without_latents(tmp_path, monkeypatch, capsys):
    keys = (
        "model=pixart_alpha",
        "cluster=l40_pcie",
        "devices=8",
        "model.resolution=1024",
        "method.patches=4",
    )
    assert run(monkeypatch, "plan", *keys) == 0
    assert "s (predicted)  plan\n" in capsys.readouterr().out
    record = read_json(tmp_path / "plan" / "run.json")
    assert (record["status"], record["world"], record["predicted"]) == ("ok", "plan", True)
    assert record["latency_s"]["predicted"] is True
    assert not (tmp_path / "plan" / "latents.safetensors").exists()
    ranks = pd.read_csv(tmp_path / "plan" / "ranks.csv")
    assert list(ranks.layer_count) == [4, 4, 4, 4, 3, 3, 3, 3]
    for held in ("param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "sent_bytes", "recv_bytes"):
        assert (ranks[held] == ranks[f"predicted_{held}"]).all(), held
    assert (ranks.peak_bytes > ranks.param_bytes + ranks.kv_bytes).all()
    total = ranks.compute_s + ranks.wait_s + ranks.idle_s
    assert total.to_list() == pytest.approx(ranks.latency_s.to_list())
    spans = pd.read_parquet(tmp_path / "plan" / "timeline.parquet")
    assert (
        set(spans["rank"]) == set(range(8)) and spans.end_s.max() <= record["latency_s"]["median"] * 1.000001
    )


def test_what_does_not_fit_is_oom_with_the_bytes_missing(tmp_path, monkeypatch, capsys):
    keys = (
        "model=pixart_alpha",
        "cluster=t4_pcie",
        "devices=4",
        "model.resolution=4096",
        "method=distrifusion",
    )
    assert run(monkeypatch, "oom", *keys) == 1
    error = capsys.readouterr().err
    assert error.startswith("oom: rank ") and "more than the" in error and "that t4 has" in error
    record = read_json(tmp_path / "oom" / "run.json")
    assert record["status"] == "oom" and "latency_s" not in record
    ranks = pd.read_csv(tmp_path / "oom" / "ranks.csv")
    assert (ranks.missing_bytes > 0).all() and ranks.latency_s.isna().all()
    assert (ranks.peak_bytes - ranks.missing_bytes == ranks.room_bytes).all()
