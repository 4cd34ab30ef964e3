"""The command, from its arguments to exit code, output and files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.command.compose import first_look
from experiments.methods import METHODS
from experiments.records import read_json
from experiments.runs import launch
from tests.experiments.commands import QUICK, ROOT, command
from tests.experiments.runs import fake_rank


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, *QUICK, "devices=2", "hydra.run.dir=here") == 0
    out, err = capsys.readouterr()
    first, title, *table = out.splitlines()
    assert first.startswith("ok: pipefusion N=2: ")
    assert first.endswith("  here")
    assert title == "what each device holds, sends and waits for: M = 2 patches, W = 1 warm-up steps"
    assert [line.split()[1:3] for line in table if line.startswith("│")] == [["0", "│"], ["1", "│"]]
    assert err == ""
    record = read_json(tmp_path / "here" / "run.json")
    assert record is not None
    assert record["status"] == "ok"
    assert record["command"].startswith("run.py model=pixart_tiny")
    stored = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    assert stored["model"]["resolution"] == 32
    assert stored["method"]["name"] == "pipefusion"
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {
        "config.yaml", "run.json", "inputs.safetensors", "latents.safetensors", "ranks.csv", "ranks_repeats.csv",
        "ledger.parquet", "timeline.parquet", "images", "manifest.json",
    }  # fmt: skip


def test_sweep_records_degrees_that_devices_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They make no mesh, so that the configuration is recorded as it was given."""
    assert command(monkeypatch, "-m", *QUICK, "devices=3", "method=pipefusion", "parallel.cfg=2") == 0
    reason = "devices=3 cannot hold cfg 2; allowed: multiples of 2"
    assert f"skipped: pipefusion N=3 (cfg 2): {reason}" in capsys.readouterr().out
    (path,) = (tmp_path / "results/runs/sweep").glob("*/run.json")
    record = read_json(path)
    assert record and (record["status"], record["reason"]) == ("skipped", reason)
    assert yaml.safe_load((path.parent / "config.yaml").read_text())["parallel"]["cfg"] == 2


@pytest.mark.slow
def test_sweep_records_what_a_method_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", *QUICK, "cluster=sim", "measure.memory=false", "devices=3", "method=tensor,sync_pipeline"]
    assert command(monkeypatch, *sweep) == 0
    text = capsys.readouterr().out
    assert "skipped: tensor N=3: devices=3 does not divide the 4 attention heads" in text
    assert "ok: sync_pipeline N=3: " in text
    records = [read_json(path) for path in sorted((tmp_path / "results/runs/sweep").glob("*/run.json"))]
    assert [record and record["status"] for record in records] == ["ok", "skipped"]
    assert command(monkeypatch, *sweep) == 0  # nothing is run again
    assert "had: sync_pipeline N=3: " in capsys.readouterr().out
    assert command(monkeypatch, *sweep, "resume=false") == 0
    assert "ok: sync_pipeline N=3: " in capsys.readouterr().out


@pytest.mark.slow
def test_sweep_goes_on_after_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "run_rank", fake_rank.kill_if_seed_is_1)
    assert command(monkeypatch, "-m", *QUICK, "seed=0,1,2", "hydra.sweep.dir=here") == 1
    out, err = capsys.readouterr()
    assert err == "failed: rank 2 was killed by SIGKILL\n"
    assert out.count("ok: ") == 2
    records = [read_json(path) for path in sorted((tmp_path / "here").glob("*/run.json"))]
    assert [record and record["status"] for record in records] == ["ok", "failed", "ok"]


def test_failure_outside_the_ranks_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(launch, "write_tensors", refuse)
    assert command(monkeypatch, *QUICK, "hydra.run.dir=here") == 1
    assert capsys.readouterr().err == "failed: OSError: no space left\n"
    assert (read_json(tmp_path / "here" / "run.json") or {})["status"] == "failed"
    assert "Traceback" in (tmp_path / "here" / "logs" / "run.txt").read_text()


def test_bad_configuration_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *QUICK, "devices=9") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: devices=9 is outside 1..4 (4: the model's layers); allowed: 1..4\n"
    assert list(tmp_path.iterdir()) == []


def test_bad_configuration_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "stepz=3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: stepz=3 is for an unknown key, nearest: steps; allowed: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


LEAN = """
import sys
from multiprocessing import forkserver
from experiments.command.cli import main
refused = [main([one]) for one in ("cluster=locl", "steps=0", "stepz=3", "prompt=[]")]
slow = {"torch", "diffusers", "pandas", "wandb"} & sys.modules.keys()
refused.append(main(["method.patches=4096"]))
slow |= {"diffusers", "pandas"} & sys.modules.keys()
from experiments.gpu_check.cases import families
from experiments.grid import model_config
from experiments.models.model import open_model
shapes = [open_model(model_config(name)).shape for name in families()]
slow |= {"diffusers"} & sys.modules.keys()
print(refused, len(shapes) > 9, slow, forkserver._forkserver._forkserver_pid)
"""


def test_nothing_slow_is_imported_before_it_is_needed() -> None:
    """What needs no model is refused without torch, what needs its sizes without diffusers."""
    done = subprocess.run([sys.executable, "-c", LEAN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2, 2, 2, 2] True set() None\n"
    starts = ("cluster=locl", "steps=0", "stepz=3", "prompt=[]", "method.patches=4096 is outside 1..16")
    for line, start in zip(done.stderr.splitlines(), starts, strict=True):
        assert line.startswith(f"error: {start} ")


def test_every_way_to_choose_from_a_group_is_understood() -> None:
    chosen = ["method=ring,serial", "method=choice(ring,serial)", "cluster=glob(*)"]
    first_look([*chosen, "log=default", "steps=2"], multirun=True)


def test_configuration_is_shown_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--cfg", "job", "model=pixart_tiny") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["name"] == "pixart_tiny"
    with pytest.raises(SystemExit) as left:
        command(monkeypatch, "--help")
    assert not left.value.code
    output = capsys.readouterr().out
    assert f"method: {', '.join(sorted(METHODS))}" in output
    assert "python run.py experiment=quickstart" in output
    assert command(monkeypatch, "--cfg", "job", "model=pixart_tinny") == 2
    assert list(tmp_path.iterdir()) == []
