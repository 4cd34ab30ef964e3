"""Prompts go through a pipeline's own encoders once, and come back as they would have been encoded on the spot."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.inputs import make_inputs
from experiments.models import open_model
from experiments.quality.jobs import Job
from experiments.quality.measure import QualityConfig
from experiments.quality.sample import job_of, sample_all
from experiments.quality.settings import Setting
from experiments.quality.subjects import Prompts
from experiments.quality.texts import encode_all, encode_to, has, stored
from tests.experiments.runs import config
from tests.experiments.tiny_pipelines import save_tiny

TEXTS = ("red apple", "green dragon", "a tree")
SERIAL = Setting("serial", 1, None, None, 2, 2.0, "shipped", 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "weights"
    save_tiny("pixart_alpha", folder, with_transformer=True)
    return folder


def of(weights: Path, dtype: str = "float32"):
    names = [
        f"model.weights={weights}",
        "model.architecture=null",
        "model.resolution=64",
        f"model.dtype={dtype}",
    ]
    cfg = config(*names, "cluster=sim", "guidance_scale=2", "negative_prompt=blurry", "log.progress=false")
    cfg.measure = QualityConfig(batch=2, workers=1)
    return cfg


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_is_what_would_be_encoded(weights: Path, tmp_path: Path, dtype: str) -> None:
    cfg = of(weights, dtype)
    encode_to(tmp_path / "texts.safetensors", cfg, TEXTS)
    for prompts, scale in ((["a tree", "red apple", "a tree"], 2.0), (["green dragon"], 1.0)):
        run, model = replace(cfg, prompt=prompts, guidance_scale=scale), open_model(cfg.model)
        there, here = make_inputs(run, model, stored(tmp_path / "texts.safetensors")), make_inputs(run, model)
        assert there.keys() == here.keys()
        assert ("negative_prompt_embeds" in here) == (scale > 1)
        for name, tensor in here.items():
            rounded = tensor.to(getattr(torch, dtype)) if "embeds" in name else tensor
            assert torch.equal(there[name], rounded), name


def job(cfg, pictures: int, out: Path) -> Job:
    return job_of(SERIAL, pictures, cfg, open_model(cfg.model), Prompts(TEXTS, ("",) * 3), out)


def test_what_a_file_has(weights: Path, tmp_path: Path) -> None:
    cfg, path = of(weights), tmp_path / "texts.safetensors"
    assert not has(path, cfg, TEXTS)
    encode_to(path, cfg, TEXTS[:2])
    assert has(path, cfg, TEXTS[:1])
    assert not has(path, cfg, TEXTS)
    assert not has(path, replace(cfg, negative_prompt="sharp"), TEXTS[:1])
    made = path.stat().st_mtime_ns
    assert encode_all([replace(job(cfg, 2, tmp_path), texts=path)], cfg) == {}
    assert path.stat().st_mtime_ns == made  # what is there is not encoded again


def test_without_encoders_every_setting_has_that_reason(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    cfg = of(tmp_path / "weights")
    one = job(cfg, 2, tmp_path)
    shutil.rmtree(tmp_path / "weights" / "text_encoder")
    status, reason = sample_all([one], cfg)[one]
    assert status == "failed"
    assert reason.startswith("the prompts were not encoded: ")


def test_other_encoders_have_no_file(weights: Path, tmp_path: Path) -> None:
    cfg = of(weights)
    assert job(cfg, 2, tmp_path).texts == tmp_path / "texts" / "float32.safetensors"
    assert job(replace(cfg, model=replace(cfg.model, text="random")), 2, tmp_path).texts is None
