"""The record of a real run: seconds that add up, bytes beside their predictions, a NaN that is a failure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from experiments.config import RunConfig
from experiments.runs.launch import execute
from experiments.runs.rank import run_rank
from experiments.runs.report import layers_text
from tests.experiments.commands import config

BYTES = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "peak_bytes", "sent_bytes", "recv_bytes"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    changes = ["devices=3", "method.patches=4", "steps=5", "measure.repeats=2", "guidance_scale=2"]
    record = execute(config(*changes), out)
    assert record["status"] == "ok", record["reason"]
    assert len(record["latency_s"]["repeats"]) == 2
    return out


def test_seconds_of_every_rank_and_repeat_add_up(run_dir: Path) -> None:
    repeats = pd.read_csv(run_dir / "ranks_repeats.csv")
    assert len(repeats) == 6
    total = repeats.compute_s + repeats.issue_s + repeats.wait_s + repeats.idle_s
    assert ((total - repeats.latency_s).abs() <= 0.01 * repeats.latency_s).all(), repeats
    assert (repeats[["compute_s", "issue_s", "wait_s", "idle_s"]] > 0).all(axis=None)


def test_measured_bytes_stand_beside_equal_predictions(run_dir: Path) -> None:
    ranks = pd.read_csv(run_dir / "ranks.csv")
    for column in BYTES:
        assert (ranks[column] == ranks[f"predicted_{column}"]).all(), column
    assert list(ranks.layers) == ["0-1", "2", "3"]


def test_the_ledger_holds_every_byte_of_the_last_repeat(run_dir: Path) -> None:
    ranks, ledger = pd.read_csv(run_dir / "ranks.csv"), pd.read_parquet(run_dir / "ledger.parquet")
    repeats = pd.read_csv(run_dir / "ranks_repeats.csv")
    assert list(ledger.groupby("rank").sent_bytes.sum()) == list(ranks.sent_bytes)
    assert list(ledger.groupby("rank").recv_bytes.sum()) == list(ranks.recv_bytes)
    for column in ("issue_s", "wait_s"):
        seconds = repeats.groupby("rank")[column].last()
        assert (ledger.groupby("rank")[column].sum() - seconds).abs().max() < 1e-9


def run_rank_on_nan(run_dir: str, cfg: RunConfig) -> None:
    """A rank whose inputs hold a NaN."""
    path = Path(run_dir) / "inputs.safetensors"
    tensors = load_file(path)
    tensors["noise"][0, 0, 0, 0] = float("nan")
    save_file(tensors, path)
    run_rank(run_dir, cfg)


def test_latents_that_are_not_finite_name_rank_and_step(tmp_path: Path) -> None:
    record = execute(config("devices=1"), tmp_path, run_rank_on_nan)
    assert record["status"] == "failed"
    assert "latents not finite: rank 0, step 0" in record["reason"]


def test_layers_are_written_as_people_write_them() -> None:
    assert [layers_text(range(*pair)) for pair in ((3, 6), (3, 4), (3, 3))] == ["3-5", "3", "-"]
