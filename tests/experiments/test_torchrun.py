"""The same command under two torchrun agents on one machine: it finds its rank and starts none."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd

from experiments.records import read_json
from tests.experiments.runs import QUICK, ROOT


def test_two_agents_run_one_sweep(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    agent = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test", "--local-addr=localhost",
    ]  # fmt: skip
    arguments = ["run.py", "-m", *QUICK, "devices=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    agents = [
        subprocess.Popen([*agent, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in agents]
    assert [process.returncode for process in agents] == [0, 0], outputs
    assert sorted(out.count("ok: pipefusion N=2: ") for out, _ in outputs) == [0, 2]  # rank 0 alone speaks
    for seed in (0, 1):
        (run_dir,) = tmp_path.glob(f"*seed={seed}*")
        assert (read_json(run_dir / "run.json") or {})["status"] == "ok"
        ranks = pd.read_csv(run_dir / "ranks.csv")
        assert list(ranks["rank"]) == [0, 1]
        assert list(ranks["layers"]) == ["0-1", "2-3"]
