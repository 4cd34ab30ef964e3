"""What every device holds and sends: counted on meta, added up to the model, equal to what other code counts."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments import cli
from experiments.accounting import SETTLED, Counting, account_of, check_accounting, merged
from experiments.compose import plan
from experiments.config import RunConfig, as_dict, from_hydra
from experiments.errors import ConfigError
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import open_model, scheduler_of
from experiments.plan import plan as plan_run
from experiments.rank import predicted_peaks
from experiments.session import Session, empty_inputs
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric
from tests.experiments.runs import command

TINY = ["experiment=accounting", "measure.models=[pixart_tiny,flux_tiny]", "measure.resolutions=[64]"]
TINY += ["measure.devices=[1,2,4]", "measure.workers=1", "log.wandb.mode=disabled"]
PARTS = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "given_bytes", "activation_bytes"]


def config(*overrides: str) -> RunConfig:
    cli.set_up()
    return from_hydra(plan([*TINY, *overrides]).jobs[0])


@pytest.mark.parametrize("name", ["pixart_tiny", "flux_tiny", "hunyuan_tiny"])
def test_every_case_adds_up_to_the_model_and_to_the_closed_forms(name: str) -> None:
    account = account_of(config(), name, 64)
    assert account.facts["diffusers_parameters"] == account.facts["parameters"]
    assert {case["method"] for case in account.cases} == {*METHODS}
    assert all(case["reconciles"] and case["agrees"] for case in account.cases)
    for case in account.cases:
        mine = [
            row
            for row in account.rows
            if all(row[key] == case[key] for key in ("method", "devices", "warmup"))
        ]
        assert [row["rank"] for row in mine] == list(range(case["devices"]))
        assert sum(row["param_bytes"] for row in mine) - case["copies_bytes"] == case["model_bytes"]
        assert case["model_bytes"] == 2 * account.facts["diffusers_parameters"]
        assert sum(case["copies_by_part"].values()) == case["copies_bytes"]
    for row in account.rows:
        assert sum(row[part] for part in PARTS) == row["peak_bytes"]
        assert row["activation_bytes"] > 0


@pytest.mark.parametrize("method", [*METHODS])
def test_a_step_and_the_peak_are_those_of_a_longer_run_and_of_a_rank_alone(method: str) -> None:
    cfg = config()
    model = open_model(replace(model_config("pixart_tiny"), dtype="bfloat16"))
    devices = 1 if method == "serial" else 2
    counting = Counting(cfg, model)
    rows, _ = counting.case(method, devices)
    module = METHODS[method]
    settings = module.Config(**({"patches": devices} if method == "pipefusion" else {}))
    longer = replace(counting.cfg, method=settings, devices=devices, steps=9)
    noise, cond = empty_inputs(model.shape, 1, 4.5)
    peaks = predicted_peaks(model, as_dict(longer), noise, cond)
    for row, report in zip(rows, plan_run(longer, Session()).reports, strict=True):
        for kind in ("sent_bytes", "recv_bytes"):
            for step in range(getattr(settings, "warmup", 0), 8):
                entries = [entry for entry in report.ledger.entries if entry.at.step == step]
                assert row[f"step_{kind}"] == sum(getattr(entry, kind) for entry in entries)
        fabric = SilentFabric(module.parallel(devices).mesh(), row["rank"], torch.device("meta"))
        dit, scheduler = model.view(), scheduler_of(model, longer.scheduler, longer.steps)
        sampler = module.build(dit, fabric, settings)
        with torch.inference_mode():
            alone = sampling_peak(sampler, dit.model, scheduler, noise, cond)
        steps = SETTLED + getattr(
            settings, "warmup", 0
        )  # of the counted run; a step has a timestep and a flag
        assert row["peak_bytes"] + 9 * (longer.steps - steps) == report.peak_bytes == alone
        assert row["peak_bytes"] == peaks[row["rank"]]


def test_without_a_synchronous_step_pipefusion_never_has_the_whole_image_at_once() -> None:
    account = account_of(config("measure.methods=[pipefusion]"), "pixart_tiny", 256)
    one, none = (
        max(row["activation_bytes"] for row in account.rows if (row["devices"], row["warmup"]) == (4, warmup))
        for warmup in (1, 0)
    )
    assert none < one / 2


def test_a_size_that_the_model_does_not_have_is_a_row_with_the_reason() -> None:
    account = account_of(config("measure.methods=[serial,ring]"), "sd3_tiny", 4096)
    assert account.facts == {}
    assert [(row["method"], row["devices"]) for row in account.rows] == [
        ("serial", 1), ("ring", 1), ("ring", 2), ("ring", 4),
    ]  # fmt: skip
    assert all(row["status"] == "skipped" and "positions end at" in row["reason"] for row in account.rows)


def test_devices_that_do_not_divide_the_heads_are_skipped() -> None:
    account = account_of(config("measure.methods=[ulysses]", "measure.devices=[3]"), "pixart_tiny", 64)
    assert account.rows == [
        {"model": "pixart_tiny", "resolution": 64, "method": "ulysses", "devices": 3, "warmup": None}
        | {"rank": None, "status": "skipped", "reason": account.cases[0]["reason"]}
    ]
    assert account.rows[0]["reason"].startswith("devices=3 does not divide the 4 attention heads")


def test_cases_that_differ_in_size_only_are_one() -> None:
    cases: list[dict[str, Any]] = [
        {"a": 1, "resolution": 64},
        {"a": 1, "resolution": 128},
        {"a": 2, "resolution": 64},
    ]
    assert merged(cases) == [{"a": 1, "resolutions": [64, 128]}, {"a": 2, "resolutions": [64]}]


def test_the_experiment_records_the_same_rows_again_and_says_that_they_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *TINY, f"hydra.run.dir={tmp_path}") == 0
    text = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / "accounting.csv")
    again = [row for name in ("pixart_tiny", "flux_tiny") for row in account_of(config(), name, 64).rows]
    assert table.equals(pd.read_csv(StringIO(pd.DataFrame(again).convert_dtypes().to_csv(index=False))))
    record = json.loads((tmp_path / "accounting.json").read_text())
    assert {"command", "git_commit", "versions", "created", "seconds", "note", "dtype"} <= record.keys()
    cases = record["cases"]
    assert len(table) == sum(case["devices"] if case["status"] == "ok" else 1 for case in cases)
    assert {tuple(case["resolutions"]) for case in cases} == {(64,)}
    assert {case["method"] for case in cases} == set(METHODS)
    says = f"In {len(cases)} of {len(cases)} cases what the devices hold, less the copies, is diffusers' own count"
    assert says in text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("measure.models=[flux_deev]", "measure.models='flux_deev' is unknown, nearest: flux_dev"),
        ("measure.methods=[magic]", "measure.methods='magic' is unknown"),
        ("measure.devices=[0]", "measure.devices.0=0 is too small"),
        ("measure.warmups=[-1]", "measure.warmups.0=-1 is too small"),
        ("measure.dtype=int8", "measure.dtype='int8' is unknown"),
        ("cluster=local", "cluster=local runs on real tensors"),
    ],
)
def test_what_is_refused(wrong: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_accounting(config(wrong))
    assert str(error.value).startswith(words)
