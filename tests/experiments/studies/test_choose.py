"""`measure=plan`: the search among products, its ranking and what it refuses."""

from __future__ import annotations

import diffusers
import pandas as pd
import pytest
import torch

from analysis.records.study import load_study
from experiments.errors import ConfigError
from experiments.grid import expand, problem
from experiments.methods import METHODS, find_problem, parallel_degrees
from experiments.models.parts import KINDS, part_bytes, read_parts
from experiments.runner import check, study_cells
from experiments.runs.plan import room_bytes
from experiments.session import Session
from experiments.studies import choose
from experiments.studies.choose import PLAN, decoding_bytes, points, product_row, search
from experiments.studies.decode_cost import decode_bytes
from experiments.studies.products import expanded, held_bytes, products, stages
from experiments.studies.requests import counted, searches
from experiments.studies.scaling import planned_row
from pipefusion.core.memory import PeakTracker
from pipefusion.core.parallel import AXES
from pipefusion.pipelines.pictures import decode_one
from tests.experiments.commands import command, composed

MODEL = ["measure=plan", "cluster=l40_pcie", "model=pixart_tiny", "log.wandb.mode=disabled"]


def plan_config(*overrides: str):
    return composed(*MODEL, *overrides)


NO_OTHERS = [f"measure.{name}_factors=[]" for name in ("size", "step", "image")]


def test_requests_are_those_asked_for_then_those_that_differ_in_one_thing():
    keys = ["measure.size_factors=[0.5,1,2]", "measure.step_factors=[0.1,2]", "measure.image_factors=[1,2]"]
    cfg = plan_config(*keys, "measure.devices=[2,4]", "model.resolution=32", "steps=3")
    found = [
        (p.devices, p.model.resolution, p.steps, p.images_per_prompt, p.measure.front)
        for p in searches(cfg, Session())
    ]
    assert found == [
        (2, 32, 3, 1, True), (4, 32, 3, 1, True),
        (2, 16, 3, 1, False), (2, 64, 3, 1, False), (2, 32, 1, 1, False), (2, 32, 6, 1, False), (2, 32, 3, 2, False),
    ]  # fmt: skip


def test_a_plan_answers(tmp_path, monkeypatch, capsys):
    keys = ["measure.methods=[serial,ring,pipefusion]", "measure.image_factors=[]", "measure.size_factors=[]"]
    keys += ["model.resolution=32", "steps=3", "measure.step_factors=[2]", "measure.devices=[2,3]"]
    keys += ["measure.patches=[2]", "measure.workers=1", f"hydra.run.dir={tmp_path}"]
    assert command(monkeypatch, *MODEL, *keys) == 0
    table = load_study(tmp_path).rows
    skipped = table[table.status == "skipped"]
    assert set(skipped.method) == {"ring"} and "does not divide" in skipped.reason.iloc[0]
    assert (table[list(AXES)].prod(axis=1) == table.devices).all()
    assert set(table[table.devices == 2].parallel) == {"cfg 2", "ring 2", "pipe 2"}
    ran = table[table.status == "ok"]
    parts = ran[["kernels_s", "exchange_s", "bubble_s", "host_s"]]
    assert (parts.sum(axis=1) - ran.predicted_latency_s).abs().max() < 1e-9
    assert (ran.low_s < ran.high_s).all()
    assert (ran.relative_error[ran.exact] == 0).all() and ran.relative_error[~ran.exact].notna().all()
    text = " ".join(capsys.readouterr().out.split())
    assert "is predicted to be the fastest" in text and "What would change it: " in text
    assert "N = 2, S = 6" in text and "not known" in text


def test_a_pipeline_holds_its_encoders_and_vae_beside_the_transformer():
    t5, vae = (part_bytes("pixart_alpha", kind, 2) for kind in KINDS)
    cfg = plan_config("model=pixart_alpha", "measure.count=pipeline")
    assert room_bytes(cfg) - room_bytes(counted(cfg, Session())) == t5 + vae
    assert counted(plan_config("model=pixart_alpha"), Session()) == plan_config("model=pixart_alpha")


def test_decoding_is_counted_as_a_vae_does_it():
    """On real tensors as on `meta`."""
    with torch.no_grad():
        vae = diffusers.AutoencoderKL(**read_parts()["kl_16"]["config"]).eval()
        latent = torch.zeros(1, 16, 4, 4)
        with PeakTracker([latent], [*vae.parameters(), *vae.buffers()]) as tracker:
            decode_one(vae, latent)
    assert decode_bytes("flux_dev", (16, 4, 4), torch.float32) == tracker.peak_bytes
    cfg = plan_config("model=pixart_alpha", "measure.count=pipeline")
    found = decoding_bytes(cfg, Session().model(cfg.model))
    picture_bytes = 128 * 1024**2  # channels of 1024 px, at the end
    assert found["decode_bytes"] > picture_bytes > found["decode_tiled_bytes"]
    assert set(decoding_bytes(plan_config("model=pixart_alpha"), Session().model(cfg.model)).values()) == {0}


@pytest.mark.parametrize(("count", "timed"), [("transformer", False), ("pipeline", True)])
def test_seconds_of_decoding_stand_where_the_pipeline_counts(count, timed):
    grid = ["model=pixart_alpha", "measure.methods=[serial]", "measure.devices=[1]"]
    session = Session()
    (cell,) = study_cells(PLAN, plan_config(*grid, *NO_OTHERS, f"measure.count={count}"), session)
    assert {(row["decode_s"] or 0) > 0 for row in search(cell, session)} == {timed}


def test_a_device_that_samples_and_cannot_decode_is_out_of_memory():
    """Serial, which is planned before anything is ruled out, on a T4 with the encoders beside it."""
    grid = ["model=pixart_alpha", "cluster=t4_pcie", "measure.methods=[serial]", "measure.devices=[1]"]
    session, found = Session(), {}
    for tiled in (False, True):
        keys = ["model.resolution=2048", "measure.count=pipeline", f"model.tiled={tiled}"]
        (cell,) = study_cells(PLAN, plan_config(*grid, *NO_OTHERS, *keys), session)
        (found[tiled],) = search(cell, session)
    assert found[True]["status"] == "ok" and found[True]["predicted_latency_s"] > 0
    whole = found[False]
    assert whole["status"] == "oom" and whole["missing_bytes"] > 0
    assert whole["predicted_latency_s"] is whole["compute_s"] is whole["wait_s"] is None
    assert (
        "that t4 has for tensors beside text encoders and VAE, for parameters and decoding" in whole["reason"]
    )


@pytest.mark.parametrize(("heads", "ranks"), [("even", {1, 2, 4}), ("pad", {1, 2, 4, 8})])
def test_padded_heads_are_planned_when_asked_for(heads, ranks):
    """Of the 4 heads of the small model; its 8 token rows allow all of these."""
    grid = ["measure.methods=[ulysses,pipefusion]", "measure.devices=[2,4,8,16]", "measure.patches=[1]"]
    session = Session()
    found = {True: set(), False: set()}
    for cell in study_cells(PLAN, plan_config(*grid, *NO_OTHERS, f"method.heads={heads}"), session):
        model = session.model(cell.cfg.model)
        for point in expand(cell.cfg, cell.cfg.measure):
            runs = [one for one in (point, *expanded(point, model)) if not find_problem(model.shape, one)]
            found[METHODS[point.method.name].exact] |= {parallel_degrees(one).ulysses for one in runs}
    assert found == {True: ranks, False: ranks}


@pytest.mark.parametrize(("devices", "count"), [(1, 1), (8, 20), (12, 40)])
def test_products_are_all_ways_to_write_n_and_each_once(devices, count):
    """2^3 over four axes: C(6, 3); 2^2 * 3: C(5, 3) * 4."""
    found = list(products(("cfg", "ring", "ulysses", "tensor"), devices))
    assert len(found) == len({str(one) for one in found}) == count
    assert {one.world for one in found} == {devices}


FOUR = ["steps=3", "devices=4", "measure.patches=[2]", "model.resolution=32"]


@pytest.fixture(scope="module")
def searched():
    """Every product of four devices on the small model: the rows of the search, whole and for the fastest, and all of
    them planned."""
    methods = "measure.methods=[tensor,ulysses,ring,sync_pipeline,distrifusion,pipefusion]"
    session = Session()
    whole, fast = (
        study_cells(PLAN, plan_config(*FOUR, *NO_OTHERS, methods, f"measure.front={front}"), session)[0]
        for front in (True, False)
    )
    model = session.model(whole.cfg.model)
    able = [one for one in points(whole.cfg, model) if problem(one, model) is None]
    planned = [product_row(one, model.shape) | planned_row(one, session) for one in able]
    for row, one in zip(planned, able, strict=True):
        row["least_bytes"] = held_bytes(stages(one, model.shape))
    return pd.DataFrame(search(whole, session)), pd.DataFrame(search(fast, session)), pd.DataFrame(planned)


@pytest.mark.slow
def test_the_two_fastest_products_exact_or_not_are_never_pruned(searched):
    whole, fast, every = searched
    assert (fast.status == "ok").sum() <= (whole.status == "ok").sum() < len(every)
    for rows in (whole, fast):
        for exact in (every, every[every.exact]):
            ours = rows[rows.status == "ok"] if exact is every else rows[(rows.status == "ok") & rows.exact]
            first = (
                exact.sort_values("predicted_latency_s").drop_duplicates("parallel").predicted_latency_s[:2]
            )
            mine = ours.sort_values("predicted_latency_s").drop_duplicates("parallel").predicted_latency_s[:2]
            assert list(mine) == pytest.approx(list(first))


def test_what_no_other_product_is_as_fast_lean_and_exact_as_is_planned(searched):
    whole, _, every = searched
    ours = whole[whole.status == "ok"]
    for row in every.to_dict("records"):
        faster = every[
            (every.predicted_latency_s < row["predicted_latency_s"])
            & (every.least_bytes <= row["least_bytes"])
        ]
        if faster.exact.sum() == 0 and (faster.method == row["method"]).sum() == 0:
            assert ((ours.parallel == row["parallel"]) & (ours.exact == row["exact"])).any()


def test_a_bound_is_below_what_is_planned_and_not_far(searched):
    both = searched[0].merge(
        searched[2], on=[*AXES, "patches", "warmup", "split", "exact"], suffixes=("", "_all")
    )
    both = both[both.status_all == "ok"]
    assert len(both) > 20
    ratios = both.bound_s / both.predicted_latency_s_all
    assert ratios.max() <= 1
    assert ratios.median() > 0.5


def test_an_exact_product_is_planned_once_whatever_it_is_called(searched):
    exact = searched[0][searched[0].exact & (searched[0].status != "skipped")]
    assert not exact.duplicated(list(AXES)).any()
    assert {"cfg 2 x ring 2", "ulysses 2 x tensor 2", "cfg 2 x pipe 2"} <= set(exact.parallel)
    own = searched[0][~searched[0].exact.astype(bool)]
    assert ((own["pipe"] > 1) | (own["patch"] > 1)).all()  # a displaced method keeps its axis


def test_what_cannot_hold_its_parameters_and_kv_is_oom_without_a_plan(monkeypatch):
    cfg = plan_config(*FOUR, *NO_OTHERS, "measure.methods=[pipefusion]", "cluster.hardware.memory_bytes=1")
    plans = []
    planned = choose.plan
    monkeypatch.setattr(choose, "plan", lambda cfg, _: plans.append(cfg.devices) or planned(cfg, _))
    session = Session()
    (cell,) = study_cells(PLAN, cfg, session)
    rows = pd.DataFrame(search(cell, session))
    assert plans == [1]  # serial, which bounds are made of
    assert set(rows.status) == {"oom"} and rows.reason.str.contains("parameters and K, V alone").all()
    room = cfg.cluster.hardware.memory_bytes - cfg.cluster.hardware.reserved_bytes
    assert (rows.missing_bytes == rows.param_bytes + rows.kv_bytes - room).all()


@pytest.mark.slow
def test_a_plan_of_a_picture_that_is_not_square(tmp_path, monkeypatch, capsys):
    keys = ["measure.methods=[serial]", "measure.workers=1", "model.height=96", "model.width=64", *NO_OTHERS]
    assert command(monkeypatch, *MODEL, *keys, f"hydra.run.dir={tmp_path}") == 0
    (row,) = load_study(tmp_path).rows.to_dict("records")
    assert (row["height"], row["width"], row["status"]) == (96, 64, "ok")
    assert "96 x 64 px, N = 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster=local"], "cluster=local has no costs"),
        (["measure.methods=[magic]"], "measure.methods='magic' is unknown"),
        (["measure.resolutions=[33]"], "measure=plan leaves no cell that can run: model.resolution=33 is"),
        (["measure.devices=[16]"], "measure=plan leaves no cell that can run: devices=16"),
        (
            ["model=pixart_sigma", "measure.count=pipeline", "model.tiled=true"],
            "model.tiled=true needs the size of a tile, and conf/part has none for pixart_sigma",
        ),
        (["measure.count=half"], "measure.count='half' is unknown"),
        (["measure.count=pipeline"], "measure.count=pipeline needs the text_encoder and vae of pixart_tiny"),
    ],
)
@pytest.mark.fast_cases(2)
def test_what_is_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        check(PLAN, plan_config(*overrides))
    assert str(error.value).startswith(message) and "allowed: " in str(error.value)
