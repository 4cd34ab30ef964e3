"""`measure=scaling`: the grid on several clusters, the fastest M of each, and which published rows stand beside."""

from __future__ import annotations

import json

import pytest

from experiments import cli
from experiments.compose import plan
from experiments.config import from_hydra
from experiments.errors import ConfigError
from experiments.published import targets
from experiments.scaling import beside, check_scaling, each_model, fastest_marked, on, same_hardware
from tests.experiments.runs import command

TINY = [
    "measure=scaling",
    "log.wandb.mode=disabled",
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
    row = {"model": "m", "steps": 4, "cluster": "c", "resolution": 64, "method": "pipefusion", "devices": 2}
    row |= {"warmup": 1, "split": "ceil"}
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
        "measure.methods=[serial,ulysses,pipefusion]", "measure.resolutions=[1024]", "measure.devices=[2,4,8,16]",
    )  # fmt: skip
    found = list(beside([on(cfg, name) for name in cfg.measure.clusters]))
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


SEVERAL = "measure.models=[{model: pixart_tiny}, {model: flux_tiny, steps: 2, resolutions: [192]}]"


def test_several_models_in_one_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ["measure.clusters=[a100_nvlink]", "measure.methods=[serial,pipefusion]", "measure.devices=[2]"]
    assert command(monkeypatch, *TINY, *grid, SEVERAL, "measure.warmups=[1,S]", "hydra.run.dir=here") == 0
    record = json.loads((tmp_path / "here" / "scaling.json").read_text())
    assert "model" not in record and "steps" not in record
    facts = {
        name: (one["steps"], one["branches"], one["resolutions"]) for name, one in record["models"].items()
    }
    assert facts == {"pixart_tiny": (3, 2, [32]), "flux_tiny": (2, 1, [192])}
    assert all(one["parameters"] > 0 for one in record["models"].values())
    for name, steps in (("pixart_tiny", 3), ("flux_tiny", 2)):
        rows = [row for row in record["rows"] if row["model"] == name]
        assert {row["steps"] for row in rows} == {steps}
        serial, *piped = sorted(rows, key=lambda row: (row["devices"], row["warmup"], row["patches"]))
        assert (serial["method"], serial["fastest"]) == ("serial", True)
        assert [(row["warmup"], row["patches"]) for row in piped] == [(1, 2), (1, 4), (steps, 2), (steps, 4)]
        for same in (piped[:2], piped[2:]):  # of each W one M is the fastest
            fastest = min(same, key=lambda row: row["predicted_latency_s"])
            assert [row["fastest"] for row in same] == [row is fastest for row in same]
        assert serial["param_bytes"] > piped[0]["param_bytes"]
        assert piped[0]["busiest_wait_s"] <= piped[0]["wait_s"]


def test_what_a_model_does_not_say_is_as_for_all():
    cfg = scaling_config(SEVERAL, "measure.resolutions=[64]", "measure.warmups=[S,1,2]", "guidance_scale=3")
    pixart, flux = each_model(cfg)
    assert (pixart.model.name, pixart.steps, pixart.guidance_scale) == ("pixart_tiny", 3, 3.0)
    assert (pixart.measure.resolutions, pixart.measure.warmups) == ([64], [3, 1, 2])
    assert (flux.model.name, flux.steps, flux.guidance_scale) == ("flux_tiny", 2, 3.0)
    assert (flux.measure.resolutions, flux.measure.warmups) == ([192], [2, 1])  # S and 2 are one
    [alone] = each_model(scaling_config())
    assert (alone.model.name, alone.steps, alone.measure.warmups) == ("pixart_tiny", 3, [1])


def test_published_rows_stand_beside_their_own_model():
    models = "measure.models=[{model: flux_dev, steps: 28}, {model: sd3_medium, steps: 20}]"
    cfg = scaling_config(models, "measure.clusters=[h100_nvlink,l40_pcie]", "measure.devices=[2]")
    found = list(beside([on(one, name) for one in each_model(cfg) for name in cfg.measure.clusters]))
    assert {(name, target.model, target.method, target.devices) for name, target in found} == {
        ("h100_nvlink", "flux_dev", "serial", 1),
        ("h100_nvlink", "flux_dev", "ulysses", 2),
        ("l40_pcie", "flux_dev", "serial", 1),
        ("l40_pcie", "sd3_medium", "serial", 1),
    }


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["measure.models=[{model: pixart}]"],
            "measure.models.0.model='pixart' is unknown, nearest: pixart_",
        ),
        (["measure.models=[{steps: 2}]"], "measure.models.0.model='' is unknown"),
        (
            ["measure.models=[{model: pixart_tiny}, {model: pixart_tiny, steps: 2}]"],
            "measure.models.1.model=pixart_tiny is there already",
        ),
        (
            ["measure.models=[{model: pixart_tiny}, {model: flux_tiny, steps: 0}]"],
            "measure.models.1.steps=0 is too",
        ),
        (
            ["measure.models=[{model: pixart_tiny, resolutions: [32, 33]}]"],
            "measure.models.0.resolutions=33 is not",
        ),
        (
            ["measure.models=[{model: pixart_tiny, guidance_scale: -1}]"],
            "measure.models.0.guidance_scale=-1.0 is too",
        ),
        (["steps=0"], "steps=0 is too small"),
        (["measure.warmups=[1, s]"], "measure.warmups='s' is no number of steps; allowed: 0 or more, S"),
        (["measure.warmups=[-1]"], "measure.warmups.0=-1 is too small"),
        (["measure.warmups=[true]"], "measure.warmups.0=True is no whole number"),
        (["measure.warmups=[]"], "measure.warmups=[] leaves nothing"),
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
