"""`python -m analysis`: outputs from records, by name, and the commands beside them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from analysis.__main__ import COMMANDS, chosen, main
from analysis.outputs import OUTPUTS
from analysis.presentation import style
from analysis.readme import refresh, stale
from experiments.methods import METHODS
from tests.analysis.synthetic import write_sweep


def outputs(results: Path) -> dict[str, bytes]:
    files = [*(results / "tables").glob("*"), *(results / "figures").glob("*")]
    return {path.name: path.read_bytes() for path in files}


def names(*arguments: str) -> list[str]:
    return [output.name for output in chosen(arguments)]


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    write_sweep(tmp_path / "records" / "quickstart")
    chosen = ["quickstart_m", "quickstart_p"]  # two tables, two figures
    assert main(chosen, tmp_path) == 0
    first = outputs(tmp_path)
    assert main(chosen, tmp_path) == 0
    assert outputs(tmp_path) == first
    assert len(first) == 3 * len(names(*chosen)) == 12  # csv and md or png and svg, and the sources


def test_the_benchmark_table(tmp_path: Path) -> None:
    seconds = {
        "median_s": [5.0, 3.0],
        "min_s": [4.0, 2.0],
        "max_s": [6.0, 4.0],
        "repeats_s": [[4.0, 6.0, 5.0]] * 2,
    }
    ratios = {
        "ratio": [1.0, 2.0],
        "over_diffusers": [0.98, None],
        "bound": [None, 2.5],
        "share_of_bound": [None, 0.8],
    }
    rows = pd.DataFrame({"case": ["serial S=4", "pipefusion M=4 W=1 S=4"], **seconds, **ratios})
    run = tmp_path / "run"
    run.mkdir()
    (run / "record.json").write_text(json.dumps({"study": "bench"}))
    rows.to_parquet(run / "rows.parquet")
    assert main(["keep", str(run), "bench"], tmp_path) == 0
    assert main(["bench_cpu"], tmp_path) == 0
    text = (tmp_path / "tables" / "bench_cpu.md").read_text().splitlines()
    assert text[2] == "| serial S=4 | 5.00 | 4.00 | 6.00 | 1.000 | 0.980 | – | – |"
    assert text[3].split("|")[-3:-1] == [" 2.500 ", " 80.0 % "]


def test_tables_say_nothing_of_where_a_run_was(tmp_path: Path) -> None:
    write_sweep(tmp_path / "records" / "quickstart")
    main(["quickstart_devices"], tmp_path)
    for name in ("quickstart_devices.csv", "quickstart_devices.sources.json"):
        text = (tmp_path / "tables" / name).read_text()
        assert "a-host" not in text
        assert str(tmp_path) not in text


def test_a_name_chooses_its_outputs(tmp_path: Path) -> None:
    write_sweep(tmp_path / "records" / "quickstart")
    assert main(["quickstart_memory"], tmp_path) == 0
    made = {f"quickstart_memory.{suffix}" for suffix in ("png", "svg", "sources.json")}
    assert set(outputs(tmp_path)) == made
    assert imread(tmp_path / "figures" / "quickstart_memory.png").std() > 0


def test_names_of_the_paper_need_no_prefix() -> None:
    assert "paper_latency" in names("latency") and names("latency") == names("paper/latency")
    assert set(names("paper")) == {output.name for output in OUTPUTS if "paper_" in output.name + output.also}
    assert names("bench", "worlds") == ["bench_cpu", "worlds"]
    assert names("timeline") == ["timeline"] and len(names()) == len(OUTPUTS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["quickstrat"],
        ["quickstart", "paper/nothing"],
        [""],
        ["keep", "nowhere"],
        ["keep", "nowhere", "quickstart"],
        ["compare", "nowhere"],
        ["compare", "nowhere", "neither"],
        ["wandb"],
        ["wandb", "--mode", "aloud"],
        ["--check", "quickstart"],
        ["timeline", "nowhere"],
        ["compare", "a", "b", "--out"],
        ["report", "one", "two"],
    ],
)
def test_what_is_not_there_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments, tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_names_every_command_and_output(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], *([name, "-h"] for name in COMMANDS)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        output = capsys.readouterr().out
        assert output.startswith(
            f"usage: python -m analysis {'' if arguments == ['--help'] else arguments[0]}"[:25]
        )
        if arguments == ["--help"]:
            assert all(name in output for name in (*COMMANDS, *(output.name for output in OUTPUTS)))


def test_without_records_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 0
    assert outputs(tmp_path) == {}
    assert capsys.readouterr().out.count("no records in") == len(OUTPUTS)


def test_tables_in_readme_and_docs_are_the_generated_ones(tmp_path: Path) -> None:
    results, pages = tmp_path / "results", [tmp_path / "README.md", tmp_path / "docs" / "findings.md"]
    write_sweep(results / "records" / "quickstart")
    pages[1].parent.mkdir()
    for page in pages:
        page.write_text("before\n<!-- table: quickstart_fullest -->\nold\n<!-- end -->\nafter\n")
        assert list(stale(page, results / "tables")) == ["quickstart_fullest"]
    main(["quickstart_fullest"], results)
    table = (results / "tables" / "quickstart_fullest.md").read_text()
    for page in pages:
        assert page.read_text() == f"before\n<!-- table: quickstart_fullest -->\n{table}<!-- end -->\nafter\n"
        assert not refresh(page, results / "tables")
        assert not list(stale(page, results / "tables"))


def test_keep_then_report(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs")
    assert main(["keep", str(tmp_path / "runs"), "quickstart"], tmp_path) == 0
    assert main(["quickstart_methods"], tmp_path) == 0
    assert main(["keep", str(tmp_path / "none"), "quickstart"], tmp_path) == 2


def test_every_method_has_its_own_colour_marker_and_label() -> None:
    assert [*style.LOOKS] == [*METHODS]
    for looks in (style.COLOUR, style.MARKER, style.LABEL):
        assert len(set(looks.values())) == len(style.ORDER)
