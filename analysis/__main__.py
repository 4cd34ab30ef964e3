"""Every committed table and figure again, from the committed records alone.

The same records give the same bytes, and beside each output stands NAME.sources.json, which says what it was made of.
"""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from analysis import readme, report, sources
from analysis.check import check
from analysis.output import Output, alone, each, missing
from analysis.outputs import OUTPUTS
from analysis.presentation import style
from analysis.presentation.line import one_line
from analysis.publish import publish
from analysis.records.committed import PREDICTIONS
from analysis.records.files import replacing
from analysis.records.keep import keep, record_folder
from analysis.records.record import note_files
from analysis.runs import trace
from analysis.runs.compare import compare
from analysis.runs.gantt import gantt
from analysis.runs.timeline import headline, read

RESULTS = Path("results")
PREFIX = "paper_"
COMMANDS = ("make", "check", "report", "compare", "wandb", "keep", "timeline")


class Parser(ArgumentParser):
    """Raises ValueError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """The commands, each with the function that runs it as `run`."""
    names = ", ".join(output.name for output in OUTPUTS)
    root = Parser("python -m analysis", description=__doc__, epilog=f"Tables and figures: {names}.")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(
        name: str, run: Callable[[Namespace, Path], int], does: str, usage: str | None = None
    ) -> Parser:
        one: Parser = commands.add_parser(name, help=does, description=f"{does}.", usage=usage)
        one.set_defaults(run=run)
        return one

    does = (
        "the tables and figures whose name begins so, with or without paper_ before it, or all; the default"
    )
    one = command("make", make_outputs, does, "python -m analysis [make] [NAME ...]")
    one.add_argument("names", nargs="*", metavar="NAME")
    does = "exit 1 if a committed table or figure is not what its records say; also --check"
    command("check", check_results, does)
    one = command("report", write_report, "one HTML page of all committed tables and figures")
    one.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: results/report.html")
    one = command("compare", compare_records, "two folders of runs, or two records of one kind, side by side")
    one.add_argument("a", type=Path, metavar="A")
    one.add_argument("b", type=Path, metavar="B")
    one.add_argument("--out", type=Path, metavar="DIR", help="write compare.csv and compare.md there")
    one = command("wandb", publish_results, "the same tables and figures as a W&B run and artifact")
    one.add_argument("--project", default="pipefusion-lab", metavar="P")
    one.add_argument("--mode", choices=("offline", "online"), default="offline")
    one = command("keep", keep_runs, "make the runs in FOLDER the records NAME")
    one.add_argument("folder", type=Path, metavar="FOLDER")
    one.add_argument("name", metavar="NAME")
    one = command(
        "timeline", draw_timelines, "timeline.png, timeline.svg and trace.json (for Perfetto) in each run"
    )
    one.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    one.add_argument("--steps", metavar="A:B", help="steps of the lower panel, B not included")
    return root


def main(arguments: list[str], results: Path = RESULTS) -> int:
    """Exit code 0; 1 when a check fails; 2, and one line, when what is asked for is not there."""
    first = arguments[0] if arguments else ""
    if first == "--check":
        arguments = ["check", *arguments[1:]]
    elif first not in (*COMMANDS, "--help", "-h") or arguments == ["timeline"]:  # a figure is called so too
        arguments = ["make", *arguments]
    try:
        options = parser().parse_args(arguments)
        return int(options.run(options, results))
    except (OSError, ValueError) as wrong:
        print(f"error: {one_line(wrong)}", file=sys.stderr)
        return 2


def make_outputs(options: Namespace, results: Path) -> int:
    """Write these outputs and what they were made from, and put their tables into README and docs."""
    for lines in each(written, chosen(options.names), results):
        for line in lines:
            print(line)
    for page in readme.pages(results.parent):
        if readme.refresh(page, results / "tables"):
            print(page)
    return 0


def written(output: Output, results: Path) -> list[str]:
    """Write one output and its sources; a line a file, or one that says which records it has not."""
    absent = missing(output, results)
    if absent:
        return [f"{output.name}: no records in {', '.join(str(results / path) for path in absent)}"]
    with alone(output, results) as place:
        try:
            made = output.write(place)
        except (OSError, ValueError) as wrong:
            raise ValueError(f"{output.name}: {str(wrong).replace(f'{place.parent}/', '')}") from wrong
        if not made:
            return []
        made = [*made, sources.write(output, results, made, place)]
        names = [path.relative_to(place) for path in made]
        for name in names:  # only now: whatever goes wrong before leaves the old ones
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(results / name) as temporary:
                shutil.copyfile(place / name, temporary)
    return [str(results / name) for name in names]


def chosen(names: Sequence[str]) -> list[Output]:
    """The outputs whose name begins with one of these, or all. Raises ValueError for a name of nothing."""
    beginnings = [name.strip("/").replace("/", "_") for name in names]
    for name, begins in zip(names, beginnings, strict=True):
        if not any(_called(output, begins) for output in OUTPUTS):
            allowed = ", ".join(output.name for output in OUTPUTS)
            raise ValueError(f"{name}: no such table or figure; allowed: {allowed}")
    return [output for output in OUTPUTS if not names or any(_called(output, one) for one in beginnings)]


def _called(output: Output, begins: str) -> bool:
    names = (output.name, output.also)
    return bool(begins) and any(name.startswith((begins, PREFIX + begins)) for name in names)


def check_results(options: Namespace, results: Path) -> int:
    """``check``"""
    problems, counts = check(results, OUTPUTS, PREDICTIONS)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(counts)
    return 1 if problems else 0


def write_report(options: Namespace, results: Path) -> int:
    """``report [FILE]``"""
    print(report.write(results, options.file or results / "report.html"))
    return 0


def compare_records(options: Namespace, results: Path) -> int:
    """``compare A B [--out DIR]``"""
    for path in compare(options.a, options.b, options.out):
        print(path)
    return 0


def publish_results(options: Namespace, results: Path) -> int:
    """``wandb [--project P] [--mode offline|online]``"""
    publish(results, options.project, options.mode)
    return 0


def keep_runs(options: Namespace, results: Path) -> int:
    """``keep FOLDER NAME``"""
    target = record_folder(results / "records", options.name)
    print(f"kept {len(keep(options.folder, target))} runs in {target}")
    return 0


def draw_timelines(options: Namespace, results: Path) -> int:
    """``timeline RUN_DIR ... [--steps A:B]``: into each run; the steps choose the lower panel."""
    for folder in options.folders:
        run, spans = read(folder)
        figure = gantt(run, spans, options.steps and steps_in(options.steps, run.steps))
        paths = [*style.save(figure, folder, "timeline"), trace.write(folder, run, spans)]
        note_files(folder, paths)
        for path in paths:
            print(path)
        print("\n".join(headline(run, spans)))
    return 0


def steps_in(window: str, steps: int) -> range:
    """The steps that ``A:B``, ``A:`` or ``:B`` names. Raises ValueError when there is none of them."""
    first, colon, last = window.partition(":")
    try:
        chosen = range(int(first or 0), int(last or steps))
    except ValueError:
        chosen = range(0)
    if not colon or not chosen or chosen.start < 0 or chosen.stop > steps:
        raise ValueError(f"--steps {window}: allowed: A:B with 0 <= A < B <= {steps}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
