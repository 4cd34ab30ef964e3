"""A profile that was measured is a cluster: its files have the keys that conf/ takes, and plausible numbers."""

from __future__ import annotations

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from analysis.keep import keep
from experiments.records import read_json
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import LinkConfig
from tests.experiments.runs import command


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_calibrate_writes_a_device_a_link_and_a_cluster(tmp_path, monkeypatch, capsys):
    sizes = ["measure.tokens=64", "measure.hidden=32", "measure.heads=4", "measure.repeats=3"]
    assert (
        command(monkeypatch, "experiment=calibrate", *sizes, "measure.profile=toy", "hydra.run.dir=here") == 0
    )
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


def test_sizes_that_do_not_divide_are_refused(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "experiment=calibrate", "measure.heads=7", "hydra.run.dir=here") == 2
    assert "measure.hidden=512 is not a multiple of measure.heads=7" in capsys.readouterr().err
    assert not (tmp_path / "here").exists()


def test_worlds_keeps_every_repeat_of_each(tmp_path, monkeypatch, capsys):
    keys = ["model=pixart_tiny", "steps=2", "measure.rounds=2", "measure.methods=[serial,pipefusion]"]
    assert (
        command(monkeypatch, "experiment=worlds", *keys, "log.wandb.mode=disabled", "hydra.run.dir=here") == 0
    )
    record = read_json(tmp_path / "here" / "worlds.json")
    assert [row["method"] for row in record["rows"]] == ["serial", "pipefusion"]
    for row in record["rows"]:
        assert {world: len(times) for world, times in row["seconds"].items()} == {
            "local": 2,
            "sim": 2,
            "plan": 1,
        }
        assert row["sim_ratio"] > 0 and row["plan_ratio"] > 0
    assert "sim / local" in capsys.readouterr().out
