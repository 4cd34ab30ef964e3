"""The bench times what it says: every path computes the same picture, each row is held against its own serial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pandas import isna
from torch import Tensor

from analysis.records.study import load_study
from experiments.config import RunConfig
from experiments.grid import model_config
from experiments.models.model import open_model
from experiments.studies.bench import bound, diffusers_case, refusal_seconds, serial_case
from experiments.studies.bench_peers import DIFFUSERS, NATIVE_ULYSSES
from experiments.studies.bench_rank import BenchCase, drawn, prepare_case
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.parallel import Parallel
from tests.cases import relative_error
from tests.experiments.commands import command
from tests.ranks import Ranks


def sampled(case: BenchCase, name: str) -> Tensor | None:
    """The latents of a case on this rank."""
    config = model_config(name)
    if name == "flux_tiny":
        config.architecture["text_tokens"] = 8  # of which diffusers gives each rank a half
    model = open_model(config)
    noise, prompt, negative = drawn(model.shape, 0)
    cond = Conditioning(prompt, case.guidance_scale, negative if case.guidance_scale > 1 else None)
    return prepare_case(case, RunConfig(), model, noise, cond)()


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    """Ranks of these tests alone: diffusers keeps which parallelism was enabled in a process."""
    with Ranks() as standing:
        yield standing


@pytest.mark.parametrize(
    ("model", "cases"),
    [
        ("flux_tiny", [BenchCase(name, steps=2) for name in (DIFFUSERS, NATIVE_ULYSSES, "ulysses", "ring")]),
        (
            "pixart_tiny",
            [
                BenchCase(DIFFUSERS, steps=2),
                BenchCase("pipefusion", steps=2, patches=2, warmup=2, order="rotational"),
            ],
        ),
        (
            "pixart_tiny",
            [
                BenchCase("serial", steps=2, guidance_scale=4.5, parallel=Parallel(cfg=2)),
                BenchCase("sync_pipeline", steps=2, guidance_scale=4.5, micro_batches=True),
            ],
        ),
    ],
)
@pytest.mark.slow
def test_every_path_computes_the_same_picture(two, model, cases):
    want, nothing = two.run(2, sampled, serial_case(cases[0]), model)
    assert nothing is None
    for case in cases:
        assert relative_error(two.run(2, sampled, case, model)[0], want) < 1e-5, case.name


def test_rows_are_held_against_the_same_task():
    case = BenchCase("ulysses", "flux_bench", steps=3, rounds=7)
    assert serial_case(case).name == "flux_bench serial S=3"
    assert diffusers_case(case) == BenchCase(NATIVE_ULYSSES, "flux_bench", steps=3, rounds=7)
    assert (
        diffusers_case(BenchCase("serial")) == BenchCase(DIFFUSERS)
        and diffusers_case(BenchCase("tensor")) is None
    )
    guided = BenchCase("pipefusion", ranks=4, patches=4, guidance_scale=4.5, parallel=Parallel(cfg=2))
    assert guided.name == "pipefusion cfg 2 N=4 M=4 S=20 guided"
    assert serial_case(guided).name == "serial S=20 guided"


def test_the_bound_is_what_fill_drain_and_warm_up_leave():
    case = BenchCase("pipefusion", steps=20, patches=4, warmup=1)
    assert bound(case) == 20 / (1 + (19 * 4 + 1) / 8)
    assert bound(replace(case, order="rotational")) == 20 / (1 + 19 / 2)  # no stage ever waits
    assert bound(replace(case, guidance_scale=4.5, micro_batches=True)) == 20 / (3 / 4 + (19 * 4 + 1) / 8)
    assert bound(BenchCase("sync_pipeline", guidance_scale=4.5, micro_batches=True)) == 4 / 3
    assert bound(BenchCase("sync_pipeline")) == 1 and bound(BenchCase("ulysses")) is None
    assert bound(BenchCase("pipefusion", ranks=4, patches=4, warmup=1)) is None  # four ranks share two cores


@pytest.mark.slow
def test_the_record_has_every_repeat(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.studies.bench.refusal_seconds", lambda override: 1.0)
    names = ("serial", "ulysses", DIFFUSERS, NATIVE_ULYSSES)
    cases = ",".join(f"{{method: {name}, steps: 1}}" for name in names)
    keys = ("measure.rounds=2", f"measure.cases=[{cases}]", "measure.headline='ulysses S=1'")
    model = ("model=flux_tiny", "model.architecture.text_tokens=8")
    assert command(monkeypatch, "experiment=bench_cpu", *model, *keys, "hydra.run.dir=run") == 0
    record = load_study(Path("run"))
    rows = record.rows.set_index("case")
    assert [len(rows.repeats_s[f"{name} S=1"]) for name in names] == [2, 2, 2, 2]
    assert rows.ratio["serial S=1"] == 1.0 and rows.over_diffusers["ulysses S=1"] > 0
    assert isna(rows.over_diffusers[f"{DIFFUSERS} S=1"])
    assert rows.status.unique() == ["ok"] and (rows.min_s <= rows.median_s).all()
    assert len(rows.repeats_s["start of 2 ranks"]) == 3
    assert rows.median_s["refusal of what needs the model, CPU"] == 1.0
    assert not (Path("run") / "seconds.json").exists()
    assert "ulysses S=1: " in capsys.readouterr().out
    assert command(monkeypatch, "experiment=bench_cpu", *model, *keys, "hydra.run.dir=run") == 0
    assert "2 of 2 cells are done already" in capsys.readouterr().out


@pytest.mark.slow
def test_what_a_refusal_takes_is_taken_of_a_command_that_is_refused():
    assert 0 < refusal_seconds("steps=0") < 60
    with pytest.raises(AssertionError):
        refusal_seconds("--version")
