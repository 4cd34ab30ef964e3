"""`python -m analysis wandb`: offline, everything lies in the run's folder."""

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imsave

from analysis.__main__ import main


def test_an_offline_run_holds_the_tables_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tables, figures = tmp_path / "tables", tmp_path / "figures"
    tables.mkdir()
    figures.mkdir()
    pd.DataFrame({"method": ["serial"], "bytes": [2**40]}).to_csv(tables / "bytes.csv", index=False)
    (tables / "bytes.md").write_text("| serial |\n")
    imsave(figures / "curve.png", [[0.0, 1.0], [1.0, 0.0]])

    assert main(["wandb", "--project", "made-up"], tmp_path) == 0
    (run,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    assert f"wandb sync {run}" in capsys.readouterr().out.splitlines()
    for name in ("tables/bytes.csv", "tables/bytes.md", "figures/curve.png"):
        assert (run / "report" / name).read_bytes() == (tmp_path / name).read_bytes()
    media = run / "files" / "media"
    (table,) = media.rglob("*.table.json")
    assert json.loads(table.read_text())["data"] == [["serial", str(2**40)]]
    assert len(list(media.rglob("*.png"))) == 1
    log = b""
    for _ in range(100):  # written by a process of W&B's own, which may take a moment longer
        log = next(run.glob("*.wandb")).read_bytes()
        if b"curve.png" in log:
            break
        time.sleep(0.1)
    for words in (b"made-up", b"tables/bytes.csv", b"figures/curve.png", str(run / "report").encode()):
        assert words in log
