"""Several commands at once: every run is made once, and none is mixed with another."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.command import cli
from experiments.records import read_json
from experiments.runs.agent import prepare
from tests.experiments.commands import QUICK

RUN = [*QUICK, "cluster=sim", "devices=2", "measure.memory=false"]


def run_in(folder: str, number: int, arguments: list[str]) -> None:
    """`python run.py ARGUMENTS` in a process that has torch already; what it says is in NUMBER.txt."""
    os.chdir(folder)
    with open(f"{number}.txt", "w", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        sys.argv = ["run.py", *arguments]
        code = cli.main(arguments)
    sys.exit(code)


def together(folder: Path, *commands: list[str]) -> tuple[list[int | None], list[str]]:
    """Exit codes, and what each said."""
    prepare()
    context = multiprocessing.get_context("forkserver")
    processes = [
        context.Process(target=run_in, args=(str(folder), number, arguments))
        for number, arguments in enumerate(commands)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    texts = [(folder / f"{number}.txt").read_text() for number in range(len(commands))]
    return [process.exitcode for process in processes], texts


@pytest.mark.slow
def test_sweeps_share_their_runs(tmp_path: Path) -> None:
    sweep = ["-m", *RUN, "method=pipefusion,ring", "seed=0,1"]
    codes, texts = together(tmp_path, sweep, sweep)
    assert codes == [0, 0], texts
    lines = [line.split(":")[0] for text in texts for line in text.splitlines()]
    assert lines.count("ok") == 4 and lines.count("had") == 4, texts
    records = [read_json(path) or {} for path in tmp_path.glob("results/runs/sweep/*/run.json")]
    assert [record["status"] for record in records] == ["ok"] * 4


@pytest.mark.slow
def test_runs_in_one_directory_do_not_mix(tmp_path: Path) -> None:
    methods = ["pipefusion", "ulysses"]
    codes, texts = together(tmp_path, *([*RUN, f"method={name}", "hydra.run.dir=one"] for name in methods))
    assert 0 in codes and set(codes) <= {0, 2}, texts
    for code, text in zip(codes, texts, strict=True):
        if code == 0:
            assert text.startswith("ok: ")
        else:
            assert "is held by process" in text and text.count("\n") == 1
    record = read_json(tmp_path / "one" / "run.json") or {}
    operations = set(pd.read_parquet(tmp_path / "one" / "ledger.parquet").op)
    assert record["status"] == "ok"
    assert ("all_to_all" in operations) == (record["method"] == "ulysses")
