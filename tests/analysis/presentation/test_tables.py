"""Tables: what is compared with serial, shares, fullest ranks, and cells without a value."""

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.presentation import tables
from analysis.presentation.columns import words
from analysis.runs import fidelity, sweep
from tests.analysis.synthetic import BLOCK, HIDDEN_BYTES, LAYERS, REST, write_run, write_sweep


def test_ratio_and_distance_are_to_the_serial_run(tmp_path: Path) -> None:
    table = sweep.methods(write_sweep(tmp_path)).set_index("method")
    assert table.loc["pipefusion", "latency_ratio"] == pytest.approx(2.1 / 4.2)
    assert table.loc["serial", "relative_error"] == 0
    assert table.loc["serial", "psnr_db"] == math.inf
    assert 0 < table.loc["pipefusion", "relative_error"] < table.loc["distrifusion", "relative_error"]
    assert table.loc["pipefusion", "psnr_db"] > table.loc["distrifusion", "psnr_db"] > 20


def test_another_task_is_not_compared(tmp_path: Path) -> None:
    serial = write_run(tmp_path, "serial", devices=1)
    (serial / "run.json").write_text((serial / "run.json").read_text().replace('"seed": 0', '"seed": 1'))
    write_run(tmp_path, "pipefusion")
    table = sweep.methods(tmp_path).set_index("method")
    assert math.isnan(table.loc["pipefusion", "latency_ratio"])
    assert words(sweep.methods(tmp_path), sweep.METHODS_SHOWN).iloc[1]["/ serial"] == "–"


def test_shares_are_of_what_serial_holds(tmp_path: Path) -> None:
    table = sweep.devices(write_sweep(tmp_path), method="pipefusion")
    assert table.block_share.tolist() == [0.25] * 4
    assert table.model_share.tolist() == pytest.approx([(3 * BLOCK + REST) / (LAYERS * BLOCK + REST)] * 4)


def test_the_fullest_rank_of_each_method(tmp_path: Path) -> None:
    table = sweep.fullest(sweep.devices(write_sweep(tmp_path))).set_index("method")
    assert len(table) == 6
    assert table.loc["distrifusion", "kv_bytes"] == 2 * HIDDEN_BYTES * LAYERS


def test_methods_come_in_their_order_and_a_missing_value_is_a_dash(tmp_path: Path) -> None:
    text = words(sweep.methods(write_sweep(tmp_path)), sweep.METHODS_SHOWN)
    assert text.method.tolist()[:3] == ["Serial", "Sync pipeline", "Tensor parallel"]
    ring = text[text.method == "Ring"].iloc[0]
    assert ring["params MiB"] == ring["latency s"] == "–"
    assert ring.status.startswith("skipped: devices=4")


def test_markdown_has_a_row_a_run(tmp_path: Path) -> None:
    lines = tables.markdown(words(sweep.methods(write_sweep(tmp_path)), sweep.METHODS_SHOWN)).splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1


def test_relative_error_and_psnr_by_hand() -> None:
    ours, reference = np.array([[3.0, 5.0], [1.0, 0.0]]), np.array([[3.0, 4.0], [0.5, 0.0]])
    assert fidelity.relative_error(ours, reference) == pytest.approx(
        (0.2 + 1.0) / 2
    )  # each picture counts alike
    black, grey = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.1)
    assert fidelity.psnr([grey], [black]) == pytest.approx(20.0)
    assert fidelity.psnr([grey, grey], [black, 2 * grey - 0.01]) == pytest.approx(
        (20.0 - 20 * math.log10(0.09)) / 2
    )
    assert fidelity.psnr([black], [black]) == fidelity.psnr([black, grey], [black, black]) == math.inf
    assert math.isnan(fidelity.psnr([], [black]))
