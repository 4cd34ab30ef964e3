"""The code that a study's keys are made of: its own and all that it imports, and no other study's."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.closure import PACKAGES, Code, modules
from experiments.command.measures import MEASURES, load
from experiments.methods import METHODS
from experiments.runner import study_cells
from experiments.session import Session
from experiments.studies.perturb import PERTURB
from experiments.studies.text_variants import TEXT_VARIANTS, TextVariantsConfig
from tests.experiments.commands import ROOT, config


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's code, to be edited."""
    root = tmp_path_factory.mktemp("code")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)
    return root


@pytest.mark.parametrize(
    ("file", "measures_again"),
    [
        ("experiments/studies/perturb.py", False),
        ("experiments/quality/metrics.py", False),
        ("experiments/runner.py", False),
        ("experiments/studies/text_variants.py", True),
        ("experiments/difference.py", True),
        ("baselines/ring.py", True),
        ("pipefusion/method.py", True),
        ("pipefusion/core/kv.py", True),
    ],
)
@pytest.mark.fast_cases(3)
def test_a_study_is_measured_again_when_what_it_is_made_of_is_edited(
    copy: Path, file: str, measures_again: bool
) -> None:
    cfg = replace(config("cluster=sim"), measure=TextVariantsConfig(models=["flux_tiny"], counted=[]))
    before = {cell.key for cell in study_cells(TEXT_VARIANTS, cfg, Session(code=Code(copy)))}
    text = (copy / file).read_text()
    (copy / file).write_text(f"{text}# edited\n")
    after = {cell.key for cell in study_cells(TEXT_VARIANTS, cfg, Session(code=Code(copy)))}
    (copy / file).write_text(text)
    assert (before != after) == measures_again
    assert not measures_again or not before & after


@pytest.mark.parametrize("name", [name for name, row in MEASURES.items() if row.study])
def test_every_study_is_made_of_all_methods(name: str) -> None:
    found = Code().closure(load(MEASURES[name].study).modules)
    assert {row.build.__module__ for row in METHODS.values()} <= found
    assert {"pipefusion.core.denoise", "pipefusion.core.kv"} <= found


def test_a_session_keeps_the_code_that_it_began_with(copy: Path) -> None:
    code, path = Code(copy), copy / "experiments/studies/perturb.py"
    before, text = code.sha256(PERTURB.modules), path.read_text()
    path.write_text(f"{text}# edited\n")
    assert code.sha256(PERTURB.modules) == before != Code(copy).sha256(PERTURB.modules)
    path.write_text(text)


def test_what_is_imported_while_it_runs_is_found_too() -> None:
    """Nothing is imported by a name that only the running program knows, but for what a command or a caller names."""
    texts = {name: path.read_text() for name, path in modules(ROOT).items()}
    found = {
        name for name, text in texts.items() if re.search(r"import_module\(|get_object\(|get_class\(", text)
    }
    library, command = (
        {"pipefusion.__init__", "pipefusion.methods"},
        {"experiments.command.measures", "experiments.command.compose"},
    )
    assert found == library | command | {
        "pipefusion.deferred",
        "experiments.sensitive",
    }  # the last reads a record
    assert re.findall(r'= Deferred\("(\w+)', "".join(texts.values())) == ["diffusers"] * 4
