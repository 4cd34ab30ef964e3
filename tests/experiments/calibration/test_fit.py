"""The fit finds efficiencies and terms that were planted, and writes nothing but its own values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.calibration.fit import alone, drop_repeats, fit_device, write_values
from experiments.published import targets
from pipefusion.sim.cost import Op, kernel_seconds
from pipefusion.sim.hardware import DeviceConfig

DEVICE = DeviceConfig("toy", peak_flops_16=1e14, peak_bandwidth=1e12, bandwidth_efficiency=0.8, kernel_s=4e-6)


def step(tokens: int) -> list[Op]:
    """Arithmetic that grows with the tokens, and with their square."""
    matmul, attention = (
        Op("matmul", 4e7 * tokens, 1e4 * tokens, 2),
        Op("attention", 4e3 * tokens**2, 6e3 * tokens, 2),
    )
    return [matmul, attention, Op("rest", 0.0, 1e5 * tokens, 2)] * 3


@pytest.mark.parametrize(("matmul", "attention"), [(0.5, 0.4), (0.9, 0.2), (0.3, 0.7)])
def test_planted_efficiencies_are_found(matmul, attention):
    rows = [step(tokens) for tokens in (4096, 16384, 65536)]
    real = replace(DEVICE, matmul_efficiency=matmul, attention_efficiency=attention)
    seconds = [sum(kernel_seconds(op, real) for op in row) for row in rows]
    found_matmul, found_attention, errors = fit_device(DEVICE, rows, seconds)
    assert found_matmul == pytest.approx(matmul, rel=0.02)
    assert found_attention == pytest.approx(attention, rel=0.02)
    assert max(map(abs, errors)) < 0.01


def test_a_number_that_is_printed_several_times_counts_once():
    rows = alone([target for target in targets() if target.model == "pixart_alpha"], "l20")
    assert len(rows) == 7
    assert sorted((target.resolution, target.published_s) for target in drop_repeats(rows)) == [
        (1024, 3.34),
        (2048, 26.43),
        (4096, 306.6),
    ]
    assert drop_repeats(rows[3:4]) == rows[3:4]  # a repetition of what is not there is a number


def test_values_are_replaced_and_everything_else_stays(tmp_path):
    path = tmp_path / "device.yaml"
    path.write_text("# A device.\nmatmul_efficiency: 0.1  # why\nname: x\ncalibrated_on: []\n")
    write_values(path, {"matmul_efficiency": 0.51234}, ["latency.csv:2", "latency.csv:3"], 2)
    want = "# A device.\nmatmul_efficiency: 0.5123  # why\nname: x\ncalibrated_on: [latency.csv:2, latency.csv:3]\n"
    assert path.read_text() == want
    write_values(path, {"matmul_efficiency": 0.51234}, ["latency.csv:2", "latency.csv:3"], 1)
    assert path.read_text() == want.replace("csv:3]", "csv:3]  # 1 numbers in 2 rows")
    with pytest.raises(ValueError, match="no absent"):
        write_values(path, {"absent": 1.0}, [], 0)
