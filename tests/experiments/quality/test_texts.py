"""Prompts go through a pipeline's own encoders once, and come back as they would have been encoded on the spot."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.errors import RunFailed
from experiments.models.inputs import make_inputs
from experiments.models.model import open_model
from experiments.quality.cells import QualityConfig
from experiments.quality.sample import picture_files, require, sample_all
from experiments.quality.settings import SampleConfig
from experiments.quality.texts import encode_all, encode_to, stored, texts_path
from experiments.session import Session
from tests.experiments.commands import config
from tests.experiments.tiny_pipelines import save_tiny

TEXTS = ("red apple", "green dragon", "a tree")


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
    runs = {
        tmp_path / "0": replace(cfg, prompt=["a tree", "red apple", "a tree"]),
        tmp_path / "1": replace(cfg, prompt=["green dragon"], guidance_scale=1.0),
    }
    encode_to(runs)
    for path, run in runs.items():
        model = open_model(run.model)
        there, here = make_inputs(run, model, stored(path)), make_inputs(run, model)
        assert there.keys() == here.keys()
        assert ("negative_prompt_embeds" in here) == (run.guidance_scale > 1)
        for name, tensor in here.items():
            rounded = tensor.to(getattr(torch, dtype)) if "embeds" in name else tensor
            assert torch.equal(there[name], rounded), name


def test_a_batch_is_encoded_once_and_its_file_is_of_all_that_decides_it(
    weights: Path, tmp_path: Path
) -> None:
    cfg, session = replace(of(weights), prompt=[*TEXTS[:2]]), Session(tmp_path)
    others = [replace(cfg, prompt=[*TEXTS]), replace(cfg, negative_prompt="sharp")]
    others.append(replace(of(weights, "bfloat16"), prompt=cfg.prompt))
    path = texts_path(cfg, session)
    assert path is not None and len({path, *(texts_path(one, session) for one in others)}) == 4
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of a run before")
    other = texts_path(others[0], session)
    assert other is not None
    for _ in range(2):  # the second time there is nothing left to encode
        encode_all([cfg, *others[:1]], cfg, session)
        assert path.read_bytes() == b"of a run before"
        assert load_file(other)["prompt_embeds"].shape[0] == len(TEXTS)
    assert texts_path(replace(cfg, model=replace(cfg.model, text="random")), session) is None


def test_without_encoders_every_setting_has_that_reason(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    cfg, own = replace(of(tmp_path / "weights"), prompt=[*TEXTS]), SampleConfig(batch=2)
    session = Session(tmp_path / "out")
    shutil.rmtree(tmp_path / "weights" / "text_encoder")
    sample_all([(cfg, 2)], own, cfg, session)
    with pytest.raises(RunFailed, match="the prompts were not encoded: ") as caught:
        require(picture_files(cfg, own, 2, session), session)
    assert caught.value.status == "failed"
