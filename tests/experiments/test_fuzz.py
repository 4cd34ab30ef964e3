"""Everything that `hostile` makes: no trace, no end that does not come, no value outside its type that is taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import cli, compose, measures
from experiments.check import check_run
from experiments.check_command import check_request
from experiments.config import RunConfig, from_hydra
from experiments.errors import ConfigError
from tests.experiments import hostile
from tests.experiments.engines import LOUD, naive, write
from tests.experiments.runs import config

ROOT = Path(__file__).resolve().parents[2]
UNREAD = {
    "_diffusers_version",
    "_name_or_path",
    "steps",
    "network",
    "recipe",
    "data",
    "start_from",
    "training",
}
"""Keys of files that say where something comes from."""


@pytest.fixture(scope="module", autouse=True)
def _schemas() -> None:
    cli.set_up()


def refused(overrides: list[str]) -> str | None:
    """The line that a command is answered with, or None. Anything but a ConfigError is raised."""

    def check() -> None:
        cfg = from_hydra(compose.compose_one([compose.as_text(one) for one in overrides]))
        check_request(cfg)
        measures.check(cfg)

    return line_of(check)


def line_of(check: Callable[[], object]) -> str | None:
    """The line of a check's ConfigError, None if there is none."""
    try:
        check()
    except ConfigError as error:
        return str(error)
    return None


def fault(line: str | None, forbidden: bool) -> str | None:
    """What is wrong with an answer."""
    if line is None:
        return "taken" if forbidden else None
    if not line.isprintable() or len(line) > 2500 or "allowed: " not in line:
        return f"unclear: {line!r}"
    return None


def configurations(cases: list[hostile.Hostile]) -> list[str]:
    """The cases that are not answered as they should be."""
    found = []
    for case in cases:
        try:
            why = fault(refused(case.overrides), case.refused)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        if why:
            found.append(f"{' '.join(case.overrides)[:200]} ({case.wrong}): {why}")
    return found


def test_a_sample_of_configurations() -> None:
    assert not configurations([*hostile.configurations(1)][::9])


@pytest.mark.slow
def test_configurations() -> None:
    cases = [*hostile.configurations(4)]
    assert len(cases) >= 1000
    assert not configurations(cases)


def files(path: Path, check: Callable[[], object], values: int) -> tuple[int, list[str]]:
    """How many contents of a file were tried, and those that are not answered as they should be."""
    good, found, tried = path.read_bytes(), [], 0
    for name, spoil, forbidden in hostile.files(good, values):
        remove(path)
        spoil(path)
        tried += 1
        try:
            why = fault(line_of(check), forbidden and name.partition("=")[0] not in UNREAD)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        if why:
            found.append(f"{path.name} {name}: {why}")
    remove(path)
    path.write_bytes(good)
    return tried, found


def remove(path: Path) -> None:
    """Whatever is there, not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def tried(folder: Path, values: int) -> tuple[int, list[str]]:
    """All files: of a model's folder, of a bundle, of prompts, of runs that are compared."""
    model, bundle, prompts = folder / "model", folder / "bundle", folder / "prompts.txt"
    shutil.copytree(ROOT / "results/models/emoji64", model)
    write(bundle, LOUD, naive(LOUD))
    prompts.write_text("red apple\n")
    small = config("model=emoji64", "cluster=sim", "steps=2")
    of_model = replace(small, model=replace(small.model, weights=str(model)))
    of_bundle = from_hydra(compose.compose_one(["experiment=conformance", f"bundle={bundle}"]))
    cases: list[tuple[Path, Callable[[], object]]] = [
        (path, lambda: check_run(of_model))
        for path in sorted(model.rglob("*"))
        if path.parent.name in ("transformer", "scheduler") or path.name == "pipefusion_lab.json"
    ]
    cases += [(path, lambda: measures.check(of_bundle)) for path in sorted(bundle.iterdir())]
    cases += [(prompts, lambda: check_request(RunConfig(prompt_file=str(prompts))))]
    counts, found = zip(*(files(path, check, values) for path, check in cases), strict=True)
    return sum(counts), [line for lines in found for line in lines]


@pytest.mark.slow
def test_files(tmp_path: Path) -> None:
    count, found = tried(tmp_path, 4)
    assert count >= 300
    assert not found
