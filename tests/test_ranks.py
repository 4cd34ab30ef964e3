"""The standing ranks of the tests end with the process that started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.experiments.commands import ROOT, alive, rank_pids, wait_until
from tests.ranks import Ranks

STARTS = """
import sys
from pathlib import Path
from tests import ranks, test_ranks
ranks.PRELOAD[:] = ["torch"]
with ranks.Ranks() as two:
    two.run(2, test_ranks.wait_for_ever, Path(sys.argv[1]))
"""


def wait_for_ever(folder: Path) -> None:
    """Rank 0 is in a communication that rank 1 never comes to."""
    (folder / f"pid-{dist.get_rank()}").write_text(str(os.getpid()))
    if dist.get_rank() == 0:
        dist.all_reduce(torch.ones(1))
    signal.pause()


def whoami() -> tuple[int, int]:
    return dist.get_rank(), os.getpid()


def test_ranks_start_anew_when_one_is_gone() -> None:
    with Ranks() as two:
        first = two.run(2, whoami)
        assert [rank for rank, _ in first] == [0, 1] and two.run(2, whoami) == first
        os.kill(first[1][1], signal.SIGKILL)
        two.processes[1].join(10)
        again = two.run(2, whoami)
        assert [rank for rank, _ in again] == [0, 1] and not {pid for _, pid in again} & {
            pid for _, pid in first
        }


@pytest.mark.slow
def test_ranks_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS, str(tmp_path)], cwd=ROOT) as parent:
        wait_until(lambda: len(rank_pids(tmp_path)) == 2 and all(rank_pids(tmp_path)))
        assert all(alive(pid) for pid in rank_pids(tmp_path))
        parent.kill()
    wait_until(lambda: not any(alive(pid) for pid in rank_pids(tmp_path)))
