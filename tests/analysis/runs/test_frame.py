"""Tidy frames over run directories."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from analysis.presentation.columns import words
from analysis.records.keep import keep
from analysis.runs import frame, sweep
from pipefusion.core.parallel import Parallel
from tests.analysis.synthetic import write_run, write_sweep


def test_one_row_a_run_with_failures_as_rows(tmp_path: Path) -> None:
    runs = frame.runs(write_sweep(tmp_path)).set_index("method")
    assert len(runs) == 8
    assert runs.loc["naive_patch", "status"] == "failed"
    assert runs.loc["naive_patch", "reason"] == "rank 2 was killed by SIGKILL"
    assert pd.isna(runs.loc["naive_patch", "latency_s"])
    assert runs.loc["serial", "repeats_s"] == (2.0, 2.2, 2.1)
    assert runs.loc["pipefusion", ["patches", "warmup"]].tolist() == [4, 1]


def test_one_row_a_rank_nothing_summed(tmp_path: Path) -> None:
    ranks = frame.ranks(write_sweep(tmp_path))
    assert len(ranks) == 1 + 5 * 4
    assert ranks[ranks.method == "pipefusion"].layers.tolist() == ["0-2", "3-5", "6-8", "9-11"]


def test_a_single_layer_is_read_as_words(tmp_path: Path) -> None:
    write_run(tmp_path, "pipefusion", devices=12)
    assert frame.ranks(tmp_path).layers.tolist() == [str(layer) for layer in range(12)]


def test_ledger_rows_know_their_run(tmp_path: Path) -> None:
    ledger = frame.ledger(write_sweep(tmp_path))
    assert {"run", "method", "devices", "rank", "op", "bytes"} <= set(ledger.columns)


def test_an_empty_folder_gives_empty_frames(tmp_path: Path) -> None:
    assert frame.runs(tmp_path).empty
    assert frame.ranks(tmp_path).empty


def test_models_given_as_mappings_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, "serial")
    text = (run / "run.json").read_text().replace('"model": "emoji64"', '"model": {"name": "emoji64"}')
    (run / "run.json").write_text(text)
    assert frame.runs(tmp_path).model.tolist() == ["emoji64"]


def test_a_size_is_told_by_height_and_width(tmp_path: Path) -> None:
    """Runs of 96 x 64 and 64 x 96 are not of one task, though neither has a `resolution`; nor do old ones differ."""
    path = write_run(tmp_path, "serial") / "run.json"
    record = json.loads(path.read_text())
    assert frame.runs(tmp_path).px.tolist() == ["64"]
    for size, px in (((64, 64), "64"), ((96, 64), "96 x 64"), ((64, 96), "64 x 96")):
        sides = {"height": size[0], "width": size[1], "resolution": size[0] if size[0] == size[1] else None}
        path.write_text(json.dumps(record | sides))
        assert frame.runs(tmp_path).px.tolist() == [px]
    assert "px" in frame.SAME_TASK


def test_keep_copies_whole_runs_and_no_leftovers(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs")
    kept = tmp_path / "records"
    (kept / "old").mkdir(parents=True)
    assert len(keep(tmp_path / "runs", kept)) == 8
    assert not (kept / "old").exists()
    assert not list(kept.rglob(".progress.json"))
    assert len(frame.ranks(kept)) == len(frame.ranks(tmp_path / "runs"))


def test_keep_refuses_an_empty_folder_and_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(FileNotFoundError):
        keep(tmp_path / "nothing", tmp_path / "records")
    assert (tmp_path / "records").exists()


def test_analysis_needs_neither_torch_nor_experiments() -> None:
    code = (
        "import sys, analysis.__main__; "
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'diffusers', 'experiments', 'pipefusion')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_degrees_are_worded_as_the_core_words_them(tmp_path: Path) -> None:
    """Analysis cannot import the core, so that the same words stand twice."""
    for given in (Parallel(cfg=2, pipe=4), Parallel(ring=2, ulysses=3), Parallel(tensor=8)):
        write_config(tmp_path, given)
        assert frame.in_words(frame.parallel(tmp_path)) == str(given)


def test_a_product_is_more_than_the_axis_of_the_method(tmp_path: Path) -> None:
    for folder, method, given in [
        ("a", "pipefusion", Parallel(pipe=4)),
        ("b", "pipefusion", Parallel(cfg=2, pipe=2)),
        ("c", "serial", Parallel(cfg=2)),
        ("d", "serial", Parallel()),
        ("e", "pipefusion", Parallel(pipe=2)),  # skipped: its four devices do not fit
    ]:
        write_config(write_run(tmp_path / folder, method), given)
    write_run(tmp_path / "f", "pipefusion")  # of before there were degrees
    runs = frame.runs(tmp_path)
    assert runs["product"].fillna("").tolist() == ["", "cfg 2 x pipe 2", "cfg 2", "", "pipe 2", ""]
    assert runs.degrees.fillna("").tolist() == ["pipe 4", "cfg 2 x pipe 2", "cfg 2", "", "pipe 2", ""]
    text = words(sweep.methods(tmp_path), sweep.METHODS_SHOWN)
    assert sorted(text.ranks) == ["4", "4", "4", "cfg 2", "cfg 2 x pipe 2", "pipe 2"]


def write_config(run: Path, given: Parallel) -> None:
    OmegaConf.save({"parallel": asdict(given)}, run / "config.yaml")
