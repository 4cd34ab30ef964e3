"""The quickstart's report, from made-up run directories."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from analysis.runs import frame, sweep
from experiments.methods import METHODS
from experiments.quickstart import answer, report
from tests.analysis.synthetic import write_run, write_sweep
from tests.experiments.commands import ROOT, planned


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    tmp_path = tmp_path_factory.mktemp("quickstart")
    runs = write_sweep(tmp_path / "runs")
    console = Console(width=160, record=True, file=StringIO())
    written = report(list(frame.run_dirs(runs)), tmp_path / "out", 256, console)
    return console.export_text(), written


def test_every_method_is_a_row_and_failures_have_their_reason(printed: tuple[str, list[Path]]) -> None:
    text, _ = printed
    for name in [
        "Serial",
        "Sync pipeline",
        "Tensor",
        "Ulysses",
        "Ring",
        "Naive patch",
        "DistriFusion",
        "PipeFusion",
    ]:
        assert name in text
    assert "skipped" in text
    assert "divide" in text
    assert "SIGKILL" in text


def test_the_methods_are_those_of_the_table_and_no_text_counts_them() -> None:
    assert [job.method.name for job in planned("experiment=quickstart").jobs] == [*METHODS]
    assert {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")} == {*METHODS}
    texts = ["README.md", "Makefile", ".ci/run", "docs/methods.md", "conf/experiment/quickstart.yaml"]
    for path in [ROOT / text for text in texts]:
        assert not re.search(
            r"(six|seven|eight|nine|ten|\b\d+) (other |parallel )?methods", path.read_text(), re.I
        )


def test_one_sentence_answers_what_a_device_holds(printed: tuple[str, list[Path]]) -> None:
    text, _ = printed
    sentence = " ".join(text.split())
    assert (
        "device 2 of 4 holds layers 6-8: 25.0 % of block parameters, 32.5 % of all parameters, and KV of only"
        in sentence
    )
    assert "its 3 layers for all 256 image tokens" in sentence


def test_a_note_says_that_cpu_timings_rank_nothing(printed: tuple[str, list[Path]]) -> None:
    assert "CPU timings rank nothing" in printed[0]


def test_paths_are_printed_last_and_exist(printed: tuple[str, list[Path]]) -> None:
    text, written = printed
    assert text.split()[-len(written) :] == [str(path) for path in written]
    assert all(path.stat().st_size > 0 for path in written)
    assert {"methods.csv", "devices.md", "pictures.png", "memory.svg"} <= {path.name for path in written}


def test_all_runs_failed_is_still_a_report(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "pipefusion", status="failed", reason="rank 1 was killed by SIGKILL")
    console = Console(width=160, record=True, file=StringIO())
    report(list(frame.run_dirs(tmp_path)), tmp_path / "out", 256, console)
    assert "failed: rank 1" in console.export_text()


@pytest.mark.parametrize(
    ("devices", "words"), [(1, "device 0 of 1 holds layers 0-11"), (12, "its one layer")]
)
def test_the_sentence_follows_the_numbers(tmp_path: Path, devices: int, words: str) -> None:
    write_run(tmp_path, "serial", devices=1)
    write_run(tmp_path, "pipefusion", devices=devices)
    rows = sweep.devices(tmp_path, method="pipefusion")
    assert words in answer(rows, 256)
