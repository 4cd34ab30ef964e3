"""Rows of other people's code, read as the papers' rows are."""

from __future__ import annotations

import pytest

from analysis.evidence.published import Published, read_row
from analysis.evidence.third_party import STEPS, in_columns

ROW = {"hardware": "4xL20", "interconnect": "PCIe", "model": "FLUX.1-dev", "resolution": "1024x1024(n/s)"}
ROW |= {
    "steps": "28",
    "n_devices": "4",
    "method": "ulysses4",
    "value": "8.28",
    "unit": "s",
    "source": "somewhere",
}


def read(**changes: str) -> Published:
    return read_row("third_party.csv:2", in_columns(ROW | changes))


@pytest.mark.parametrize(
    ("text", "n", "method", "products", "compiler"),
    [
        ("serial eager", "1", "serial", [{}], ""),
        ("no offload", "1", "serial", [{}], ""),
        ("ulysses4", "4", "ulysses", [{}], ""),
        ("ulysses2 (2nd table)", "2", "ulysses", [{}], ""),
        ("tp4 compile", "4", "tensor", [{}], "torch.compile"),
        ("unified ulysses2 x ring2", "4", "USP", [{"ulysses": 2}], ""),
        ("usp best + compile", "8", "USP", [{"ulysses": 2}, {"ulysses": 4}], "torch.compile"),
        ("pipefusion pp8 (new xDiT)", "8", "pipefusion", [{}], ""),
        ("cfg2 x pp4", "8", "hybrid", [{"cfg": 2}], ""),
        ("ulysses4 x pp4", "16", "hybrid", [{"ulysses": 4}], ""),
        ("ulysses1 x ring3 x cfg1", "3", "ring", [{}], ""),
        ("ulysses2 x ring1 x cfg2", "4", "USP", [{"cfg": 2, "ulysses": 2}], ""),
        ("cfg2 x ulysses2 x ring2", "8", "USP", [{"cfg": 2, "ulysses": 2}], ""),
    ],
)
def test_the_method_is_that_of_the_papers(
    text: str, n: str, method: str, products: list[dict[str, int]], compiler: str
) -> None:
    row = read(method=text, n_devices=n)
    assert (row.method, row.products, row.compiler, row["metric"]) == (method, products, compiler, "latency")
    assert (row.model, row.px, row.gpu, row.third_party) == ("flux_dev", 1024, "L20", True)


@pytest.mark.parametrize(
    "text", ["FP8", "ulysses2 async", "cp2 + FBCache 0.12 + FP8", "serial eager teacache"]
)
def test_what_changes_the_computation_is_no_latency(text: str) -> None:
    assert read(method=text)["metric"] == f"latency with {text}"


@pytest.mark.parametrize("text", ["720x480x49f", "49f 480x720"])
def test_the_size_of_a_video_is_read_from_either_form(text: str) -> None:
    row = read(resolution=text)
    assert (row.px, row.video) == (None, (480, 720, 49))


def test_the_seconds_of_a_step_are_those_of_a_run() -> None:
    row = read(value="281.07", unit="ms/step", steps="n/s")
    assert (row.value, row.steps) == (pytest.approx(0.28107 * STEPS), STEPS)


def test_patches_are_read_and_ranks_are_no_number() -> None:
    assert read(method="pipefusion pp4 M4").patches == 4
    assert read(method="cfg2 x pp2", value="best", unit="rank")["metric"] == "rank"
