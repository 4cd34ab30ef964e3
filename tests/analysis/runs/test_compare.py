"""`python -m analysis compare A B`: rows joined, ratios only where they mean something, and it fits a terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis.presentation.columns import typed
from analysis.runs.compare import compare
from analysis.runs.pairs import joined
from tests.analysis.synthetic import write_run


def edit(run: Path, **changes: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | changes))


@pytest.fixture
def sweeps(tmp_path: Path) -> tuple[Path, Path]:
    """The same two runs in both, PipeFusion twice as slow in B; one more in each."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        write_run(folder, "serial", devices=1)
        write_run(folder, "pipefusion", noise=0.02)
    write_run(a, "tensor", status="failed", reason="rank 2 was killed by SIGKILL")
    write_run(b, "ring")
    edit(b / "pipefusion", latency_s={"repeats": [4.2], "median": 4.2, "spread": 0.0})
    return a, b


def printed(a: Path, b: Path, width: int = 80) -> list[str]:
    stream = io.StringIO()
    compare(a, b, console=Console(file=stream, width=width))
    return stream.getvalue().splitlines()


def by_method(a: Path, b: Path) -> pd.DataFrame:
    return joined(a, b).rows.set_index("method")


def test_rows_are_joined_on_what_was_asked_for(sweeps: tuple[Path, Path]) -> None:
    rows = by_method(*sweeps)
    assert list(rows.index) == ["serial", "tensor", "pipefusion", "ring"]
    assert rows.ratio.loc[["serial", "pipefusion"]].tolist() == [1.0, 2.0]
    pipefusion = rows.loc["pipefusion"]
    assert pipefusion.param_bytes_a == pipefusion.param_bytes_b == 3 * 1_800_000 + 2_400_000
    assert pipefusion.relative_error_a == pipefusion.relative_error_b > 0
    assert rows.loc["tensor", "status_a"] == "failed" and pd.isna(rows.loc["tensor", "status_b"])
    assert joined(*sweeps).warnings == []


def test_other_settings_are_other_rows(sweeps: tuple[Path, Path]) -> None:
    edit(sweeps[1] / "pipefusion", method_config={"name": "pipefusion", "patches": 8, "warmup": 1})
    rows = joined(*sweeps).rows
    assert rows[rows.method == "pipefusion"].patches.tolist() == [4, 8]
    assert rows[rows.method == "pipefusion"].ratio.isna().all()


def test_seconds_of_another_machine_have_no_ratio(sweeps: tuple[Path, Path]) -> None:
    hardware = {"cpu": "another cpu", "cores": 64, "gpu": None}
    edit(sweeps[1] / "serial", hardware=hardware, git_commit="b" * 40 + "-dirty")
    found = joined(*sweeps)
    assert found.rows.set_index("method").ratio.isna().loc[["serial", "pipefusion"]].tolist() == [True, False]
    assert found.warnings[0].startswith("hardware differs: A a cpu, 2 cores; B a cpu, 2 cores or another cpu")
    assert found.warnings[1] == "commits differ: A unknown; B bbbbbbbbbb-dirty or unknown"
    for run in ("serial", "pipefusion", "ring"):
        edit(sweeps[1] / run, hardware=hardware)
    assert not any("B / A" in line for line in printed(*sweeps))


def test_predicted_seconds_are_of_the_profile_and_not_of_the_machine(sweeps: tuple[Path, Path]) -> None:
    for folder in sweeps:
        edit(folder / "serial", predicted=True, cluster="l40_pcie")
    edit(sweeps[1] / "serial", hardware={"cpu": "another cpu", "cores": 64, "gpu": None})
    assert by_method(*sweeps).loc["serial", "ratio"] == 1.0


def test_repeated_settings_are_paired_in_order(sweeps: tuple[Path, Path]) -> None:
    write_run(sweeps[0] / "again", "serial", devices=1)
    found = joined(*sweeps)
    assert len(found.rows[found.rows.method == "serial"]) == 2
    assert found.warnings[0] == "A has several rows of one setting; they are paired in their order"


def test_what_is_printed_fits_a_terminal(sweeps: tuple[Path, Path]) -> None:
    lines = printed(*sweeps)
    assert all(len(line) <= 80 and "…" not in line for line in lines)
    assert "in every row: " in lines[2] and "model emoji64" in lines[2]
    at = next(number for number, line in enumerate(lines) if line.startswith("PipeFusion"))
    assert lines[at].split()[:6] == ["PipeFusion", "4", "4", "1", "A", "2.10"]
    assert lines[at + 1].split()[4:7] == ["B", "4.20", "2.000"]
    absent = next(line for line in lines if line.startswith("Ring") and " A " in line)
    assert set(absent.split("A")[1].split()) == {"–"}


def test_with_out_it_is_written_as_well(sweeps: tuple[Path, Path], tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    written = compare(*sweeps, tmp_path / "out", console)
    assert [path.name for path in written] == ["compare.csv", "compare.md"]
    rows = pd.read_csv(written[0]).set_index("method")
    assert rows.loc["pipefusion", "latency_s_b"] == 4.2 and rows.loc["pipefusion", "ratio"] == 2.0
    assert "| PipeFusion | 4 | 4 | 1 | B | 4.20 | 2.000 |" in written[1].read_text()


def scaling(folder: Path, seconds: list[float | None]) -> Path:
    folder.mkdir()
    common = {"cluster": "l40_pcie", "method": "pipefusion", "resolution": 1024, "patches": 4, "warmup": 1}
    rows = [
        common | {"devices": 2**at, "predicted_latency_s": value, "peak_bytes": 2**20, "status": "ok"}
        for at, value in enumerate(seconds)
    ]
    (folder / "record.json").write_text(
        json.dumps({"study": "scaling", "predicted": True, "git_commit": "c" * 40})
    )
    typed(pd.DataFrame(rows)).to_parquet(folder / "rows.parquet")
    return folder


def test_of_records_with_many_rows_those_that_differ_are_shown(tmp_path: Path) -> None:
    a, b = scaling(tmp_path / "a", [4.0, 2.0, None]), scaling(tmp_path / "b", [4.0, 3.0, None])
    lines = printed(a, b)
    assert "2 of 3 rows are equal" in lines
    assert [line.split()[-4:] for line in lines[-2:]] == [
        ["2.000", "–", "1.00", "ok"],
        ["3.000", "1.500", "1.00", "ok"],
    ]
    assert "3 of 3 rows are equal" in printed(a, a)


def test_what_cannot_be_compared_says_so(sweeps: tuple[Path, Path], tmp_path: Path) -> None:
    record = scaling(tmp_path / "scaling", [1.0])
    with pytest.raises(ValueError, match=r"holds run\.json, .* holds scaling; allowed"):
        joined(sweeps[0], record)
    with pytest.raises(ValueError, match="is not a folder"):
        joined(sweeps[0], tmp_path / "none")


def test_a_list_where_a_run_has_a_number_is_no_run(sweeps: tuple[Path, Path]) -> None:
    edit(sweeps[1] / "pipefusion", method_config={"name": "pipefusion", "patches": [4]})
    with pytest.raises(ValueError, match=r"run.json has method_config.patches=\[4\], as no run records it"):
        joined(*sweeps)
