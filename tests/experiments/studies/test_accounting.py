"""What every device holds and sends: counted on meta, added up to the model, equal to what other code counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from diffusers import PixArtTransformer2DModel

from analysis.records.study import load_study
from experiments.config import RunConfig
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models.model import open_model, resolved
from experiments.models.scheduler import build_scheduler
from experiments.runner import study_cells
from experiments.runs.peaks import predicted_peaks
from experiments.runs.plan import plan as plan_run
from experiments.runs.report import held_parameters
from experiments.session import Session, empty_inputs
from experiments.studies.accounting import ACCOUNTING, SETTLED, count_run, measure, totals
from experiments.studies.params import PARAMS
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric
from tests.experiments.commands import command, composed

TINY = ["experiment=accounting", "measure.models=[pixart_tiny,flux_tiny]", "measure.resolutions=[64]"]
TINY += ["measure.devices=[1,4]", "measure.workers=1", "log.wandb.mode=disabled"]
PARTS = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "given_bytes", "activation_bytes"]


def config(*overrides: str) -> RunConfig:
    return composed(*TINY, *overrides)


def counted(*overrides: str) -> pd.DataFrame:
    """The rows of a grid, measured in this process."""
    cfg, session = config(*overrides), Session()
    study = PARAMS if cfg.measure.name == "params" else ACCOUNTING
    cells = study_cells(study, cfg, session)
    with torch.inference_mode():
        return pd.DataFrame(
            [
                {"key": cell.key} | cell.place | row
                for cell in cells
                for row in ([{"status": "skipped"}] if cell.skipped else measure(cell, session))
            ]
        )


@pytest.mark.parametrize("name", ["pixart_tiny", "flux_tiny", "hunyuan_tiny"])
@pytest.mark.fast_cases(1)
def test_every_case_adds_up_to_the_model_and_to_the_closed_forms(name: str) -> None:
    rows = counted(f"measure.models=[{name}]")
    rows = rows[rows.status != "skipped"]  # AsyncDiff and ParaStep without a synchronous step
    assert {*rows.method} == {*METHODS} and rows.reconciles.all() and rows.agrees.all()
    for _, mine in rows.groupby("key"):
        case = mine.iloc[0]
        assert [*mine["rank"]] == [*range(case.devices)]
        assert mine.param_bytes.sum() - case.copies_bytes == case.model_bytes
        assert sum(json.loads(case.copied).values()) == case.copies_bytes
    assert {*rows.model_bytes} == {2 * open_model(model_config(name)).view().model.num_parameters()}
    assert (rows[PARTS].sum(axis=1) == rows.peak_bytes).all() and (rows.activation_bytes > 0).all()


@pytest.mark.parametrize("method", [*METHODS])
@pytest.mark.fast_cases(2)
def test_a_step_and_the_peak_are_those_of_a_longer_run_and_of_a_rank_alone(method: str) -> None:
    module, devices = METHODS[method], 1 if method == "serial" else 2
    settings = module.Config(**({"patches": devices} if method == "pipefusion" else {}))
    warmup, together = getattr(settings, "warmup", 0), module.parallel(devices).step  # steps of a round
    steps = SETTLED * together + warmup
    model_cfg = replace(model_config("pixart_tiny"), dtype="bfloat16")
    model, session = open_model(model_cfg), Session()
    cfg = replace(
        config(), model=model_cfg, method=settings, devices=devices, steps=steps, guidance_scale=4.5
    )
    cfg = resolved(cfg, model)
    longer = replace(cfg, steps=steps + 2)
    noise, cond = empty_inputs(model.shape, 1, 4.5)
    peaks = predicted_peaks(model, longer, noise, cond)
    _, rows, _ = count_run(cfg, session)
    for row, report in zip(rows, plan_run(longer, session).reports, strict=True):
        for kind in ("sent_bytes", "recv_bytes"):
            for step in range(warmup, longer.steps - together):
                window = range(step, step + together)
                entries = [entry for entry in report.ledger.entries if entry.at.step in window]
                assert row[f"step_{kind}"] * together == sum(getattr(entry, kind) for entry in entries)
        fabric = SilentFabric(module.parallel(devices).mesh(), report.rank, torch.device("meta"))
        dit, scheduler = model.view(), build_scheduler(model, longer.scheduler, longer.steps)
        sampler = module.build(dit, fabric, settings)
        with torch.inference_mode():
            alone = sampling_peak(sampler, dit.model, scheduler, noise, cond)
        # A step has a timestep and a flag.
        assert row["peak_bytes"] + 9 * (longer.steps - steps) == report.peak_bytes == alone
        assert row["peak_bytes"] == peaks[report.rank]


def test_a_device_with_the_expert_in_use_holds_half_and_loads_as_much_at_the_switch() -> None:
    found = []
    for experts in ("both", "one"):
        model = replace(model_config("wan22_a14b_tiny"), experts=experts)
        cfg = resolved(replace(config(), model=model, devices=2, steps=4), open_model(model))
        found.append(plan_run(cfg, Session()).reports)
    for both, one in zip(*found, strict=True):
        held = one.forecast.param_bytes
        assert both.forecast.param_bytes == 2 * held == 2 * one.extra["switch_bytes"]
        assert both.peak_bytes is not None and one.peak_bytes is not None
        assert "switch_bytes" not in both.extra and both.peak_bytes - one.peak_bytes >= held


def test_without_a_synchronous_step_pipefusion_never_has_the_whole_image_at_once() -> None:
    grid = ["measure.methods=[pipefusion]", "measure.resolutions=[256]", "measure.devices=[4]"]
    rows = counted("measure.models=[pixart_tiny]", *grid, "measure.warmups=[0,1]")
    none, one = rows.groupby("warmup").activation_bytes.max()
    assert none < one / 2


def test_sizes_and_devices_that_a_model_does_not_have_are_skipped() -> None:
    grid = ["measure.models=[sd3_tiny]", "measure.methods=[serial,ring]", "measure.resolutions=[4096]"]
    cells = study_cells(ACCOUNTING, config(*grid), Session())
    assert [(cell.place["method"], cell.place["devices"]) for cell in cells] == [
        ("serial", 1), ("ring", 1), ("ring", 4),
    ]  # fmt: skip
    assert all("positions end at" in str(cell.skipped) for cell in cells)
    (cell,) = study_cells(
        ACCOUNTING, config("measure.methods=[ulysses]", "measure.devices=[3]", *MODEL), Session()
    )
    assert str(cell.skipped).startswith("devices=3 does not divide the 4 attention heads")


MODEL = ["measure.models=[pixart_tiny]"]


@pytest.mark.slow
def test_products_of_degrees_add_up_too() -> None:
    products = "measure.products=[{cfg: 2},{ulysses: 2},{tensor: 2},{cfg: 2, ring: 2}]"
    rows = counted(*MODEL, "measure.methods=[pipefusion]", "measure.devices=[8]", products)
    assert {*rows.parallel} == {
        "cfg 2 x pipe 4",
        "pipe 4 x ulysses 2",
        "pipe 4 x tensor 2",
        "cfg 2 x pipe 2 x ring 2",
    }
    assert rows.reconciles.all() and rows.agrees.all() and len(rows) == 64


def test_the_experiment_records_its_rows_and_says_that_they_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        command(
            monkeypatch, *TINY, *MODEL, "measure.methods=[serial,pipefusion]", f"hydra.run.dir={tmp_path}"
        )
        == 0
    )
    record = load_study(tmp_path)
    facts = record.facts["models"]["pixart_tiny"]
    assert facts["diffusers_parameters"] == facts["parameters"] and facts["tokens"] == {"64": 256}
    assert len(record.rows) == 1 + 2 * (1 + 4)
    assert "In 5 of 5 cases what the devices hold" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_48_layers_on_4_devices_are_12_each() -> None:
    rows = counted(
        "experiment=params_per_device", "measure.models=[dit_48]", "measure.methods=[pipefusion]", *ONE
    )
    assert [*rows.layers] == ["0-11", "12-23", "24-35", "36-47"]
    assert [*rows.block_share] == [0.25] * 4 and rows.model_share.between(0.25, 0.27).all()
    assert {*rows.replicated} == {"AdaLN, caption projection"} and rows.reconciles.all()


ONE = ["measure.resolutions=[]", "measure.devices=[4]"]


def test_parts_that_are_built_and_not_run_are_those_of_a_run() -> None:
    methods = ",".join(METHODS)
    grid = [
        f"measure.methods=[{methods}]",
        "measure.warmups=[1]",
        "measure.dtype=float32",
        "measure.patches=[N]",
        "measure.devices=[2]",
    ]
    run, built = (
        counted(f"experiment={name}", *grid, *MODEL) for name in ("accounting", "params_per_device")
    )
    same = [
        "method",
        "devices",
        "rank",
        "layers",
        "param_bytes",
        "kv_bytes",
        "replicated",
        "copied",
        "reconciles",
    ]
    assert run[same].equals(built[same]) and built.agrees.all()


@pytest.mark.parametrize(("stages", "reconciles"), [([(0, 2), (2, 4)], True), ([(0, 2), (3, 4)], False)])
def test_a_lost_layer_does_not_add_up(stages: list[tuple[int, int]], reconciles: bool) -> None:
    model = open_model(model_config("pixart_tiny"))
    held = []
    for index, layers in enumerate(stages):
        dit = model.view()
        dit.keep(range(*layers), embed=index == 0, unembed=index == 1)
        held.append(held_parameters(dit))
    assert totals(held, model.view())["reconciles"] is reconciles


# transformer/config.json of PixArt-alpha/PixArt-XL-2-1024-MS, less what only other kinds of transformer look at.
PIXART_XL = {
    "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 72, "caption_channels": 4096,
    "cross_attention_dim": 1152, "dropout": 0.0, "in_channels": 4, "norm_elementwise_affine": False, "norm_eps": 1e-06,
    "norm_type": "ada_norm_single", "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28,
    "out_channels": 8, "patch_size": 2, "sample_size": 128, "upcast_attention": False,
}  # fmt: skip


def test_pixart_alpha_is_the_published_model() -> None:
    model = open_model(model_config("pixart_alpha"))
    with torch.device("meta"):
        published = PixArtTransformer2DModel(**PIXART_XL)
    ours = {name: tuple(p.shape) for name, p in model.view().model.named_parameters()}
    assert ours == {name: tuple(p.shape) for name, p in published.named_parameters()}
    assert model.view().model.num_parameters() == 611_349_152
    assert (model.resolution, model.shape.tokens, model.dtype) == (1024, 4096, torch.float16)
    assert {key: model.config[key] for key in PIXART_XL} == PIXART_XL
