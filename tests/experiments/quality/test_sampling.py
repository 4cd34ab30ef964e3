"""Pictures depend on prompt, seed and setting alone; what is there is not made again; failures end one setting only."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.device import device_type
from experiments.methods import METHODS
from experiments.models import open_model
from experiments.quality.equal import measure_equality
from experiments.quality.measure import QualityConfig
from experiments.quality.pools import take_gpu, workers_of
from experiments.quality.sample import (
    Job,
    in_processes,
    job_of,
    sample_all,
    sample_batch,
    sample_in_process,
)
from experiments.quality.settings import Planned, Setting, StudyConfig
from experiments.quality.subjects import Prompts
from tests.experiments.runs import config

SERIAL = Setting("serial", 1, None, None, 2, 2.0, "shipped", 32)
PIPE = Setting("pipefusion", 2, 4, 0, 2, 2.0, "shipped", 32)
TEXTS = ("red apple", "green dragon", "a tree")


@pytest.fixture
def cfg():
    cfg = config("guidance_scale=2", "model.resolution=32", "cluster=sim", "log.progress=false", "seed=5")
    cfg.measure = QualityConfig(studies=[StudyConfig(method=["serial"])], pictures=5, batch=2, workers=1)
    return cfg


def on(cfg, device: str):
    return replace(cfg, cluster=replace(cfg.cluster, device=device))


def job(cfg, setting: Setting, pictures: int, out: Path) -> Job:
    return job_of(setting, pictures, cfg, open_model(cfg.model), Prompts(TEXTS, ("",) * 3), out)


def pictures(one: Job) -> torch.Tensor:
    return torch.cat([latents for latents, _ in one.store.read(one.pictures)])


def test_a_picture_is_a_run_with_its_seed_and_prompt(cfg, tmp_path: Path) -> None:
    five = job(cfg, PIPE, 5, tmp_path)
    for numbers in five.missing:
        sample_batch(five, cfg, numbers)
    assert [len(numbers) for numbers in five.store.batches(5)] == [2, 2, 1]
    run = five.configure(cfg, range(3, 4))
    assert (run.prompt, run.seed) == (["red apple"], [8])
    alone = job(replace(cfg, seed=8), PIPE, 1, tmp_path / "alone")
    sample_batch(alone, replace(cfg, seed=8), range(1))  # prompt 0 and seed 8: the same picture
    torch.testing.assert_close(pictures(alone)[0], pictures(five)[3], rtol=2e-3, atol=2e-3)
    latents, images = next(five.store.read(2))
    shown = ((latents.clamp(-1, 1) + 1) / 2 * 255).round() / 255
    torch.testing.assert_close(images, shown, rtol=0, atol=2.1 / 255)  # latents are kept in float16


def test_a_killed_run_goes_on_and_nothing_is_made_twice(cfg, tmp_path: Path) -> None:
    one = job(cfg, SERIAL, 5, tmp_path)
    sample_batch(one, cfg, range(2, 4))
    made = one.store.path(range(2, 4)).stat().st_mtime_ns
    assert [numbers.start for numbers in one.missing] == [0, 4]
    time.sleep(0.01)
    assert sample_all([one], cfg) == {}
    assert one.missing == []
    assert one.store.path(range(2, 4)).stat().st_mtime_ns == made
    assert not list(tmp_path.rglob("*.tmp"))
    more = replace(one, pictures=6)  # the last file was not full: it alone is made again
    assert [numbers.start for numbers in more.missing] == [4]


def test_other_weights_prompts_or_seeds_are_other_pictures(cfg, tmp_path: Path) -> None:
    one = job(cfg, SERIAL, 2, tmp_path)
    sample_batch(one, cfg, range(2))
    assert job(cfg, SERIAL, 2, tmp_path).missing == []
    here = device_type("auto")
    assert job(on(cfg, here), SERIAL, 2, tmp_path).missing == []
    assert job(on(cfg, "cpu" if here == "cuda" else "cuda"), SERIAL, 2, tmp_path).missing
    assert job(replace(cfg, seed=6), SERIAL, 2, tmp_path).missing
    assert job(replace(cfg, model=replace(cfg.model, text="minilm")), SERIAL, 2, tmp_path).missing
    assert job(replace(cfg, negative_prompt="blurry"), SERIAL, 2, tmp_path).missing
    assert job(replace(cfg, model=replace(cfg.model, seed=1)), SERIAL, 2, tmp_path).missing


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_a_gpu_are_those_of_a_cpu(cfg, method: str) -> None:
    setting = replace(SERIAL, method=method, devices=2, patches=2 if method == "pipefusion" else None)
    made = []
    for device in ("cpu", "cuda"):
        run = setting.configure(on(cfg, device))
        run = replace(run, model=replace(run.model, dtype="float32"), seed=5)
        made.append(sample_in_process(run, open_model(run.model), None))
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-3)


def test_a_setting_that_fails_has_a_reason_and_the_others_go_on(cfg, tmp_path: Path) -> None:
    bad = job(cfg, replace(SERIAL, scheduler="nonsense"), 3, tmp_path)
    good = job(cfg, SERIAL, 2, tmp_path)
    done: list[tuple[Setting, int]] = []
    failures = in_processes([bad, good], cfg, lambda setting, count: done.append((setting, count)))
    assert list(failures) == [bad]
    assert failures[bad][0] == "failed"
    assert "nonsense" in failures[bad][1]
    assert done == [(SERIAL, 2)]


def test_samplers_take_turns_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, ranks = multiprocessing.get_context("spawn").Value("i", 0), []
    monkeypatch.setenv("LOCAL_RANK", "")
    for _ in range(3):
        take_gpu(turn, 2)
        ranks.append(os.environ["LOCAL_RANK"])
    assert ranks == ["0", "1", "0"]


def test_equality_is_measured_once(cfg, tmp_path: Path) -> None:
    two = replace(PIPE, devices=2)
    claims = [Planned(two), Planned(replace(SERIAL, method="ring", devices=2)), Planned(SERIAL)]
    model, prompts = open_model(cfg.model), Prompts(TEXTS, ("",) * 3)
    with workers_of(cfg) as pool:
        measure_equality(claims, cfg, model, prompts, tmp_path, pool)
    assert claims[0].equality is not None and claims[0].equality.error == 0.0
    assert claims[1].equality is not None and 0 <= claims[1].equality.error < 1e-5
    assert claims[2].equality is None
    assert claims[1].source == SERIAL
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    with workers_of(cfg) as pool:
        measure_equality(claims[:1], cfg, model, prompts, tmp_path, pool)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}


def test_what_fails_in_the_comparison_is_sampled_itself(cfg, tmp_path: Path) -> None:
    bad = Planned(replace(SERIAL, method="ring", devices=2, scheduler="nonsense"))
    with workers_of(cfg) as pool:
        measure_equality([bad], cfg, open_model(cfg.model), Prompts(TEXTS, ("",) * 3), tmp_path, pool)
    assert bad.equality is None
    assert bad.source == bad.setting
