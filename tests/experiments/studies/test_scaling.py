"""`measure=scaling`: predictions of a grid, the fastest M of each product, and which published rows stand beside."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.records.study import load_study
from experiments.grid import cluster_config
from experiments.published import targets
from experiments.studies.scaling import fastest, published_beside, same_hardware
from tests.experiments.commands import command

TINY = [
    "measure=scaling",
    "measure.clusters=[a100_nvlink,l40_pcie_ethernet]",
    "measure.methods=[serial,ulysses,pipefusion]",
    "measure.devices=[2,3]",
    "measure.patches=[2,4]",
    "measure.workers=1",
    "steps=3",
]


@pytest.mark.slow
def test_a_tiny_grid_on_two_clusters(tmp_path, monkeypatch):
    assert (
        command(
            monkeypatch, *TINY, "model=pixart_tiny", "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}"
        )
        == 0
    )
    record = load_study(tmp_path)
    assert record.facts["predicted"] and list(record.facts["clusters"]) == [
        "a100_nvlink",
        "l40_pcie_ethernet",
    ]
    assert record.facts["models"]["pixart_tiny"]["steps"] == 3
    rows = record.rows
    assert len(rows) == 2 * (1 + 2 + 2 * 2)
    ran = rows[rows.status == "ok"]
    assert (ran.predicted_latency_s > 0).all() and (ran.peak_bytes > 0).all()
    assert ran[ran.method == "serial"].predicted_latency_s.nunique() == 2
    skipped = rows[rows.status == "skipped"]
    assert [*skipped.method] == 2 * ["ulysses"] and [*skipped.devices] == [3, 3]
    piped = ran[(ran.method == "pipefusion") & (ran.cluster == "a100_nvlink") & (ran.devices == 2)]
    assert [*piped.patches] == [2, 4]
    assert [*piped.fastest] == [*(piped.predicted_latency_s == piped.predicted_latency_s.min())]


@pytest.mark.slow
def test_products_and_pictures_that_are_not_square(tmp_path, monkeypatch):
    grid = ["measure.clusters=[a100_nvlink]", "measure.methods=[pipefusion]", "measure.devices=[4]"]
    grid += ["measure.products=[{},{cfg: 2},{ulysses: 3}]", "model.height=96", "model.width=64"]
    keys = [text for text in TINY if text.split("=")[0] not in {one.split("=")[0] for one in grid}]
    where = ["model=pixart_tiny", "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}"]
    assert command(monkeypatch, *keys, *grid, *where) == 0
    rows = load_study(tmp_path).rows
    assert [*rows.drop_duplicates("parallel").parallel] == ["pipe 4", "cfg 2 x pipe 2", "ulysses 3"]
    assert [*rows.drop_duplicates("parallel").status] == ["ok", "ok", "skipped"]
    assert {*rows.height} == {96} and {*rows.width} == {64} and rows.resolution.isna().all()


def test_what_was_skipped_is_never_the_fastest():
    row = {"model": "m", "cluster": "c", "height": 64, "width": 64, "warmup": 1, "steps": 4}
    row |= {"method": "pipefusion", "devices": 2, "parallel": "pipe 2"}
    skipped = row | {"patches": 4, "status": "skipped", "predicted_latency_s": None, "peak_bytes": None}
    ran = row | {"patches": 2, "status": "ok", "predicted_latency_s": 2.0, "peak_bytes": (1 << 60) // 256 + 1}
    assert [*fastest(pd.DataFrame([skipped, ran])).fastest] == [False, True]


def test_published_rows_of_the_same_hardware_and_settings_only():
    clusters = {name: cluster_config(name) for name in ("l40_pcie_ethernet", "a100_nvlink")}
    common = {"model": "pixart_alpha", "resolution": 1024, "steps": 20}
    rows = [common | {"cluster": name, "method": "serial", "devices": 1} for name in clusters]
    rows += [
        common | {"cluster": name, "method": method, "devices": n, "warmup": 1, "split": "ceil", "patches": m}
        for name in clusters
        for method, n in (("ulysses", 8), ("ulysses", 16), ("pipefusion", 8))
        for m in (2, 4, 8, 16, 32)
    ]
    found = list(published_beside(pd.DataFrame(rows), clusters))
    assert {name for name, _ in found} == {*clusters}
    assert {target.resolution for _, target in found} == {1024} and {
        target.warmup for _, target in found
    } <= {None, 1}
    assert {target.devices for name, target in found if name == "l40_pcie_ethernet"} == {1, 8, 16}
    assert not any(target.parallel for _, target in found)


def test_a_network_makes_no_difference_within_a_node():
    rows = {target.row_id: target for target in targets()}
    within, across = rows["scalability.csv:11"], rows["scalability.csv:12"]  # Ulysses on 8 and on 16 L40
    assert (within.cluster, within.devices) == ("l40_pcie", 8)
    assert (across.cluster, across.devices) == ("l40_pcie_ethernet", 16)
    clusters = [cluster_config(name) for name in ("l40_pcie_ethernet", "l40_pcie_infiniband", "a100_nvlink")]
    assert [same_hardware(within, cluster) for cluster in clusters] == [True, True, False]
    assert [same_hardware(across, cluster) for cluster in clusters] == [True, False, False]


SEVERAL = "measure.grids=[{models: [pixart_tiny]}, {models: [flux_tiny], steps: [2], resolutions: [192]}]"


@pytest.mark.slow
def test_several_models_in_one_record(tmp_path, monkeypatch):
    grid = ["measure.clusters=[a100_nvlink]", "measure.methods=[serial,pipefusion]", "measure.devices=[2]"]
    where = ["model=pixart_tiny", "log.wandb.mode=disabled", f"hydra.run.dir={tmp_path}"]
    keys = [text for text in TINY if text.split("=")[0] not in {one.split("=")[0] for one in grid}]
    assert command(monkeypatch, *keys, *grid, SEVERAL, "measure.warmups=[1,S]", *where) == 0
    record = load_study(tmp_path)
    facts = {
        name: (one["steps"], one["branches"], one["resolutions"])
        for name, one in record.facts["models"].items()
    }
    assert facts == {"pixart_tiny": (3, 2, [32]), "flux_tiny": (2, 1, [192])}
    for name, steps in (("pixart_tiny", 3), ("flux_tiny", 2)):
        rows = record.rows[record.rows.model == name]
        assert {*rows.steps} == {steps}
        serial, piped = rows[rows.method == "serial"], rows[rows.method == "pipefusion"]
        assert [*serial.fastest] == [True]
        assert {*zip(piped.warmup, piped.patches, strict=True)} == {(1, 2), (1, 4), (steps, 2), (steps, 4)}
        assert [*piped.groupby("warmup").fastest.sum()] == [1, 1]  # of each W one M is the fastest
        assert serial.param_bytes.item() > piped.param_bytes.max()
        assert (piped.busiest_wait_s <= piped.wait_s).all()
