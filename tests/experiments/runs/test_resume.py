"""A sweep that was killed: its ranks end, its finished runs stay, the rest is run by the same command."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from analysis.runs import frame
from experiments.records import read_json
from tests.experiments.commands import QUICK, command, session, start, wait_until


@pytest.mark.slow
def test_killed_sweep_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", *QUICK, "devices=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]

    def statuses() -> list[str]:
        return [(read_json(path) or {})["status"] for path in sorted(tmp_path.glob("*/run.json"))]

    with start(*sweep, start_new_session=True) as process:
        wait_until(lambda: statuses() == ["ok", "running"], seconds=120)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert statuses() == ["ok", "running"]
    wait_until(lambda: not session(process.pid), seconds=10)
    assert frame.runs(tmp_path).status.tolist() == ["ok", "died"]

    first = read_json(min(tmp_path.glob("*/run.json")))
    (min(tmp_path.glob("*seed=1*")) / ".ranks.csv.1.tmp").write_text("half")
    assert command(monkeypatch, *sweep) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["had", "died", "ok"]
    assert statuses() == ["ok", "ok"]
    assert read_json(min(tmp_path.glob("*/run.json"))) == first
    assert not list(tmp_path.glob("*/.*"))
