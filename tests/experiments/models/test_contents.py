"""What decides a result decides its key: contents of files, whatever they are called."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.config import RunConfig
from experiments.models.contents import hash_files, run_key
from experiments.models.model import open_model
from experiments.quality.texts import texts_path
from experiments.runs.launch import complete
from experiments.session import Session
from tests.experiments.commands import QUICK, command, config


@pytest.fixture
def weights(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("pixart_alpha"), tmp_path / "weights"))


def run_config(weights: Path, *overrides: str) -> RunConfig:
    here = [
        "model=pixart_alpha",
        f"model.weights={weights}",
        "model.architecture=null",
        "model.resolution=64",
    ]
    return config(*here, "devices=1", "method=serial", *overrides)


def key(cfg: RunConfig) -> str:
    model = open_model(cfg.model)
    return run_key(complete(cfg, model), model)


def flip(path: Path) -> None:
    """Other content of the same size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


CHANGED = [
    "transformer/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_contents_of_the_weights_and_not_their_place_decide(weights: Path, tmp_path: Path) -> None:
    cfg = run_config(weights)
    keys, stamps = [key(cfg)], [texts_path(cfg, Session())]
    (weights / "README.md").write_text("a note")
    moved = run_config(Path(shutil.copytree(weights, tmp_path / "moved")))
    assert key(moved) == keys[0] and texts_path(moved, Session()) == stamps[0]
    for name in CHANGED:
        flip(weights / name)
        keys.append(key(cfg))
        stamps.append(texts_path(cfg, Session()))
    scheduler = weights / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"beta_end": 0.03}))
    keys.append(key(cfg))
    assert len(set(keys)) == len(CHANGED) + 2
    assert len(set(stamps)) == 3  # of encoder and tokenizer
    random = [key(run_config(weights, "model.text=random"))]
    flip(weights / "text_encoder" / "model.safetensors")
    assert [key(run_config(weights, "model.text=random"))] == random  # which asks no encoder


def test_prompts_decide_and_not_where_they_come_from(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\na dog\n")
    cfg = config(f"prompt_file={file}")
    first = key(cfg)
    assert key(config("prompt=[a cat,a dog]")) == first
    assert key(replace(cfg, resume=False)) == first
    assert key(replace(cfg, seed=1)) != first
    file.write_text("a cat\na cow\n")
    assert key(cfg) != first


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    first = hash_files(file)
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert hash_files(file) != first


@pytest.mark.slow
def test_a_resumed_sweep_runs_again_what_its_prompts_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    sweep = [*QUICK, "cluster=sim", "method=serial", "measure.memory=false", f"prompt_file={file}"]
    statuses = []
    for text in ("a cat", "a cat", "a dog"):
        file.write_text(text)
        assert command(monkeypatch, "-m", *sweep, f"hydra.sweep.dir={tmp_path / 'runs'}") == 0
        statuses.append(capsys.readouterr().out.split(":")[0])
    assert statuses == ["ok", "had", "ok"]
    (record,) = tmp_path.glob("runs/*/run.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 99}))
    before = record.read_bytes()
    assert command(monkeypatch, "-m", *sweep, f"hydra.sweep.dir={tmp_path / 'runs'}") == 2
    assert "has schema 99, and this version reads up to 1" in capsys.readouterr().err
    assert record.read_bytes() == before
