"""`python -m analysis --check`: every output again from its records alone, and what is said when it differs."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis import same, sources
from analysis.__main__ import main
from analysis.check import check
from analysis.output import Output
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table

DATA, HIDDEN = "records/data/data.json", "records/other/hidden.txt"


def table(results: Path) -> list[Table]:
    """The numbers of the record."""
    rows = json.loads((results / DATA).read_text())["rows"]
    return [Table(None, "".join(f"| {number} |\n" for number in rows))]


def curve(results: Path) -> list[Drawing]:
    """The same, drawn, with a picture in it."""
    rows = json.loads((results / DATA).read_text())["rows"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(3, 2))
    left.plot(rows, clip_on=True)
    right.imshow(np.outer(rows, rows))
    plt.close(figure)
    return [Drawing(figure, dpi=60)]


def peeping(results: Path) -> list[Table]:
    """Reads what its row does not name."""
    return [Table(None, (results / HIDDEN).read_text())]


TABLE, CURVE = Output(table, (DATA,)), Output(curve, (DATA,))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A record, a table and a figure of it, and a page that has the table."""
    folder = tmp_path / "results"
    for name in (DATA, HIDDEN):
        (folder / name).parent.mkdir(parents=True)
    (folder / DATA).write_text(json.dumps({"command": "run.py", "rows": [1.0, 2.5, 2.0]}))
    (folder / HIDDEN).write_text("a secret")
    for output in (TABLE, CURVE):
        sources.write(output, folder, output.write(folder))
    text = (folder / "tables" / "table.md").read_text()
    (tmp_path / "README.md").write_text(f"<!-- table: table -->\n{text}<!-- end -->\n")
    return folder


def problems(results: Path, *outputs: Output) -> list[str]:
    return check(results, outputs or (TABLE, CURVE), "records/none.json", processes=1)[0]


def test_what_is_as_its_records_say_is_counted(results: Path) -> None:
    elsewhere = replace(TABLE, records=("records/elsewhere/*.json",))
    wrong, counts = check(results, (TABLE, CURVE), "records/none.json")
    assert (wrong, counts[:27]) == ([], "2 outputs, 5 files, 1 pages")
    wrong, counts = check(results, (CURVE, elsewhere), "records/none.json", processes=1)
    assert counts.endswith("; without records: table")
    assert wrong[0] == "results/tables/table.md: no output makes it"


def test_a_table_with_another_digit_is_told_with_its_line(results: Path) -> None:
    path = results / "tables" / "table.md"
    path.write_text(path.read_text().replace("2.5", "2.6"))
    wrong = problems(results)
    assert (
        wrong[0]
        == "table: results/tables/table.md line 2 is '| 2.5 |' by its records, and '| 2.6 |' as committed"
    )
    assert wrong[1] == "README.md: table table is not the generated one"
    path.write_text("| 1.0 |\n")
    assert "has 1 lines, and by its records 3" in problems(results)[0]


def test_a_changed_record_is_told_of_every_file_made_of_it(results: Path) -> None:
    (results / DATA).write_text(json.dumps({"command": "run.py", "rows": [1.0, 2.5, 2.6]}))
    named = [line.split(" ")[1].split("/")[-1] for line in problems(results)]
    assert named == ["table.md", "table.sources.json", "curve.png", "curve.svg", "curve.sources.json"]


def test_a_file_that_is_read_must_be_declared(results: Path) -> None:
    peep = Output(peeping, (DATA,))
    wrong = problems(results, TABLE, CURVE, peep)
    assert len(wrong) == 1 and "\n" not in wrong[0]
    assert wrong[0].startswith("peeping: cannot be made of its records alone: FileNotFoundError")
    (results / "tables" / "peeping.md").write_text("a secret")
    assert problems(results, TABLE, CURVE, peep) == wrong  # its file is not one of nobody's
    (results / "tables" / "peeping.md").unlink()
    peep = replace(peep, records=(DATA, HIDDEN))
    assert problems(results, TABLE, CURVE, peep)[0] == "peeping: results/tables/peeping.md is not there"


def test_files_of_nobody_missing_files_and_unknown_tables_are_told(results: Path) -> None:
    (results / "figures" / "old.png").write_bytes(b"")
    (results / "figures" / "curve.svg").unlink()
    page = results.parent / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- table: gone -->\n<!-- end -->\n")
    assert problems(results) == [
        "curve: results/figures/curve.svg is not there",
        "results/figures/old.png: no output makes it",
        "docs/page.md: table gone is not the generated one",
    ]
    assert "results/tables/table.md: two outputs make it" in problems(results, TABLE, TABLE, CURVE)


def test_figures_may_differ_by_the_last_digits_of_floating_point(results: Path) -> None:
    svg, png = (results / "figures" / f"curve.{kind}" for kind in ("svg", "png"))
    drawing = svg.read_text()
    number = same.NUMBER.search(drawing, drawing.index('d="M'))
    assert number is not None

    def moved(by: float) -> str:
        return f"{drawing[: number.start()]}{float(number[0]) + by:.6f}{drawing[number.end() :]}"

    svg.write_text(moved(1e-5))
    assert problems(results) == []
    svg.write_text(moved(1.0))
    assert "where its records give" in problems(results)[0]
    svg.write_text(drawing.replace("<path", "<g/><path", 1))
    assert "another drawing" in problems(results)[0]
    svg.write_text(drawing)
    pixels = plt.imread(png).copy()
    pixels[0, 0, 0] -= 1 / 255
    plt.imsave(png, pixels)
    assert problems(results) == []
    plt.imsave(png, np.roll(plt.imread(png), 1, axis=1))  # lines and letters a pixel further
    assert problems(results) == []


def drawn(path: Path, rows: list[float], label_x: float = 0.5, missing: bool = False) -> Path:
    """A figure of two curves and a label."""
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot(rows)
    if not missing:
        axes.plot(rows[::-1], linewidth=0.8)
    axes.text(label_x, 0.5, "a label", transform=axes.transAxes, fontsize=8)
    plt.close(figure)
    figure.savefig(path, dpi=100)
    return path


def test_whatever_is_small_on_a_large_picture_is_seen(tmp_path: Path) -> None:
    """An average over the picture would hide each of these."""
    rows = [1.0, 2.5, 2.0, 4.0]
    good, again, bad = (tmp_path / f"{name}.png" for name in ("good", "again", "bad"))
    assert same.difference(drawn(good, rows), drawn(again, rows)) == ""
    pixels = plt.imread(good)
    for side in (1, 6):
        specks = pixels.copy()
        for at in (30, 200):
            specks[at : at + side, at : at + side, :3] = 0
        plt.imsave(bad, specks)
        words = same.difference(good, bad)
        assert words.endswith(f"in columns 30-{199 + side}, rows 30-{199 + side}"), words
        assert same.difference(bad, good) == words
    faint = pixels.copy()
    faint[30:60, 90:120, :3] = 1 - 4 / 255  # a shade darker than the paper
    plt.imsave(bad, faint)
    assert same.difference(good, bad).endswith("in columns 90-119, rows 30-59")
    for other in ({"label_x": 0.52}, {"missing": True}, {"rows": [1.0, 2.5, 2.1, 4.0]}):
        assert "differs from" in same.difference(good, drawn(bad, **{"rows": rows, **other})), other


def test_the_command_counts_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], tmp_path / "results") == 0
    path = tmp_path / "results" / "tables" / "typed.md"
    path.parent.mkdir(parents=True)
    path.write_text("typed by hand")
    capsys.readouterr()
    assert main(["--check"], tmp_path / "results") == 1
    out, err = capsys.readouterr()
    assert err == "error: results/tables/typed.md: no output makes it\n"
    assert out.startswith("0 outputs, 0 files, 0 pages: 1 problems; without records: ")
