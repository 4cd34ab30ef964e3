"""The rows of OUTPUTS, what they say they read, their sidecars, and the same bytes from the committed records."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from analysis import sources
from analysis.__main__ import chosen
from analysis.output import Output, missing, source_files
from analysis.outputs import OUTPUTS
from analysis.presentation.tables import Table
from analysis.records.committed import COMMANDS

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_every_output_says_what_it_is() -> None:
    names = [output.name for output in OUTPUTS]
    assert len(set(names)) == len(names)
    for output in OUTPUTS:
        assert output.caption.endswith("."), output.name
        assert output.commands, output.name
        assert all(path.split("/")[0] in ("records", "published") for path in output.records), output.name


def test_experiments_that_are_named_exist() -> None:
    conf = RESULTS.parent / "conf" / "experiment"
    for command in COMMANDS.values():
        words = dict(word.split("=", 1) for word in command.split())
        assert "experiment" not in words or (conf / f"{words['experiment']}.yaml").exists(), command


def nothing(results: Path) -> list[Table]:
    return []


def row(*records: str) -> Output:
    return Output(nothing, records)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_records_are_files_folders_or_patterns(tmp_path: Path) -> None:
    for name in ("records/a/run.json", "records/a/x.csv", "records/a/deep/y.csv", "records/b/.hidden"):
        write(tmp_path / name)
    found = {
        pattern: [path.name for path in source_files(row(pattern), tmp_path)]
        for pattern in ("records/a", "records/a/x.csv", "records/a/**/*.csv", "records/b")
    }
    assert list(found.values()) == [["y.csv", "run.json", "x.csv"], ["x.csv"], ["y.csv", "x.csv"], []]
    assert missing(row("records/a", "records/none/*.png"), tmp_path) == []
    assert missing(row("records/a", "records/c.json"), tmp_path) == ["records/c.json"]
    assert missing(row("records/none/*.png"), tmp_path) == ["records/none/*.png"]


def test_a_sidecar_says_whose_each_file_is(tmp_path: Path) -> None:
    one = {
        "command": "run.py",
        "git_commit": "abc",
        "versions": {"torch": "2.13.0"},
        "hardware": {"cores": 2},
    }
    write(tmp_path / "records/a/one/run.json", json.dumps(one))
    write(tmp_path / "records/a/one/images/0.png", "picture")
    write(tmp_path / "records/b/b.json", json.dumps({"command": "run.py b", "created": "a day"}))
    write(tmp_path / "records/b/grid.json", json.dumps({"prompts": []}))
    write(tmp_path / "published/latency.csv", "value\n")
    output = row("records/a/one/images/*.png", "records/b/grid.json", "published/*.csv")
    made = tmp_path / "tables" / "nothing.csv"
    write(made)
    content = json.loads(sources.write(output, tmp_path, [made]).read_text())
    assert content["command"] == "python -m analysis nothing" and content["made"] == ["tables/nothing.csv"]
    published, a, b = content["records"]
    assert published == {
        "record": None,
        "files": {"published/latency.csv": hashlib.sha256(b"value\n").hexdigest()},
    }
    assert (a["record"], a["git_commit"], a["torch"]) == ("records/a/one/run.json", "abc", "2.13.0")
    assert a["files"] == {"records/a/one/images/0.png": hashlib.sha256(b"picture").hexdigest()}
    assert (b["record"], b["created"], list(b["files"])) == (
        "records/b/b.json",
        "a day",
        ["records/b/grid.json"],
    )


def test_wandb_is_imported_by_nothing_but_its_command() -> None:
    code = "import sys, analysis.__main__; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=RESULTS.parent)
    assert done.stdout == "False\n", done.stderr


def test_every_experiment_of_the_paper_has_a_table_or_figure_of_its_name() -> None:
    names = [path.stem for path in (RESULTS.parent / "conf" / "experiment" / "paper").glob("*.yaml")]
    assert len(names) > 10
    for name in names:
        assert chosen([f"paper/{name}"]), name
