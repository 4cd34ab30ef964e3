"""The whole measure on stand-ins: a tiny pipeline with encoders and VAE, captions, a folder of pictures, a tiny CLIP.

It is the way of `experiment=quality_coco`, with small parts in place of PixArt, COCO, CLIP and Inception.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.errors import ConfigError
from experiments.models import open_model
from experiments.quality.measure import QualityConfig
from experiments.quality.subjects import prompts_for, real_of
from tests.experiments.quality.tiny_clip import save_tiny_clip
from tests.experiments.runs import command, config
from tests.experiments.tiny_pipelines import save_tiny

CAPTIONS = ["red apple", "green dragon", "blurry apple", "green apple", "red dragon"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    save_tiny("pixart_alpha", folder / "weights", with_transformer=True)
    save_tiny_clip(folder / "clip")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS))
    (folder / "real").mkdir()
    draw = np.random.default_rng(0)
    for k in range(9):
        pixels = draw.integers(0, 255, (40 + k, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "real" / f"{k}.jpg")
    return folder


def arguments(parts: Path, out: Path, *more: str) -> list[str]:
    study = "{study: main, method: [serial, distrifusion], devices: [2]}"
    piped = "{study: main, method: [pipefusion], devices: [1], patches: [2]}"  # it has one layer
    wider = "{study: devices, method: [distrifusion], devices: [2, 3]}"  # 3 bands of 32 rows are not equal
    return [
        "experiment=quality_coco",
        f"model.weights={parts / 'weights'}",
        "model.architecture=null",
        "model.resolution=64",
        "model.dtype=float32",
        f"prompt_file={parts / 'captions.txt'}",
        f"measure.real={parts / 'real'}",
        f"measure.clip={parts / 'clip'}",
        "measure.network=efficientnet_lite0",
        f"measure.studies=[{study}, {piped}, {wider}]",
        "measure.pictures=6",
        "measure.batch=4",
        "measure.fewest=4",
        "measure.resamples=4",
        "measure.workers=1",  # each is a process that imports everything
        "steps=3",
        "log.wandb.mode=disabled",
        "log.progress=false",
        f"hydra.run.dir={out}",
        *more,
    ]


@pytest.fixture(scope="module")
def measured(parts: Path) -> Path:
    out = parts / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, *arguments(parts, out)) == 0
    return out


def test_every_setting_is_a_row_with_its_numbers_or_its_reason(measured: Path) -> None:
    record = json.loads((measured / "quality.json").read_text())
    settings = {row["key"]: row for row in record["settings"]}
    assert {row["status"] for row in settings.values()} == {"ok", "skipped"}
    skipped = settings["distrifusion_N3_W1_S3_g4.5_shipped_64px"]
    assert skipped["status"] == "skipped"
    assert "devices=3" in skipped["reason"]
    pipe = settings["pipefusion_N1_M2_W1_S3_g4.5_shipped_64px"]
    found = {(row["key"], row["metric"], row["against"]) for row in record["metrics"]}
    for key in (pipe["key"], "distrifusion_N2_W1_S3_g4.5_shipped_64px"):
        for metric, against in [
            ("frechet", "real"), ("frechet", "serial"), ("frechet_excess", "real"), ("kid", "real"),
            ("inception_score", None), ("text_score", "prompt"), ("latent_error", "serial"), ("psnr_db", "serial"),
        ]:  # fmt: skip
            assert (key, metric, against) in found
    serial = "serial_N1_S3_g4.5_shipped_64px"
    values = {(row["key"], row["metric"], row["against"]): row["value"] for row in record["metrics"]}
    for key in (pipe["key"], "distrifusion_N2_W1_S3_g4.5_shipped_64px"):
        for metric in ("frechet", "kid"):
            assert values[key, metric, "serial"] < values[key, metric, "real"]
        excess = values[key, "frechet", "real"] - values[serial, "frechet", "real"]
        assert values[key, "frechet_excess", "real"] == pytest.approx(excess, rel=1e-9)
    assert (serial, "frechet", "real") in found
    assert not [
        row for row in found if row[0] == serial and (row[2] == "serial" or row[1] == "frechet_excess")
    ]
    assert all(row["n"] == 6 and row["low"] <= row["value"] <= row["high"] for row in record["metrics"])
    assert [row["what"] for row in record["floors"]] == ["real pictures against other real pictures"] * 2
    assert record["real"] == {"what": "9 pictures of real", "pictures": 9}


def test_the_text_scorer_is_called_what_it_is(measured: Path) -> None:
    record = json.loads((measured / "quality.json").read_text())
    names = {row["network"] for row in record["metrics"] if row["metric"] == "text_score"}
    assert len(names) == 1
    assert names.pop().startswith("CLIPScore (")


def test_every_picture_has_its_row_and_a_few_are_kept(measured: Path) -> None:
    paired = pd.read_parquet(measured / "paired.parquet")
    assert paired.groupby("key").size().to_dict() == {
        "pipefusion_N1_M2_W1_S3_g4.5_shipped_64px": 6,
        "distrifusion_N2_W1_S3_g4.5_shipped_64px": 6,
    }
    assert paired.latent_error.gt(0).all()
    assert paired.prompt[0] == paired.prompt[5]  # five captions, six pictures
    grid = json.loads((measured / "grid.json").read_text())["prompts"]
    kept = sorted((measured / "images").glob("*/0.png"))
    assert len(kept) == 3
    assert Image.open(kept[0]).size == (64, 64)
    assert set(grid) <= set(CAPTIONS)


def test_a_second_run_makes_no_picture_again(
    parts: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in (measured / "texts").iterdir()] == ["float32.safetensors"]
    before = {path: path.stat().st_mtime_ns for path in measured.rglob("[pt]*/**/*.safetensors")}
    first = json.loads((measured / "quality.json").read_text())["metrics"]
    assert command(monkeypatch, *arguments(parts, measured)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in measured.rglob("[pt]*/**/*.safetensors")}
    assert json.loads((measured / "quality.json").read_text())["metrics"] == first


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("measure.real=null", "measure.real=null, and the model's weights do not say"),
        ("measure.network=vgg", "measure.network=vgg is unknown"),
        ("measure.clip=conf", "measure.clip=conf cannot be opened"),
        ("prompt_file=null", "prompt_file=null, and the model's weights came with no prompts.json"),
        ("cluster=l40_pcie", "cluster=l40_pcie samples no pictures"),
        ("seed=[1,2]", "seed=[1, 2] is a list"),
        ("measure.clusters=[sim]", "measure.clusters=sim has no costs"),
        ("measure.pictures=1", "measure.pictures=1 is too small"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    more: str,
    line: str,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [text for text in arguments(parts, tmp_path / "out") if text.split("=")[0] != more.split("=")[0]]
    assert command(monkeypatch, *given, more) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: {line}")
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_when_nothing_can_run_every_setting_is_a_row(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = "measure.studies=[{study: main, method: [ring], devices: [5]}]"
    given = [text for text in arguments(parts, tmp_path) if not text.startswith("measure.studies")]
    monkeypatch.setattr("experiments.quality.measure.why_not", lambda setting, cfg: "method: not today")
    assert command(monkeypatch, *given, study) == 0
    record = json.loads((tmp_path / "quality.json").read_text())
    assert [row["status"] for row in record["settings"]] == ["skipped", "skipped"]
    assert record["metrics"] == record["floors"] == []


def test_prompts_come_in_an_order_of_which_every_beginning_is_fair(parts: Path) -> None:
    cfg = config(f"prompt_file={parts / 'captions.txt'}")
    first = prompts_for(cfg, open_model(cfg.model))
    assert sorted(first.texts) == sorted(CAPTIONS)
    assert first.texts != tuple(CAPTIONS)
    assert prompts_for(cfg, open_model(cfg.model)) == first


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    cfg = replace(config(), measure=QualityConfig(real=str(tmp_path)))
    with pytest.raises(ConfigError, match="has 0 pictures"):
        real_of(cfg, open_model(cfg.model))
