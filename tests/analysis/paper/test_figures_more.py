"""Published against predicted, M, W, FID and Table 1: what is computed, from made-up records."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.evidence.predictions import load_joined
from analysis.evidence.published import named
from analysis.paper import costs, fid, fid_figure, patches, predictions, scatter, warmup
from analysis.quality import record as quality_record
from tests.analysis.evidence.planted import prediction
from tests.analysis.quality import synthetic as synthetic_quality
from tests.analysis.synthetic import write_study

COLUMNS = ["source", "model", "resolution", "n_devices", "method", "setting", "metric", "value"]
OLD, NEW = "the older repository", "the paper"


def predicted() -> list[dict[str, Any]]:
    """One device takes 20 s, 1 s a step. PipeFusion's rows are predicted a tenth, or a half, too long."""
    rows = [
        prediction("latency.csv:2", "serial", 20.0, 20.0),
        prediction("latency.csv:3", "tensor", 4.0, 5.0, model="sd3_medium"),
        prediction("latency.csv:4", "ring", 5.0, 2.0, flags=["labels are swapped"]),
        prediction("latency.csv:5", "distrifusion", None, None),
    ]
    for line, (m, seconds) in enumerate([(2, 12.0), (4, 8.0), (8, 6.0)], 2):
        rows.append(
            prediction(f"patch_sweep.csv:{line}", "pipefusion", seconds, 1.1 * seconds, patches=m, warmup=2)
        )
    for line, (w, seconds) in enumerate([(1, 4.0), (2, 5.0)], 2):
        rows.append(
            prediction(f"warmup.csv:{line}", "pipefusion", seconds, 1.5 * seconds, patches=8, warmup=w)
        )
    split = {"product": "cfg 2", "warmup": 2}
    return [*rows, prediction("warmup.csv:4", "pipefusion", 3.5, 3.0, **split)]


def write_rows(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Published rows, predictions and a record of quality."""
    rows = predicted()
    for file, setting in (("latency.csv", ""), ("patch_sweep.csv", "W=1"), ("warmup.csv", "")):
        mine = [one for one in rows if one["row_id"].startswith(file)]
        written: list[list[Any]] = []
        for one in mine:
            source = NEW if file == "latency.csv" else OLD
            text = f"W={one['warmup'] - 1}" if file == "warmup.csv" else setting
            text = f"cfg=2,pp=4; {text}" if one.get("product") else text
            value = "OOM" if one["published_oom"] else one["published_s"]
            method = "PipeFusion" if one["method"] == "pipefusion" else one["method"]
            written.append([source, "PixArt", 1024, one["devices"], method, text, "latency", value])
        write_rows(tmp_path / "published" / file, written)
    big = "256px; 30000 COCO-2014; W=1"
    write_rows(
        tmp_path / "published/quality_fid.csv",
        [
            [NEW, "PixArt", "256", "1", "Original", big, "FID w/ G.T.", 20.0],
            [NEW, "PixArt", "256", "8", "DistriFusion", big, "FID w/ G.T.", 40.0],
            [NEW, "PixArt", "256", "8", "DistriFusion", big, "FID w/ Orig.", 9.0],
            [NEW, "PixArt", "256", "4[sic; maybe 8]", "PipeFusion", f"M=8; {big}", "FID w/ Orig.", 2.0],
            [NEW, "PixArt", "256", "8", "PipeFusion", "M=8", "latency", 1.5],
            ["a log", "PixArt", "?", "?", "baseline", "50k samples", "FID", 60.0],
        ],
    )
    write_study(tmp_path / "records/published", {"rows": rows}, "predict")
    synthetic_quality.write(tmp_path / "records/quality")
    return tmp_path


def test_the_printed_w_stands_beside_the_steps_that_were_run(results: Path) -> None:
    table = load_joined(results).set_index("row_id")
    assert table.printed_warmup["patch_sweep.csv:2"] == 1 and table.warmup["patch_sweep.csv:2"] == 2
    assert table.model["latency.csv:3"] == "sd3_medium"


@pytest.mark.parametrize(
    ("devices", "m", "warmup", "seconds"),
    [
        (1, 1, 0, 20.0),  # serial
        (8, 8, 20, 20.0),  # all steps synchronous: one stage after another
        (4, 4, 0, (20 * 4 + 3) / 16),  # M*S jobs, N-1 to fill, each 1/(MN) of a second
        (4, 1, 0, 20.0),  # one patch: no two stages work at the same time
        (4, 2, 2, 2 + (17 * 4 + 2 + 3) / 8),  # M < N: a step takes N jobs' time
    ],
)
def test_the_bound_of_the_schedule(devices: int, m: int, warmup: int, seconds: float) -> None:
    assert predictions.schedule_s(20.0, devices, m, 20, warmup) == pytest.approx(seconds)


def test_the_bound_of_a_row_is_from_what_one_device_was_published_with(results: Path) -> None:
    rows = patches.rows(load_joined(results))
    assert rows.patches.tolist() == [2, 4, 8]
    assert rows.bound_s.iloc[2] == pytest.approx(2 + (18 * 8 + 7) / 64)


def test_rows_are_named_in_runs() -> None:
    ids = ["warmup.csv:3", "latency.csv:9", "latency.csv:2", "latency.csv:4", "latency.csv:3"]
    assert named(ids) == "latency.csv 2–4, 9; warmup.csv 3"


def test_a_point_is_calibration_doubtful_or_a_prediction(results: Path) -> None:
    table = load_joined(results).set_index("row_id")
    roles = scatter.role(table)
    assert roles["latency.csv:2"] == "calibration" and roles["latency.csv:4"] == "doubt"
    assert roles["latency.csv:3"] == "prediction"


def test_the_scatter_draws_every_pair_and_says_what_is_left_out(results: Path) -> None:
    figure = scatter.figure(load_joined(results))
    drawn = [sum(len(line.get_xdata()) == 1 for line in axes.lines) for axes in figure.axes]
    assert drawn == [8, 1, 9]  # pixart_alpha, sd3_medium, all errors
    text = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "in no median: latency.csv 2." in text and "1 rows without a number on both sides" in text
    assert "Median absolute error of all 19.6 % (8)" in text  # of 10, 10, 10, 14.3, 25, 50, 50 and 60 %


def test_videos_have_a_column_and_other_people_s_code_its_own_median(results: Path) -> None:
    table = load_joined(results)
    other = table.model == "sd3_medium"
    theirs = table.assign(third_party=other)
    assert scatter.describe_median(theirs[other], large=False).endswith(", third party, eager")
    videos = table.assign(resolution=table.resolution.mask(other))
    assert scatter.describe_median(videos[other], large=False).endswith(", videos")
    figure = scatter.figure(videos)
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["1024 px", "video"]
    assert sum(len(line.get_xdata()) == 1 for line in figure.axes[-1].lines) == 9


def test_a_hybrid_stands_beside_its_prediction(results: Path) -> None:
    rows = warmup.rows(load_joined(results)).set_index("row_id")
    assert rows.hybrid.to_dict() == {"warmup.csv:2": False, "warmup.csv:3": False, "warmup.csv:4": True}
    assert rows.predicted_s["warmup.csv:4"] == 3.0
    ours = rows[~rows.hybrid]
    assert (warmup.step_s(ours, "published_s"), warmup.step_s(ours, "predicted_s")) == (1.0, 1.5)


def test_published_fid_keeps_its_doubts_and_leaves_out_what_is_no_row_of_n_devices(results: Path) -> None:
    rows = fid.published(results / "published")
    assert rows.value.tolist() == [20.0, 40.0, 9.0, 2.0]
    assert rows.against.tolist() == ["real", "real", "serial", "serial"]
    last = fid.joined(quality_record.load(results / "records/quality"), results / "published").iloc[3]
    assert (last.devices, last.patches, last.n, last.remark) == (4, 8, 30000, "N: sic; maybe 8")
    assert fid_figure.choice(last.to_dict()) == "N=4? M=8"


def test_our_side_has_the_n_of_its_record_the_floors_and_the_network(results: Path) -> None:
    record = quality_record.load(results / "records/quality")
    rows = fid.ours(record)
    assert set(rows[rows.method != "floor"].n) == {synthetic_quality.PICTURES}
    assert set(rows[rows.method == "floor"].n) == {2000}  # 955 real ones are no floor of 2000
    assert "n = 955 against 956 only" in fid.about(record)
    assert all(synthetic_quality.NETWORK in metric and "FID" not in metric for metric in rows.metric)
    figure = fid_figure.figure(fid.joined(record, results / "published"), record)
    assert "Not the same metric" in words_in(figure)


def test_the_sweeps_over_m_and_w_say_what_is_fastest_and_what_a_step_costs(results: Path) -> None:
    table, record = load_joined(results), quality_record.load(results / "records/quality")
    sweep = patches.figure(table, record)
    assert [axes.get_title("left") for axes in sweep.axes if axes.lines][:1] == ["N = 8, 1024 px"]
    assert "fastest M: published 8, predicted 8" in words_in(sweep)
    warm = words_in(warmup.figure(table, record))
    assert "published 1 s, predicted 1.5 s" in warm and "a step of one device: 1 s" in warm


def words_in(figure: Figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_table1_has_the_formulas_value_and_what_was_counted(tmp_path: Path) -> None:
    (tmp_path / "table1_costs.csv").write_text(
        "version,method,communication_per_timestep,overlap,param_memory,activation_memory,KV_or_buffer_memory\n"
        "README-c,TP,4O(p*hs)L,no,P/N,(2/N)A=QO/N,(2/N)A=KV/N\n"
        "README-c,DistriFusion,2O(p*hs)L,yes*,P,(2/N)A=QO/N,2AL=(KV)L\n"
        "README-c,SP-Ring,2O(p*hs)L,yes*,P,(2/N)A=QO/N,(2/N)A=KV/N\n"
        "README-c,SP-Ulysses,(4/N)O(p*hs)L,no,P,(2/N)A=QO/N,(2/N)A=KV/N\n"
        "README-c,PipeFusion,2O(p*hs),yes*,P/N,(2/M)A=QO/M,(2L/N)A=(KV)L/N\n"
    )
    facts = {
        "tokens": {"1024": 64},
        "hidden": 16,
        "param_bytes": 8000,
        "parameters": 4000,
        "layers": 8,
        "dtype": "bfloat16",
    }
    a = 64 * 16 * 2 * 2  # both branches, two bytes
    case = {
        "status": "ok", "model": "pixart_alpha", "resolution": 1024, "method": "pipefusion", "devices": 8, "warmup": 1,
        "branches": 2, "patches": 8, "step_sent_bytes": a, "param_bytes": 1500, "kv_bytes": 2 * a,
        "activation_bytes": 3 * a,
    }  # fmt: skip
    cases = pd.DataFrame([case, case | {"warmup": 0, "activation_bytes": a}, case | {"devices": 4}])
    found = costs.table({"models": {"pixart_alpha": facts}}, cases, tmp_path)
    assert list(found.quantity) == ["sent a step", "parameters", "K, V", "activations", "activations"]
    assert found.formula_bytes.tolist() == [2 * a, 1000, 2 * a, a / 4, a / 4]
    assert found.ratio.tolist() == [0.5, 1.5, 1.0, 12.0, 4.0]
    assert found.overlap.dropna().tolist() == ["yes"]
    text = costs.tabulate(found, {"models": {"pixart_alpha": facts}}).text
    assert "| PipeFusion, W=0 | QO/M |" in text
