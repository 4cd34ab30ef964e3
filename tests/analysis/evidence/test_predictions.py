"""Predictions beside published numbers, with made-up predictions, honest and not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.check import calibration
from analysis.evidence import predictions as published
from analysis.records.committed import BEFORE, PREDICTIONS
from tests.analysis.evidence.planted import prediction as planted_prediction
from tests.analysis.synthetic import write_study

COLUMNS = ["source", "resolution", "setting", "metric", "value"]
Predictions = list[dict[str, Any]]


def prediction(
    line: int, method: str, value: float | None, predicted: float | None, **more: Any
) -> dict[str, Any]:
    """A prediction for line `line` of latency.csv, on eight devices where no other number is given."""
    return planted_prediction(f"latency.csv:{line}", method, value, predicted, **{"devices": 8} | more)


def made_up() -> Predictions:
    return [
        prediction(2, "serial", 10.0, 10.1, devices=1),
        prediction(3, "serial", 10.0, 10.1, devices=1, duplicate_of="latency.csv:2"),
        prediction(4, "pipefusion", 2.0, 2.2, patches=8, warmup=2),
        prediction(5, "tensor", 4.0, 3.0),
        prediction(6, "ring", 5.0, 2.0, flags=["labels are swapped"]),
        prediction(7, "pipefusion", 8.0, 8.8, resolution=4096, patches=8, warmup=2),
        prediction(8, "pipefusion", 8.0, 9.6, resolution=4096, duplicate_of="latency.csv:7"),
        prediction(9, "distrifusion", None, None, resolution=4096),
        prediction(10, "tensor", 20.0, None, resolution=4096),
    ]


def write(folder: Path, predictions: Predictions) -> Path:
    """The published rows that the predictions were made for, the record, and a profile."""
    (folder / "published").mkdir(parents=True, exist_ok=True)
    with (folder / "published/latency.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for one in predictions:
            value = "OOM" if one["published_oom"] else one["published_s"]
            writer.writerow(["a figure", one["resolution"], "", "latency", value])
    for record in (PREDICTIONS, BEFORE):
        write_study(folder / record, {"rows": predictions}, "predict")
    return folder


def joined(tmp_path: Path, predictions: Predictions) -> Any:
    return published.joined(predictions, write(tmp_path, predictions) / "published").set_index(
        "row_id", drop=False
    )


def test_errors_are_relative_to_what_was_published(tmp_path: Path) -> None:
    table = joined(tmp_path, made_up())
    assert table.error["latency.csv:4"] == pytest.approx(0.1)
    assert table.error["latency.csv:5"] == pytest.approx(-0.25)
    assert table.error[["latency.csv:9", "latency.csv:10"]].isna().all()


def test_a_calibration_row_and_its_repetition_are_marked_and_counted_nowhere(tmp_path: Path) -> None:
    table = joined(tmp_path, made_up())
    assert table.role.tolist() == ["calibration", "repeats calibration", *["prediction"] * 7]
    for name, rows in published.uses(table):
        assert not {"latency.csv:2", "latency.csv:3"} & set(rows), name


def test_the_original_of_a_fitted_repetition_is_fitted_too(tmp_path: Path) -> None:
    predictions = [one | {"calibrated_on": ["latency.csv:3"]} for one in made_up()]
    assert joined(tmp_path, predictions).role.tolist()[:3] == [
        "repeats calibration",
        "calibration",
        "prediction",
    ]


def test_statistics_over_all_rows_without_doubtful_and_without_repeated_ones(tmp_path: Path) -> None:
    lines = published.statistics(joined(tmp_path, made_up())).set_index("statistic")
    overall = lines.loc["overall"]
    assert overall[["rows_all", "rows_unflagged", "rows_once"]].tolist() == [5, 4, 3]
    assert overall.error_all == pytest.approx(0.2)  # of 0.1, 0.25, 0.6, 0.1, 0.2
    assert overall.error_unflagged == pytest.approx(0.15)
    assert overall.error_once == pytest.approx(0.1)
    assert lines.loc["Tensor parallel", "rows_all"] == 1  # the other one ran out of memory
    assert lines.loc["PipeFusion, 4096 px", "error_all"] == pytest.approx(0.15)
    assert lines.loc["PipeFusion, 2048 px and more", "rows_once"] == 1
    assert lines.loc["1024 px", "rows_all"] == 3


def test_the_order_of_methods(tmp_path: Path) -> None:
    found = published.pairs(joined(tmp_path, made_up()))
    pairs = {(row.faster, row.slower): row.right for row in found.itertuples()}
    assert pairs == {
        ("latency.csv:4", "latency.csv:5"): True,
        ("latency.csv:4", "latency.csv:6"): False,
        ("latency.csv:5", "latency.csv:6"): False,
    }


@pytest.mark.parametrize(
    "change", [{"cluster": "l40_pcie"}, {"resolution": 2048}, {"devices": 4}, {"method": "pipefusion"}]
)
def test_only_methods_in_the_same_place_have_an_order(tmp_path: Path, change: dict[str, Any]) -> None:
    predictions = [prediction(2, "pipefusion", 2.0, 2.0), prediction(3, "tensor", 4.0, 3.0) | change]
    for one in predictions:
        one["calibrated_on"] = []
    assert published.pairs(joined(tmp_path, predictions)).empty


def test_methods_closer_than_a_tenth_have_no_order(tmp_path: Path) -> None:
    for value, count in ((2.1, 0), (2.3, 1)):
        rows = [prediction(2, "pipefusion", 2.0, 2.0), prediction(3, "tensor", value, 1.0)]
        assert len(published.pairs(joined(tmp_path, [one | {"calibrated_on": []} for one in rows]))) == count


def test_out_of_memory_is_right_or_wrong_in_two_ways(tmp_path: Path) -> None:
    predictions = [
        *made_up(),
        prediction(11, "ulysses", None, 3.0),
        prediction(12, "ring", 1.0, 1.0, status="failed"),
    ]
    found = published.confusion(joined(tmp_path, predictions))
    assert found == {(True, True): 1, (True, False): 1, (False, True): 1, (False, False): 5}


def test_an_honest_record_passes(tmp_path: Path) -> None:
    predictions = made_up()
    assert published.check(predictions, write(tmp_path, predictions) / "published") is None


def planted(how: str) -> Predictions:
    predictions = made_up()
    if how == "a prediction hides what its cluster was fitted on":
        predictions[0]["calibrated_on"] = []
    if how == "another prediction says that a scored row was fitted":
        predictions[4]["calibrated_on"] = ["latency.csv:2", "latency.csv:5"]
    if how == "the number was fitted under another id":
        predictions[2]["calibrated_on"] = ["latency.csv:8"]
    return predictions


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "a prediction hides what its cluster was fitted on",
            "error of overall uses latency.csv:2, which l20_pcie",
        ),
        ("another prediction says that a scored row was fitted", "error of overall uses latency.csv:5"),
        ("the number was fitted under another id", "error of overall uses latency.csv:7"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, how: str, words: str) -> None:
    predictions = planted(how)
    line = published.check(predictions, write(tmp_path, predictions) / "published")
    assert line is not None
    assert line.startswith(words)
    assert "\n" not in line


def test_a_row_used_by_the_verdict_on_memory_alone_is_found(tmp_path: Path) -> None:
    predictions = made_up()
    predictions[3]["calibrated_on"] = ["latency.csv:2", "latency.csv:9"]
    line = published.check(predictions, write(tmp_path, predictions) / "published")
    assert line == "out of memory uses latency.csv:9, which l20_pcie was calibrated on"


def test_a_cluster_may_be_fitted_on_what_another_is_scored_on(tmp_path: Path) -> None:
    predictions = [
        *made_up(),
        prediction(11, "ring", 3.0, 3.0, cluster="l40_pcie", calibrated_on=["latency.csv:4"]),
    ]
    assert published.check(predictions, write(tmp_path, predictions) / "published") is None


def test_a_record_for_other_rows_is_refused(tmp_path: Path) -> None:
    predictions = made_up()
    folder = write(tmp_path, predictions) / "published"
    predictions[3]["published_s"] = 4.1
    assert published.check(predictions, folder) == "latency.csv:5 is 4.0, and its prediction was made for 4.1"
    predictions[3]["row_id"] = "latency.csv:99"
    assert "latency.csv:99" in str(published.check(predictions, folder))


PROFILE = {
    "cluster/l20_pcie": "defaults: [/schema/cluster@_here_: cluster, /device@hardware: l20, _self_]\n",
    "device/l20": "calibrated_on: ['latency.csv:2']\n",
}


def write_conf(folder: Path, fitted: str) -> None:
    for name, text in (PROFILE | {"device/l20": f"calibrated_on: {fitted}\n"}).items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("fitted", "count", "words"),
    [
        ("['latency.csv:2']", 0, ""),
        (
            "['latency.csv:2', 'latency.csv:5']",
            1,
            "results/records/published: error of overall",
        ),
    ],
)
def test_the_check_reads_the_profiles_of_today(tmp_path: Path, fitted: str, count: int, words: str) -> None:
    write(tmp_path / "results", made_up())
    write_conf(tmp_path, fitted)
    problems = calibration(tmp_path / "results", PREDICTIONS)
    assert len(problems) == count
    assert "".join(problems).startswith(words)


def test_nothing_to_check_is_no_error(tmp_path: Path) -> None:
    assert main(["--check"], tmp_path) == 0


def test_the_tables_say_what_is_doubtful(tmp_path: Path) -> None:
    write(tmp_path, [*made_up(), prediction(11, "pipefusion", 1.0, None, status="failed")])
    assert main(["published_predictions", "published_errors"], tmp_path) == 0
    predicted, errors = (
        (tmp_path / "tables" / f"published_{name}.md").read_text() for name in ("predictions", "errors")
    )
    rows = {line.split("|")[1].strip(): line for line in predicted.splitlines()}
    assert "| calibration |" in rows["latency.csv:2"]
    assert "repeats calibration; repeats latency.csv:2" in rows["latency.csv:3"]
    assert "source in doubt: labels are swapped" in rows["latency.csv:6"]
    assert "| OOM | OOM | – |" in rows["latency.csv:9"]
    assert "| PipeFusion | – | – | 1 | – | – |" in rows["latency.csv:11"]
    assert "| overall | 20.0 % (5) | 15.0 % (4) | 10.0 % (3) | 10.0 % (3) |" in errors
    assert "right in 1 of 3 (all rows), 1 of 1 (not in doubt)" in errors
    counted = (
        "1 are predicted so (with what the published program holds; with what ours does, 1); of 6 that ran, 5"
    )
    assert f"Of 1 settings published as out of memory {counted}" in errors
