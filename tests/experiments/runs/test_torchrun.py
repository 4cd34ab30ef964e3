"""The same command under two torchrun agents on one machine: it finds its rank and starts none."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.records import read_json
from tests.experiments.commands import QUICK, ROOT, end_with_parent


@pytest.mark.slow
def test_two_agents_share_one_run(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    agent = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test", "--local-addr=localhost",
    ]  # fmt: skip
    arguments = ["run.py", *QUICK, "devices=2", f"hydra.run.dir={tmp_path}"]
    agents = [
        subprocess.Popen(
            [*agent, *arguments],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in agents]
    assert [process.returncode for process in agents] == [0, 0], outputs
    assert sorted(out.count("ok: pipefusion N=2: ") for out, _ in outputs) == [0, 1]  # rank 0 alone speaks
    assert (read_json(tmp_path / "run.json") or {})["status"] == "ok"
    ranks = pd.read_csv(tmp_path / "ranks.csv")
    assert list(ranks["rank"]) == [0, 1]
    assert list(ranks["layers"]) == ["0-1", "2-3"]
