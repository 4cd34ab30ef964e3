"""`measure=scaling`: the grid on several clusters, the fastest M of each, and which published rows stand beside."""

from __future__ import annotations

import json

import pytest

from experiments import cli
from experiments.check import ConfigError
from experiments.compose import plan
from experiments.config import from_hydra
from experiments.published import targets
from experiments.scaling import beside, check_scaling, fastest_marked, on, same_hardware
from tests.experiments.runs import command

TINY = [
    "measure=scaling",
    "model=pixart_tiny",
    "measure.clusters=[a100_nvlink,l40_pcie_ethernet]",
    "measure.methods=[serial,ulysses,pipefusion]",
    "measure.devices=[2,3]",
    "measure.patches=[2,4]",
    "measure.workers=1",
    "steps=3",
]


def scaling_config(*overrides: str):
    cli.set_up()
    return from_hydra(plan([*TINY, *overrides]).jobs[0])


def test_a_tiny_grid_on_two_clusters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *TINY, "hydra.run.dir=here") == 0
    record = json.loads((tmp_path / "here" / "scaling.json").read_text())
    assert record["predicted"] is True and list(record["clusters"]) == ["a100_nvlink", "l40_pcie_ethernet"]
    rows = record["rows"]
    assert len(rows) == 2 * (1 + 2 + 2 * 2)
    ran = [row for row in rows if row["status"] == "ok"]
    assert all(row["predicted_latency_s"] > 0 and row["peak_bytes"] > 0 for row in ran)
    serial = {row["cluster"]: row["predicted_latency_s"] for row in ran if row["method"] == "serial"}
    assert serial["a100_nvlink"] != serial["l40_pcie_ethernet"]
    skipped = [(row["method"], row["devices"]) for row in rows if row["status"] == "skipped"]
    assert skipped == 2 * [("ulysses", 3)]
    piped = [
        row
        for row in ran
        if row["method"] == "pipefusion" and row["cluster"] == "a100_nvlink" and row["devices"] == 2
    ]
    assert [row["patches"] for row in piped] == [2, 4]
    fastest = min(piped, key=lambda row: row["predicted_latency_s"])
    assert [row["fastest"] for row in piped] == [row is fastest for row in piped]


def test_what_was_skipped_is_never_the_fastest_and_bytes_stay_whole():
    row = {"cluster": "c", "resolution": 64, "method": "pipefusion", "devices": 2, "warmup": 1}
    row |= {"kv_bytes": 1, "sent_bytes": 1, "missing_bytes": 0}
    rows = fastest_marked(
        [
            row | {"patches": 4, "status": "skipped", "predicted_latency_s": None, "peak_bytes": None},
            row
            | {"patches": 2, "status": "ok", "predicted_latency_s": 2.0, "peak_bytes": (1 << 60) // 256 + 1},
        ]
    )
    assert [(each["patches"], each["fastest"]) for each in rows] == [(2, True), (4, False)]
    assert rows[0]["peak_bytes"] == (1 << 60) // 256 + 1 and rows[1]["predicted_latency_s"] is None


def test_published_rows_of_the_same_hardware_and_settings_only():
    cfg = scaling_config(
        "experiment=scaling", "model=pixart_alpha", "steps=20", "measure.patches=[2,4,8,16,32]",
        "measure.methods=[serial,ulysses,pipefusion]", "measure.resolutions=[1024]",
    )  # fmt: skip
    found = list(beside(cfg, [on(cfg, name) for name in cfg.measure.clusters]))
    assert {name for name, _ in found} == {"a100_nvlink", "l40_pcie_ethernet"}
    assert {target.resolution for _, target in found} == {1024}
    assert {target.warmup for _, target in found} == {None, 1}
    assert {target.devices for name, target in found if name == "l40_pcie_ethernet"} == {1, 2, 4, 8, 16}


def test_a_network_makes_no_difference_within_a_node():
    cfg = scaling_config()
    rows = {target.row_id: target for target in targets()}
    within, across = rows["scalability.csv:11"], rows["scalability.csv:12"]  # Ulysses on 8 and on 16 L40
    assert (within.cluster, within.devices) == ("l40_pcie", 8)
    assert (across.cluster, across.devices) == ("l40_pcie_ethernet", 16)
    ethernet, infiniband, other = (
        on(cfg, name).cluster for name in ("l40_pcie_ethernet", "l40_pcie_infiniband", "a100_nvlink")
    )
    assert [same_hardware(within, cluster) for cluster in (ethernet, infiniband, other)] == [
        True,
        True,
        False,
    ]
    assert [same_hardware(across, cluster) for cluster in (ethernet, infiniband, other)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["measure.clusters=[]"], "measure.clusters=[] leaves nothing"),
        (["measure.clusters=[abacus]"], "cluster=abacus is unknown"),
        (["measure.clusters=[local]"], "cluster=local has no costs"),
        (["measure.methods=[magic]"], "measure.methods='magic' is unknown"),
    ],
)
def test_what_is_refused(overrides, says):
    with pytest.raises(ConfigError) as error:
        check_scaling(scaling_config(*overrides))
    assert str(error.value).startswith(says)
