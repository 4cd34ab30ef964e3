"""`experiment=paper/NAME`: every file composes to a run that passes its checks, and says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.outputs import OUTPUTS
from experiments.command import cli
from experiments.command.compose import files, first_look, plan
from experiments.config import CONF, as_dict
from experiments.errors import ConfigError
from tests.experiments.commands import composed

FILES = sorted((CONF / "experiment" / "paper").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
OTHERS = {
    "table1": "accounting",
    "table1_tensor": "accounting",
    "params": "params_per_device",
    "scalability": "scaling",
    "fid": "quality",
    "published": "predict_published",
    "patches": "predict_published",
    "warmup": "predict_published",
    "memory": "paper/latency",
    "communication": "paper/latency",
}
"""Experiments that are another one, or a part of it."""
ONLY = {
    "patches": {"only": "patch_sweep.csv"},
    "warmup": {"only": "warmup.csv"},
    "table1_tensor": {
        "models": ["pixart_alpha", "pixart_sigma", "hunyuan_dit"],
        "methods": ["tensor"],
        "crosses": ["whole"],
    },
}
"""What a part asks for that the other does not."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHERS or name in ONLY])
@pytest.mark.fast_cases(2)
def test_it_composes_and_passes_its_checks(name: str) -> None:
    overrides = [f"experiment=paper/{name}"]
    planned = plan(overrides)
    assert not planned.sweep
    cli.check(planned, overrides)


def test_the_command_line_knows_them_by_folder_and_name() -> None:
    assert {f"paper/{name}" for name in NAMES} <= {*files("experiment")}
    first_look([f"experiment=paper/{NAMES[0]}"])
    with pytest.raises(ConfigError, match="experiment=paper/latencies is unknown, nearest: paper/latency"):
        first_look(["experiment=paper/latencies"])


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_it_says_what_it_is_and_names_the_output_that_is_made_of_it(path: Path) -> None:
    package, *comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert package == "# @package _global_"
    assert len(comment) == 2
    [name] = re.findall(r"python -m analysis (\w+)", "\n".join(comment))
    assert name in {output.name for output in OUTPUTS}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fast_cases(3)
def test_it_runs_in_a_directory_of_its_own_or_where_another_can_go_on(name: str) -> None:
    [job] = plan([f"experiment=paper/{name}"]).jobs
    shared = {
        "fid": "results/runs/quality",
        "memory": "results/runs/paper/latency",
        "communication": "results/runs/paper/latency",
    }
    assert job.hydra.run.dir == shared.get(name, f"results/runs/paper/{name}")


@pytest.mark.parametrize(("name", "other"), OTHERS.items())
@pytest.mark.fast_cases(3)
def test_what_is_another_experiment_is_that_to_the_last_key(name: str, other: str) -> None:
    mine, theirs = (as_dict(composed(f"experiment={each}")) for each in (f"paper/{name}", other))
    if name in ONLY:
        theirs["measure"] |= ONLY[name]
    assert mine == theirs


def test_every_other_experiment_is_one_of_its_own() -> None:
    assert set(NAMES) - set(OTHERS) == {"latency", "overlap", "schedule"}
