"""Tables and figures of staleness, from a made-up record whose answers can be worked out by hand."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.image import imread

from analysis.__main__ import main
from analysis.outputs.staleness import staleness_frames
from analysis.presentation.columns import typed, words
from analysis.staleness import figures, frames, tables

STEPS, LAYERS, ROWS, TOKENS = 5, 2, 4, 16
ONE = {"method": "pipefusion", "devices": 1, "patches": 2, "warmup": 1}
TWO = {"method": "distrifusion", "devices": 2, "patches": None, "warmup": 1}
SKIPPED = {"method": "naive_patch", "devices": 3, "warmup": 1, "status": "skipped"}
SKIPPED |= {"reason": "devices=3 is wrong"}
PROBES = [
    ONE | {"devices": 2},
    TWO,
    TWO | {"warmup": 0},
    {"method": "ring", "devices": 2, "patches": None, "warmup": None},
]


def seen(probe: dict, step: int, patch: int) -> dict[str, Any]:
    """Tokens by age: halves of 8; what is not fresh is the step before's, in step 0 of W = 0 nothing."""
    exact = probe["warmup"] is None or step < probe["warmup"]
    fresh = TOKENS if exact or (probe["method"] == "pipefusion" and patch == 1) else 8
    old = TOKENS - fresh
    return {"ages": [fresh, old if step else 0] + [0] * (STEPS - 2), "never": 0 if step else old}


def band(patch: int) -> dict[str, int]:
    return {"row_start": 2 * patch, "row_stop": 2 * patch + 2, "rows": 2}


def write(folder: Path) -> None:
    """Attention errors are 1 % times the step, twice as large for DistriFusion; latents are off 5 % and 15 %."""
    jobs = [(step, layer, patch) for step in range(STEPS) for layer in range(LAYERS) for patch in range(2)]
    rows: list[dict] = [SKIPPED | {"table": "probe", "key": "p"}, SKIPPED | {"table": "run", "key": "r"}]
    for probe in PROBES:
        cell = probe | {"key": f"probe {probe}"}
        rows.append(cell | {"table": "probe"})
        for step, layer, patch in jobs:
            place = {"rank": patch, "job": step, "step": step, "layer": layer, "tokens": TOKENS} | band(patch)
            rows.append(cell | place | {"table": "freshness"} | seen(probe, step, patch))
    for factor, run in ((1, ONE), (2, TWO)):
        cell = run | {"key": f"run {run}"}
        rows.append(cell | {"table": "run", "watched": True})
        for step, layer, patch in jobs:
            stale = 0.3 if step else None
            found = {"attention_error": 0.01 * factor * step, "k_error": stale, "v_error": stale}
            rows.append(cell | {"table": "error", "step": step, "layer": layer} | band(patch) | found)
        for row, column in product(range(ROWS), range(4)):
            found = {"rms_error": 0.01 * factor * (row + 1), "rms_serial": 0.5}
            rows.append(cell | {"table": "map", "row": row, "column": column} | found)
        for step, picture in product(range(STEPS), range(2)):
            error = 0.05 * factor * (1 + 2 * picture) * (step > 0)
            rows.append(cell | {"table": "steps", "step": step, "picture": picture, "relative_error": error})
    serial = {"method": "serial", "devices": 1, "key": "serial", "table": "redundancy"}
    for quantity, (step, layer, patch) in product(("hidden", "k", "v"), jobs):
        if step:
            change = {"quantity": quantity, "change": 0.4 / step, "step": step, "layer": layer}
            rows.append(serial | change | band(patch))
    rows += [
        serial | {"quantity": "latent", "step": step, "change": 0.1} | band(0) for step in range(1, STEPS)
    ]
    same = {"status": "ok", "reason": None, "model": "made_up", "steps": STEPS, "text": None, "split": None}
    same |= {"ring_form": None, "parallel": "1 device"}
    record = {
        "model": "made_up", "guidance_scale": 2.0, "prompts": ["a", "b"], "token_rows": ROWS, "token_cols": 4,
        "layers": LAYERS, "timesteps": [*range(STEPS)], "config": {"measure": {"watched": 1}},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    typed(pd.DataFrame([same | row for row in rows])).to_parquet(folder / "rows.parquet", index=False)


def test_frames_of_still_and_moving_clips(tmp_path: Path) -> None:
    for name in ("staleness_still", "staleness_moving"):
        write(tmp_path / "records" / name)
    (made,) = staleness_frames(tmp_path)
    assert made.rows is not None
    rows = made.rows[made.rows.clips == "moving"].set_index("quantity")
    starts = sorted({band(patch)["row_start"] for patch in range(2)})
    change = sum(0.4 / step for step in range(1, STEPS)) / (STEPS - 1)
    assert [rows.loc["change of K", f"frame_{start}"] for start in starts] == pytest.approx([change] * 2)
    error = 0.01 * sum(range(1, STEPS)) / (STEPS - 1)
    assert rows.filter(like="error of attention", axis=0).frame_0.min() == pytest.approx(error)
    assert "| moving | change of K |" in made.text


def test_the_error_of_a_frame_is_that_of_the_jobs_that_have_it() -> None:
    rows = pd.DataFrame({"row_start": [0, 1, 1], "row_stop": [1, 3, 3], "attention_error": [0.1, 0.2, 0.4]})
    assert frames.spread(rows).tolist() == pytest.approx([0.1, 0.3, 0.3])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(tmp_path / "records" / "staleness")
    return tmp_path


def test_freshness_is_a_share_after_the_warm_up_and_a_skipped_setting_says_so(results: Path) -> None:
    table = tables.freshness(tables.load(results / "records/staleness"))
    assert table.method.tolist() == ["ring", "naive_patch", "distrifusion", "distrifusion", "pipefusion"]
    ring, naive, warm, cold, piped = table.to_dict("records")
    assert (ring["fresh_mean"], ring["oldest"], ring["never_first"]) == (1.0, 0, 0.0)
    assert (warm["fresh_mean"], warm["stale_age"], warm["never_first"]) == (0.5, 1.0, 0.0)
    assert (cold["fresh_mean"], cold["never_first"], cold["never_later"]) == (0.5, 0.5, 0.0)
    assert [piped[f"fresh_{which}"] for which in ("min", "mean", "max")] == [0.5, 0.75, 1.0]
    assert pd.isna(naive["fresh_mean"]) and naive["status"] == "skipped"
    text = words(table, tables.FRESHNESS)
    assert text["status"].tolist()[1] == "skipped: devices=3 is wrong" and text["fresh"].tolist()[1] == "–"


def test_shares_count_by_rows() -> None:
    assert tables.weighted_mean(pd.Series([1.0, 0.0, None]), pd.Series([3, 1, 9])) == 0.75
    assert pd.isna(tables.weighted_mean(pd.Series([None], dtype=float), pd.Series([1])))


def test_errors_are_means_of_displaced_steps_and_of_the_last_latent(results: Path) -> None:
    table = tables.errors(tables.load(results / "records/staleness")).set_index("method")
    piped, displaced = table.loc["pipefusion"], table.loc["distrifusion"]
    assert piped.attention_error == pytest.approx(0.025) and displaced.attention_error == pytest.approx(0.05)
    assert (piped.worst_step, piped.worst_step_error) == (4, pytest.approx(0.04))
    assert (piped.k_error, piped.v_error) == (pytest.approx(0.3), pytest.approx(0.3))
    assert piped.latent_error == pytest.approx(0.1) and piped.latent_sd == pytest.approx(0.1 / 2**0.5)
    assert pd.isna(table.loc["naive_patch"].attention_error)


def test_redundancy_tells_the_first_steps_from_the_rest(results: Path) -> None:
    table = tables.redundancy(tables.load(results / "records/staleness")).set_index("quantity")
    assert table.loc["k"].step_1 == 0.4 and table.loc["k"]["first"] == 0.4
    assert table.loc["k"].rest == pytest.approx((0.2 + 0.4 / 3 + 0.1) / 3)
    assert (table.loc["k"].least, table.loc["k"].least_step) == (pytest.approx(0.1), 4)
    assert table.loc["latent"].step_1 == 0.1


def test_patches_of_the_map_are_those_that_the_steps_computed(results: Path) -> None:
    record = tables.load(results / "records/staleness")
    runs = figures.ran(record)
    assert [run["method"] for run in runs] == ["distrifusion", "pipefusion"]
    assert figures.patch_rows(record, runs[0]) == [(0, 2), (2, 4)]


def test_every_output_is_written(results: Path) -> None:
    assert main(["staleness"], results) == 0
    assert len([*results.glob("*/staleness_*")]) == 21  # two files and the sources of each
    for name in ("heatmap", "fresh_share", "error_map", "steps"):
        assert imread(results / "figures" / f"staleness_{name}.png").std() > 0
    text = (results / "tables" / "staleness_error.md").read_text()
    assert "| PipeFusion | 1 | 2 | 1 | 2.5 % |" in text and "guidance 2, 2 pictures" in text


def test_the_map_quotes_the_error_of_the_table(results: Path) -> None:
    record = tables.load(results / "records" / "staleness")
    row = tables.errors(record).set_index("method").loc["pipefusion"]
    titles = [axes.get_title("left") for axes in figures.error_map(record).axes]
    assert f"off by {100 * row.latent_error:.1f} %" in " ".join(titles)


@pytest.mark.slow
def test_settings_of_several_products_are_told_apart_in_tables_and_names(results: Path) -> None:
    path = results / "records/staleness/rows.parquet"
    rows = pd.read_parquet(path)
    twins = rows[rows.key == f"run {ONE}"].assign(key="twin", parallel="cfg 2")
    typed(pd.concat([rows, twins], ignore_index=True)).to_parquet(path, index=False)
    record = tables.load(path.parent)
    table = tables.errors(record)
    assert table[table.method == "pipefusion"].parallel.tolist() == ["1 device", "cfg 2"]
    assert "degrees" in words(table, tables.headed(tables.ERRORS, table))
    assert [record.name(run) for run in figures.ran(record)][1:] == [
        "PipeFusion, M = 2, 1 device, W = 1", "PipeFusion, M = 2, cfg 2, W = 1"
    ]  # fmt: skip
    assert main(["staleness"], results) == 0


def test_a_record_without_anything_measured_still_makes_its_tables(results: Path) -> None:
    path = results / "records/staleness/rows.parquet"
    rows = pd.read_parquet(path)
    rows[rows.status == "skipped"].dropna(axis=1, how="all").assign(
        **dict.fromkeys(["parallel", "split", "ring_form", "text", "patches"])
    ).to_parquet(path, index=False)
    record = tables.load(path.parent)
    for make in (tables.errors, tables.freshness):
        assert make(record).status.tolist() == ["skipped"]
    assert words(tables.redundancy(record), tables.REDUNDANCY).empty
