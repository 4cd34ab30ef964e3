"""Tables and figures of quality, from a made-up record whose values are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.presentation import style
from analysis.quality import figures, paired, pictures, tables
from analysis.quality import record as measured
from tests.analysis.quality import synthetic as made_up
from tests.analysis.quality.synthetic import record as read

LATENT, PSNR = "latent error to serial ↓", "mean PSNR to serial, dB ↑"
TO_REAL = "Fréchet distance to real (efficientnet_lite0) ↓"
TO_SERIAL = "Fréchet distance to serial (efficientnet_lite0) ↓"


@pytest.fixture
def record() -> dict[str, Any]:
    return made_up.content()


def main_text(record: dict[str, Any]) -> pd.DataFrame:
    found = read(record)
    return tables.readable_main(found, tables.main(found)).set_index("method")


def sweeps(record: dict[str, Any]) -> pd.DataFrame:
    found = read(record)
    return tables.readable_sweeps(found, tables.sweeps(found))


def of(record: dict[str, Any], method: str, **choice: Any) -> dict[str, Any]:
    """The first setting of a method with these choices."""
    wanted = {"method": method, **choice}
    return next(row for row in record["settings"] if all(row[key] == wanted[key] for key in wanted))


def test_values_intervals_and_n_land_in_the_row_of_their_method(record: dict[str, Any]) -> None:
    table = tables.main(read(record))
    assert table.method.dropna().tolist() == style.ORDER
    ours = table.set_index("method").loc["pipefusion"]
    planted = made_up.planted_error(of(record, "pipefusion", warmup=1))
    assert ours.latent_error_serial == planted
    assert (ours.latent_error_serial_low, ours.latent_error_serial_n) == (planted * 0.95, 512)
    text = main_text(record)
    assert text.loc["PipeFusion", LATENT] == "0.0364 [0.0346, 0.0382]"
    assert text.loc["PipeFusion", ["N", "M", "W", "n", "n paired"]].tolist() == ["4", "4", "1", "2000", "512"]
    assert text.loc["Serial", [LATENT, TO_SERIAL]].tolist() == ["–", "–"]


def test_a_method_with_serials_pictures_says_so_with_the_measured_difference(record: dict[str, Any]) -> None:
    text = main_text(record)
    assert text.loc["Ulysses", TO_REAL] == text.loc["Serial", TO_REAL]
    assert text.loc["Ulysses", LATENT] == text.loc["Ulysses", TO_SERIAL] == "as serial"
    remark = "pictures of Serial: largest relative difference 2.5e-07 on 16 pictures"
    assert text.loc["Ulysses", "remark"] == remark
    for row in record["settings"]:
        row["equal_error"] = None
    assert main_text(record).loc["Ulysses", "remark"].endswith("difference not measured")


@pytest.mark.slow
def test_what_failed_or_is_not_there_is_a_row_with_its_reason(record: dict[str, Any]) -> None:
    assert main_text(record).loc["Ring", "remark"] == "skipped: 4 does not divide 18 token rows"
    rows = sweeps(record)
    failed = rows[(rows.study == "patches") & (rows.M == "16")].iloc[0]
    assert (failed[LATENT], failed.n, failed.remark) == ("–", "–", "failed: rank 2 was killed by SIGKILL")
    record["settings"] = [row for row in record["settings"] if row["method"] != "tensor"]
    assert main_text(record).loc["Tensor parallel", "remark"] == "missing: no setting of the main study"


def test_a_metric_without_a_value_says_why(record: dict[str, Any]) -> None:
    table = tables.main(read(record))
    assert "- not measured: FID to real (inception): its weights are not here" in tables.notes(
        read(record), table
    )
    key = of(record, "distrifusion", warmup=1)["key"]
    for row in record["metrics"]:
        if row["key"] == key and row["metric"] == "ssim":
            row |= {"value": None, "low": None, "high": None, "note": "too few pictures"}
    assert main_text(record).loc["DistriFusion", "remark"] == "SSIM to serial: too few pictures"


def test_floors_stand_below_with_their_own_n(record: dict[str, Any]) -> None:
    text = main_text(record)
    floor = text.loc["*floor: real pictures against other real pictures*"]
    assert list(text.index)[-3:] == [f"*floor: {row['what']}*" for row in record["floors"][1:]]
    assert (floor["kernel distance to real (efficientnet_lite0) ↓"][:6], floor.n, floor[LATENT]) == (
        "0.0001",
        "955",
        "–",
    )
    record["floors"] = []
    assert len(main_text(record)) == len(style.ORDER)


def test_a_floor_at_another_n_stands_beside_nothing_whose_value_depends_on_n(record: dict[str, Any]) -> None:
    """A Fréchet distance falls with n: real against real at 955 is no floor of values at 2000 against 1911."""
    real = "*floor: real pictures against other real pictures*"
    assert main_text(record).loc[real, TO_REAL] == "–"
    notes = tables.notes(read(record), tables.main(read(record)))
    assert "real pictures against other real pictures it is known at n = 955 against 956 only" in notes
    alike = record["floors"][0]
    alike |= {"n": made_up.PICTURES, "n_reference": 1911}
    assert "8.000 [7.600, 8.400]" in list(main_text(record).loc[real, TO_REAL])
    assert "No floor" not in tables.notes(read(record), tables.main(read(record)))


def test_settings_of_a_sweep_are_compared_on_the_pictures_that_all_have(record: dict[str, Any]) -> None:
    swept = [row for row in record["settings"] if "warmup" in row["study"] and row["method"] == "pipefusion"]
    many, few = (row["key"] for row in swept[:2])
    for row in record["metrics"]:
        row.pop("values", None)
        if row["metric"] == "latent_error" and row["key"] in (many, few):
            row["values"] = [0.2] * 4 if row["key"] == few else [0.1] * 4 + [5.0] * 36
    found = read(record)
    common = measured.settings(paired.of_studies(found, "warmup")).set_index("key")
    assert common.loc[many, "latent_error_serial"] == pytest.approx(0.1)
    assert common.loc[[many, few], "latent_error_serial_n"].to_list() == [4, 4]
    table = tables.sweeps(found)
    table = table[table.study == "warmup"].set_index("key")
    assert table.loc[many, "latent_error_serial"] == pytest.approx(0.1)
    assert table.loc[many, "latent_error_tail"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("metric", "network", "name"),
    [
        ("frechet", "inception", "FID to real (inception)"),
        ("frechet", "efficientnet_lite0", "Fréchet distance to real (efficientnet_lite0)"),
        ("kid", "efficientnet_lite0", "kernel distance to real (efficientnet_lite0)"),
        ("text_score", "clip:ViT-B-32", "CLIP score (clip:ViT-B-32)"),
        ("text_score", "emoji_scorer", "text score (emoji_scorer)"),
    ],
)
def test_only_the_network_of_a_name_may_carry_it(metric: str, network: str, name: str) -> None:
    against = "prompt" if metric == "text_score" else "real"
    assert measured.Measure(metric, against, network).name == name


@pytest.mark.slow
def test_an_infinite_psnr_is_shown_as_one(record: dict[str, Any]) -> None:
    table = tables.sweeps(read(record))
    rows = table[(table.study == "warmup") & (table.warmup == 6)].set_index("method")
    assert rows.loc["pipefusion", "psnr_db_serial"] == math.inf
    text = sweeps(record)
    text = text[(text.study == "warmup") & (text.W == "6")].set_index("method")
    assert text.loc["PipeFusion", PSNR] == "∞ [∞, ∞]"


@pytest.mark.slow
def test_a_setting_has_a_row_in_each_of_its_sweeps_and_n_always(record: dict[str, Any]) -> None:
    table = tables.sweeps(read(record))
    expected = sum(study != "main" for row in record["settings"] for study in row["study"])
    assert len(table) == expected
    text = sweeps(record)
    assert set(text[text.remark == "–"].n) == {"2000"}
    assert text[text.study == "scheduler"].scheduler.unique().tolist() == ["euler", "shipped"]


@pytest.mark.slow
def test_the_worst_pictures_are_told_from_the_pairs(record: dict[str, Any]) -> None:
    table = tables.sweeps(read(record))
    row = table[(table.study == "warmup") & (table.method == "naive_patch") & (table.warmup == 0)].iloc[0]
    planted = made_up.planted_error(of(record, "naive_patch", warmup=0))
    assert row.latent_error_tail == pytest.approx(planted * 1.95)
    assert "latent error, 95 % of pictures below" in sweeps(record)
    for row in record["metrics"]:
        row.pop("values", None)
    assert tables.sweeps(read(record)).latent_error_tail.isna().all()


def test_a_setting_whose_stand_in_differs_too_much_says_so(record: dict[str, Any]) -> None:
    serial = of(record, "serial")["key"]
    of(record, "ulysses").update(sampled_as=of(record, "ulysses")["key"], equal_to=serial, equal_error=0.02)
    remark = "sampled itself, since against Serial: largest relative difference 2.0e-02 on 16 pictures"
    assert main_text(record).loc["Ulysses", "remark"] == remark


def test_pictures_may_be_those_of_a_setting_that_no_study_asked_for(record: dict[str, Any]) -> None:
    row = of(record, "pipefusion", warmup=1)
    row |= {"sampled_as": "pipefusion_N1", "equal_error": 0.0, "equal_n": 4}
    text = main_text(record)
    assert text.loc["PipeFusion", "remark"] == "pictures of pipefusion_N1: no difference on 4 pictures"
    assert text.loc["PipeFusion", LATENT] == "0.0364 [0.0346, 0.0382]"


def test_a_line_a_method_against_w_and_w_equal_s_is_exact(record: dict[str, Any]) -> None:
    sheet = figures.warmup(read(record))
    assert sheet is not None
    error, *_, real = sheet.axes
    assert [axes.get_title("left") for axes in (error, real)] == [LATENT[:-2], TO_REAL[:-2]]
    assert [tick.get_text() for tick in error.get_xticklabels()][-3:] == ["6", "S = 20", "floor"]
    lines = [line for line in error.lines if line.get_color() == style.COLOUR["pipefusion"]]
    drawn = next(line for line in lines if len(line.get_xdata()) == 7)
    planted = [made_up.planted_error(of(record, "pipefusion", warmup=warmup)) for warmup in range(7)]
    assert list(drawn.get_ydata()) == pytest.approx(planted)
    hollow = [line for line in lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 1 and hollow[0].get_ydata()[0] < min(planted)
    assert "exact: serial's own pictures" in [text.get_text() for text in error.texts]


def test_what_could_not_be_drawn_is_in_the_caption(record: dict[str, Any]) -> None:
    sheet = figures.patches(read(record))
    assert sheet is not None
    words = " ".join(sheet.texts[-1].get_text().split())
    assert "Not drawn: PipeFusion N=4 M=16 W=1 (failed: rank 2 was killed by SIGKILL)" in words
    assert "n = 512 pictures a point" in words and "efficientnet_lite0" in words


@pytest.mark.slow
def test_steps_guidance_and_scheduler_are_small_multiples(record: dict[str, Any]) -> None:
    sheet = figures.steps(read(record))
    assert sheet is not None
    assert [axes.get_xlabel() for axes in sheet.axes[:3]] == ["steps S", "guidance scale", "scheduler"]
    record["metrics"] = [row for row in record["metrics"] if row["metric"] != "frechet"]
    few = figures.steps(read(record))
    assert few is not None and len(few.axes) == 6
    assert few.axes[3].get_title("left") == "feature distance to serial (efficientnet_lite0)"
    record["metrics"] = []
    assert figures.steps(read(record)) is None


def test_pictures_by_method_and_w_with_serial_above(record: dict[str, Any], tmp_path: Path) -> None:
    folder = made_up.write(tmp_path / "quality", record)
    rows = pictures.shown(read(record))
    assert rows.method.tolist()[:2] == ["serial", "ring"]
    assert [int(w) for w in rows[rows.method == "pipefusion"].warmup] == list(pictures.WARMUPS)
    sheet = pictures.figure(read(record), folder)
    assert sheet is not None
    words = [text.get_text() for text in sheet.texts]
    assert "skipped: 4 does not divide 18 token rows" in words and "“owl”" in words
    squares = [axes.images[0].get_array() for axes in sheet.axes if axes.images]
    serial, last_gap = np.asarray(squares[0]), np.asarray(squares[-1])
    assert serial.shape == (64, 64, 3) and last_gap.shape == (64, 64) and last_gap.max() > 0


def test_pictures_are_of_one_size(record: dict[str, Any]) -> None:
    for row in record["settings"]:
        if row["method"] in made_up.EXACT:
            row["resolution"] = 32
    assert set(pictures.shown(read(record)).query("status == 'ok'").px) == {"64"}


def test_a_record_of_one_study_makes_what_it_can(record: dict[str, Any], tmp_path: Path) -> None:
    record["settings"] = [row | {"study": ["main"]} for row in record["settings"] if "main" in row["study"]]
    made_up.write(tmp_path / "records" / "quality", record | {"floors": []})
    assert main(["quality"], tmp_path) == 0
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {"quality_pictures"}
    assert "PipeFusion" in (tmp_path / "tables" / "quality_main.md").read_text()
