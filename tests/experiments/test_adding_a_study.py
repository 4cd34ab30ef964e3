"""The study that docs/adding-a-study.md adds, run as it stands there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from analysis.records.study import load_study
from experiments.runner import check, run
from tests.experiments.commands import composed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adding-a-study.md").read_text()


def block(language: str) -> str:
    """The first block of code in a language, without its indentation."""
    lines = PAGE.partition(f"```{language}\n")[2].partition("```")[0].splitlines()
    return "\n".join(line.removeprefix("   ") for line in lines) + "\n"


def test_the_study_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prompt_length.py"
    path.write_text(block("python"))
    assert len(path.read_text().splitlines()) <= 60
    spec = importlib.util.spec_from_file_location("experiments.studies.prompt_length", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert yaml.safe_load(block("yaml"))["name"] == module.PROMPT_LENGTH.name
    ConfigStore.instance().store(group="measure", name="prompt_length", node=module.PromptLengthConfig)
    grid = ["measure.methods=[serial,pipefusion]", "measure.devices=[2]", "measure.tokens=[4,64]", "steps=2"]
    where = ["measure=prompt_length", "cluster=l40_pcie", "model=pixart_tiny", "log.wandb.mode=disabled"]
    cfg = composed(*where, *grid)
    check(module.PROMPT_LENGTH, cfg)
    assert run(module.PROMPT_LENGTH, cfg, tmp_path / "out") == "ok"
    rows = load_study(tmp_path / "out").rows
    assert [*rows.text_tokens] == [4, 64, 4, 64] and (rows.predicted_latency_s > 0).all()
    assert rows[rows.method == "serial"].peak_bytes.is_monotonic_increasing
