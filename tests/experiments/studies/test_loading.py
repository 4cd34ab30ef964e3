"""`measure=loading`: a checkpoint written here is a real one, and what its ranks took is measured and kept."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from analysis.records.study import load_study
from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.grid import model_config
from experiments.models.model import open_model
from experiments.models.weights import ARCHITECTURES, check_weights
from experiments.resident import resident_bytes
from experiments.runner import check
from experiments.studies.loading import LOADING, Counted
from experiments.synthetic import identity, write_checkpoint
from pipefusion.core.weights import weight_files
from tests.experiments.commands import command, composed

FAMILIES = ["pixart_tiny", "sd3_tiny", "flux_tiny", "flux2_tiny", "hunyuan_tiny", "dit_tiny"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_written_checkpoint_is_whole_and_loads(name: str, tmp_path: Path) -> None:
    drawn = open_model(model_config(name))
    assert drawn.class_name in ARCHITECTURES
    write_checkpoint(tmp_path, drawn, torch.bfloat16, file_bytes=50_000, seed=0)
    assert check_weights(tmp_path) == tmp_path
    files = set(weight_files(tmp_path / "transformer").values())
    assert len(files) > 2 and files == set((tmp_path / "transformer").glob("*.safetensors"))
    model = open_model(replace(model_config(name), weights=str(tmp_path), architecture=None))
    assert (identity(model), model.shape) == (identity(drawn), drawn.shape)
    view, tensors = model.view(), Counted(model.tensors(), tmp_path / "transformer")
    view.load(tensors, CPU)
    stored = {key: tensor for file in files for key, tensor in load_file(file).items()}
    for key, parameter in view.model.named_parameters():
        assert torch.equal(parameter, stored[key].to(parameter.dtype)), key
    assert tensors.bytes >= 2 * sum(parameter.numel() for parameter in view.model.parameters())


def test_a_checkpoint_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    model = open_model(model_config("pixart_tiny"))
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / folder, model, torch.float32, file_bytes=1 << 30, seed=seed)
    (file,) = (tmp_path / "a" / "transformer").glob("*.safetensors")
    first, again, other = (load_file(tmp_path / each / "transformer" / file.name) for each in "abc")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["proj_out.weight"], other["proj_out.weight"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory there is now")
def test_resident_memory_is_that_of_tensors() -> None:
    # Pages of its own: an allocator may hand out memory that an earlier test left resident.
    held = torch.frombuffer(mmap.mmap(-1, 40 << 20), dtype=torch.uint8)
    before, _ = resident_bytes()
    held.fill_(1)
    now, most = resident_bytes()
    assert now - before == pytest.approx(held.nbytes, rel=0.05)
    assert most >= now


# 45 MB a rank of two: enough for shares of memory to mean something.
SMALL = [
    "experiment=loading",
    "log.wandb.mode=disabled",
    "model=pixart_tiny",
    "model.dtype=bfloat16",
    "model.architecture.num_attention_heads=8",
    "model.architecture.attention_head_dim=96",
    "model.architecture.cross_attention_dim=768",
    "measure.file_bytes=20000000",
]


def loading_config(*overrides: str) -> RunConfig:
    return composed(*SMALL, *overrides)


@pytest.mark.slow
def test_every_rank_is_measured_and_the_limit_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "weights", tmp_path / "out"
    run = [*SMALL, f"measure.folder={folder}", f"hydra.run.dir={out}"]
    methods = ["measure.methods=[tensor]", "measure.devices=[2]", "measure.limit=1.4"]
    assert command(monkeypatch, *run, *methods) == 0
    text = capsys.readouterr().out
    assert "Loading " in text and "The most memory any rank took: 1." in text
    record = load_study(out)
    rows, facts = record.rows, record.facts
    assert list(zip(rows.method, rows["rank"], rows.layers, strict=True)) == [
        ("tensor", rank, "0-3") for rank in range(2)
    ]
    assert (rows.status == "ok").all() and (rows.seconds > 0).all()
    assert rows.param_bytes.between(40e6, 60e6).all()
    assert rows.ratio.between(0.95, 1.4).all()
    assert (rows.asked_bytes == 2 * rows.param_bytes).all()  # read as float32, held as bfloat16
    assert facts["checkpoint"]["bytes"] == sum(
        tensor.nbytes
        for file in (folder / "transformer").glob("*.safetensors")
        for tensor in load_file(file).values()
    )
    assert facts["checkpoint"]["files"] > 5 and facts["checkpoint"]["dtypes"] == ["F32"]
    assert facts["command"] and facts["versions"] and facts["config"]["measure"]["limit"] == 1.4

    written = (folder / "transformer" / "config.json").stat().st_mtime_ns
    assert command(monkeypatch, *run, "measure.methods=[serial]", "measure.limit=0.5") == 1
    assert (folder / "transformer" / "config.json").stat().st_mtime_ns == written  # taken from there
    error = capsys.readouterr().err
    assert "failed: serial N=1 rank 0: a peak of " in error and error.strip().endswith("; allowed: 0.5")
    assert load_study(out).rows.status.tolist() == ["failed"]


def test_a_rank_that_ends_is_a_row_and_the_checkpoint_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __init__(self, *_: Any, **__: Any):
            raise RuntimeError("no process")

    monkeypatch.setattr("experiments.studies.loading.ProcessPoolExecutor", Broken)
    tiny = ["experiment=loading", "model=pixart_tiny", "measure.methods=[pipefusion]", "measure.devices=[2]"]
    tiny += ["log.wandb.mode=disabled"]
    assert command(monkeypatch, *tiny, f"hydra.run.dir={tmp_path}") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"failed: pipefusion N=2 rank {rank}: RuntimeError: no process" for rank in range(2)
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "rows.parquet", "manifest.json"}


def test_what_is_done_needs_no_checkpoint_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.studies.loading.loaded", lambda cfg, rank: {"rank": rank, "ratio": 1.0})
    tiny = ["experiment=loading", "model=pixart_tiny", "measure.methods=[serial]", "log.wandb.mode=disabled"]
    assert command(monkeypatch, *tiny, f"hydra.run.dir={tmp_path}") == 0
    facts = load_study(tmp_path).facts["checkpoint"]
    monkeypatch.setattr("experiments.studies.loading.write_checkpoint", None)
    assert command(monkeypatch, *tiny, f"hydra.run.dir={tmp_path}") == 0
    assert load_study(tmp_path).facts["checkpoint"] == facts and facts["files"] == 1


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("experiments.synthetic.disk_usage", lambda folder: Full)
    tiny = ["experiment=loading", "model=pixart_tiny", "measure.methods=[serial]", "log.wandb.mode=disabled"]
    assert command(monkeypatch, *tiny, f"hydra.run.dir={tmp_path}") == 1
    assert f"failed: serial N=1: OSError: {tmp_path}/checkpoint has 0.00 MiB free" in capsys.readouterr().err
    assert load_study(tmp_path).facts["checkpoint"] is None


def test_a_folder_with_another_model_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, open_model(model_config("pixart_tiny")), torch.float32, 1 << 20, 0)
    with pytest.raises(ConfigError, match=rf"measure.folder={tmp_path} has weights of another architecture"):
        check(LOADING, loading_config(f"measure.folder={tmp_path}"))
    check(LOADING, loading_config(f"measure.folder={tmp_path / 'empty'}"))
