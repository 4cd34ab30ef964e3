"""The whole measure on stand-ins: a tiny pipeline with encoders and VAE, captions, a folder of pictures, a tiny CLIP.

It is the way of `experiment=quality_coco`, with small parts in place of PixArt, COCO, CLIP and Inception.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from analysis.quality.paired import values
from analysis.quality.record import load
from analysis.records.study import Record, load_study, plain_rows
from experiments.errors import ConfigError
from experiments.models.model import open_model
from experiments.quality.measure import main_rows
from experiments.quality.subjects import open_real, prompts_for
from tests.experiments.commands import command, config
from tests.experiments.quality.pictures import save_pictures
from tests.experiments.quality.tiny_clip import save_tiny_clip
from tests.experiments.tiny_pipelines import save_tiny

CAPTIONS = ["red apple", "green dragon", "blurry apple", "green apple", "red dragon"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    save_tiny("pixart_alpha", folder / "weights", with_transformer=True)
    save_tiny_clip(folder / "clip")
    (folder / "captions.txt").write_text("\n".join(CAPTIONS))
    save_pictures(folder / "real")
    return folder


def arguments(parts: Path, out: Path, *more: str) -> list[str]:
    study = "{study: main, methods: [serial, distrifusion], devices: [2]}"
    piped = "{study: main, methods: [pipefusion], devices: [1], patches: [2]}"  # it has one layer
    wider = "{study: devices, methods: [distrifusion], devices: [2, 3]}"  # 3 bands of 32 rows are not equal
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


PIPE = "pipefusion_N1_M2_W1_S3_g4.5_shipped_64px"
BANDS = "distrifusion_N2_W1_S3_g4.5_shipped_64px"
SERIAL = "serial_N1_S3_g4.5_shipped_64px"


@pytest.mark.slow
def test_every_setting_has_rows_with_its_numbers_or_its_reason(measured: Path) -> None:
    record = load_study(measured)
    rows = record.rows[record.rows.what.isna()]
    assert dict(rows.drop_duplicates("setting").status.value_counts()) == {"ok": 3, "skipped": 1}
    (skipped,) = rows[rows.status == "skipped"].to_dict("records")
    assert skipped["setting"] == "distrifusion_N3_W1_S3_g4.5_shipped_64px"
    assert "devices=3" in skipped["reason"]
    ran = plain_rows(rows[rows.status == "ok"])
    values = {(row["setting"], row["metric"], row["against"]): row["value"] for row in ran}
    for key in (PIPE, BANDS):
        for metric, against in [
            ("frechet", "real"), ("frechet", "serial"), ("frechet_excess", "real"), ("kid", "real"),
            ("inception_score", None), ("text_score", "prompt"), ("latent_error", "serial"), ("psnr_db", "serial"),
        ]:  # fmt: skip
            assert (key, metric, against) in values
        for metric in ("frechet", "kid"):
            assert values[key, metric, "serial"] < values[key, metric, "real"]
        excess = values[key, "frechet", "real"] - values[SERIAL, "frechet", "real"]
        assert values[key, "frechet_excess", "real"] == pytest.approx(excess, rel=1e-9)
    of_serial = {row[1:] for row in values if row[0] == SERIAL}
    assert ("frechet", "real") in of_serial
    assert not [row for row in of_serial if row[1] == "serial" or row[0] == "frechet_excess"]
    ran = rows[rows.status == "ok"]
    assert (ran.n == 6).all() and (ran.low <= ran.value).all() and (ran.value <= ran.high).all()
    floors = record.rows[record.rows.what.notna()]
    assert [*floors.what] == ["real pictures against other real pictures"] * 2
    assert record.facts["real"] == {"what": "9 pictures of real", "pictures": 9}
    names = {*ran[ran.metric == "text_score"].network}
    assert len(names) == 1 and names.pop().startswith("CLIPScore (")  # called what it is


@pytest.mark.slow
def test_every_picture_has_its_value_and_a_few_are_kept(measured: Path) -> None:
    record = load(measured)
    found = values(record)
    assert found.groupby("key").size().to_dict() == {PIPE: 6, BANDS: 6}
    assert found.latent_error.gt(0).all()
    assert {*record["texts"]} == {*CAPTIONS}
    kept = sorted((measured / "images").glob("*/0.png"))
    assert [path.parent.name for path in kept] == [BANDS, PIPE, SERIAL]
    assert Image.open(kept[0]).size == (64, 64)


@pytest.mark.slow
def test_a_second_run_makes_no_picture_again(parts: Path, measured: Path, monkeypatch, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in measured.rglob("*.safetensors")}
    first = load_study(measured).rows
    assert command(monkeypatch, *arguments(parts, measured)) == 0
    assert "5 of 5 cells are done already" in capsys.readouterr().out
    # As where it was killed: the numbers again, from the pictures that are there.
    (measured / "rows.parquet").unlink()
    assert command(monkeypatch, *arguments(parts, measured)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in measured.rglob("*.safetensors")}
    pd.testing.assert_frame_equal(load_study(measured).rows, first)


@pytest.mark.slow
def test_pictures_that_are_deleted_are_not_sampled_again_where_all_rows_are_there(
    parts: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (measured / "pictures").rename(measured / "elsewhere")
    assert command(monkeypatch, *arguments(parts, measured)) == 0
    assert not (measured / "pictures").exists()
    kept.rename(measured / "pictures")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("measure.real=null", "measure.real=null, and the model's weights do not say"),
        ("measure.network=vgg", "measure.network=vgg is unknown"),
        ("measure.clip=conf", "measure.clip=conf cannot be opened"),
        ("prompt_file=null", "prompt_file=null, and the model's weights came with no prompts.json"),
        ("cluster=l40_pcie", "cluster=l40_pcie samples no pictures"),
        ("seed=[1,2]", "seed=[1, 2] has 2 seeds for 5 pictures"),
        ("measure.pictures=1", "measure.pictures=1 is too small"),
    ],
)
@pytest.mark.fast_cases(3)
def test_bad_input_is_one_line_and_writes_nothing(more, line, parts, tmp_path, monkeypatch, capsys) -> None:
    given = [text for text in arguments(parts, tmp_path / "out") if text.split("=")[0] != more.split("=")[0]]
    assert command(monkeypatch, *given, more) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_prompts_come_in_an_order_of_which_every_beginning_is_fair(parts: Path) -> None:
    cfg = config(f"prompt_file={parts / 'captions.txt'}")
    first = prompts_for(cfg, open_model(cfg.model))
    assert sorted(first.texts) == sorted(CAPTIONS)
    assert first.texts != tuple(CAPTIONS)
    assert prompts_for(cfg, open_model(cfg.model)) == first


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 0 pictures"):
        open_real(str(tmp_path), "", open_model(config().model))


def test_real_pictures_are_cut_to_the_shape_of_the_model(parts: Path) -> None:
    real = open_real(str(parts / "real"), "", open_model(config().model))
    assert [some.shape for some in real.read((32, 48), 5)] == [(5, 3, 32, 48), (4, 3, 32, 48)]


def test_rows_of_no_study_are_not_printed() -> None:
    common = {"status": "ok", "method": "serial", "metric": "psnr_db", "against": "serial", "value": 1.0}
    studies = ({"studies": ["main", "W"]}, {"studies": ["W"]}, {"studies": None}, {})
    assert len(main_rows(Record({}, pd.DataFrame([common | one for one in studies])))) == 1
