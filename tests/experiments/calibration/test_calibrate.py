"""A profile that was measured is a cluster: its files have the keys that conf/ takes, and plausible numbers."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from omegaconf import OmegaConf

from analysis.records.keep import keep
from analysis.records.study import load_study
from experiments.calibration import calibrate
from experiments.records import read_json
from experiments.timing import BEYOND_CACHE
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import LinkConfig
from tests.experiments.commands import command


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


SIZES = ["measure.tokens=64", "measure.hidden=32", "measure.heads=4", "measure.repeats=3"]


@pytest.mark.slow
def test_calibrate_writes_a_device_a_link_and_a_cluster(tmp_path, monkeypatch, capsys):
    keys = ["experiment=calibrate", *SIZES, "measure.profile=toy", "hydra.run.dir=here"]
    assert command(monkeypatch, *keys) == 0
    assert "-> conf/device/toy.yaml" in capsys.readouterr().out
    for name, schema in (("device", DeviceConfig), ("link", LinkConfig)):
        content = OmegaConf.to_container(OmegaConf.load(tmp_path / "here" / f"{name}.yaml"))
        assert isinstance(content, dict) and content.pop("defaults")[-1] == "_self_"
        assert set(content) <= {field.name for field in fields(schema)}
        made = schema(**content)
        numbers = [value for value in vars(made).values() if isinstance(value, float)]
        assert all(0 <= value < 1e16 for value in numbers)
    (kept,) = keep(tmp_path / "here", tmp_path / "kept")
    record = read_json(kept / "measured.json")
    assert set(record) >= {"device", "link", "processor", "config", "command", "created", "git_commit"}
    cluster = OmegaConf.load(tmp_path / "here" / "cluster.yaml")
    assert cluster.world == "plan" and {"/device@hardware": "toy"} in list(cluster.defaults)
    timings = record["timings"]
    assert sum(name.startswith("message_") for name in timings) == 4  # the latency's, and three sizes
    for name, one in timings.items():
        assert len(one["samples_s"]) == 3
        if not name.startswith("message_"):
            assert one["working_set_bytes"] >= BEYOND_CACHE * record["cache_bytes"], name


@pytest.mark.slow
def test_one_gpu_has_no_link_and_the_record_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "ranks_here", lambda device: (1, "one GPU here"))
    assert command(monkeypatch, "experiment=calibrate", *SIZES, "hydra.run.dir=here") == 0
    record = read_json(tmp_path / "here" / "measured.json")
    assert (record["link"], record["link_reason"]) == (None, "one GPU here")
    assert not any(name.startswith("message_") for name in record["timings"])
    assert not (tmp_path / "here" / "link.yaml").exists()
    cluster = OmegaConf.load(tmp_path / "here" / "cluster.yaml")
    assert cluster.topology.devices_per_node == 1 and "link" not in str(cluster.defaults)
    assert "no link: one GPU here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gpus", "device", "ranks"), [(0, "auto", 2), (1, "auto", 1), (1, "cpu", 2), (8, "auto", 2)]
)
def test_a_link_takes_two_devices(gpus, device, ranks, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found, reason = calibrate.ranks_here(device)
    assert (found, reason is None) == (ranks, ranks == 2)


@pytest.mark.slow
def test_worlds_keeps_every_repeat_of_each(tmp_path, monkeypatch, capsys):
    keys = ["model=pixart_tiny", "steps=2", "measure.rounds=2", "measure.methods=[serial,pipefusion]"]
    assert (
        command(monkeypatch, "experiment=worlds", *keys, "log.wandb.mode=disabled", "hydra.run.dir=here") == 0
    )
    rows = load_study(tmp_path / "here").rows
    counts = {"local": 2, "sim": 2, "plan": 1}
    assert rows.groupby(["method", "world"]).size().to_dict() == {
        (method, world): count for method in ("serial", "pipefusion") for world, count in counts.items()
    }
    assert (rows.latency_s > 0).all() and "virtual / wall" in capsys.readouterr().out
