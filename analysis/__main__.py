"""Every committed table and figure again, from the committed records alone.

    python -m analysis                       all of them
    python -m analysis quickstart latency    those whose name begins so, with or without paper_ before it
    python -m analysis --check               exit 1 if a committed table or figure is not what its records say
    python -m analysis report [FILE]         one HTML page of all committed tables and figures: results/report.html
    python -m analysis compare A B [--out DIR]
                                             two folders of runs, or two records of one kind, side by side
    python -m analysis wandb [--project P] [--mode offline|online]
                                             the same tables and figures as a W&B run and artifact
    python -m analysis keep FOLDER NAME      make the runs in FOLDER the records NAME
    python -m analysis timeline RUN_DIR ... [--steps 0:4]
                                             timeline.png, timeline.svg and trace.json (for Perfetto) in each run

The same records give the same bytes, and beside each output stands NAME.sources.json, which says what it was made of.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import readme, report, sources, style, trace
from analysis.check import check
from analysis.compare import compare
from analysis.files import replacing
from analysis.gantt import gantt
from analysis.keep import keep, target_of
from analysis.output import Output, alone, each, missing
from analysis.outputs import OUTPUTS
from analysis.outputs.predicted import PREDICTIONS
from analysis.publish import publish
from analysis.record import note_files
from analysis.timeline import read, summary

RESULTS = Path("results")
PREFIX = "paper_"


def main(arguments: list[str], results: Path = RESULTS) -> int:
    """Exit code 0; 1 when a check fails; 2, and one line, when what is asked for is not there."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(
            f"{(__doc__ or '').strip()}\n\nTables and figures: {', '.join(output.name for output in OUTPUTS)}."
        )
        return 0
    try:
        if (
            arguments[:1] and arguments[0] in COMMANDS and arguments != ["timeline"]
        ):  # a figure is called so too
            return COMMANDS[arguments[0]](arguments[1:], results)
        make(chosen(arguments), results)
    except (OSError, ValueError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    return 0


def make(outputs: Sequence[Output], results: Path) -> None:
    """Write these outputs and what they were made from, and put their tables into README and docs."""
    for lines in each(written, outputs, results):
        for line in lines:
            print(line)
    for page in readme.pages(results.parent):
        if readme.refresh(page, results / "tables"):
            print(page)


def written(output: Output, results: Path) -> list[str]:
    """Write one output and its sources; a line a file, or one that says which records it has not."""
    absent = missing(output, results)
    if absent:
        return [f"{output.name}: no records in {', '.join(str(results / path) for path in absent)}"]
    with alone(output, results) as place:
        try:
            made = output.make(place)
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


def checked(arguments: list[str], results: Path) -> int:
    """``--check``"""
    if arguments:
        raise ValueError(f"--check takes nothing else, and not {' '.join(arguments)}")
    problems, counts = check(results, OUTPUTS, PREDICTIONS)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(counts)
    return 1 if problems else 0


def reported(arguments: list[str], results: Path) -> int:
    """``report [FILE]``"""
    if len(arguments) > 1:
        raise ValueError(f"report: one file, and not {' '.join(arguments)}")
    print(report.write(results, Path(arguments[0]) if arguments else results / "report.html"))
    return 0


def kept(arguments: list[str], results: Path) -> int:
    """``keep FOLDER NAME``"""
    if len(arguments) != 2:
        raise ValueError("keep: two arguments: FOLDER NAME")
    target = target_of(results / "records", arguments[1])
    print(f"kept {len(keep(arguments[0], target))} runs in {target}")
    return 0


def compared(arguments: list[str], results: Path) -> int:
    """``compare A B [--out DIR]``"""
    folders, out = option(arguments, "--out")
    if len(folders) != 2:
        raise ValueError("compare: two folders: A B [--out DIR]")
    for path in compare(Path(folders[0]), Path(folders[1]), None if out is None else Path(out)):
        print(path)
    return 0


def published(arguments: list[str], results: Path) -> int:
    """``wandb [--project P] [--mode offline|online]``"""
    rest, project = option(arguments, "--project")
    rest, mode = option(rest, "--mode")
    if rest or mode not in (None, "offline", "online"):
        raise ValueError(f"wandb {' '.join(arguments)}: allowed: [--project P] [--mode offline|online]")
    publish(results, project or "pipefusion-lab", mode or "offline")
    return 0


def timelines(arguments: list[str], results: Path) -> int:
    """``timeline RUN_DIR ... [--steps A:B]``: into each run; steps (B not included) choose the lower panel."""
    folders, window = option(arguments, "--steps")
    for folder in folders:
        run, spans = read(folder)
        figure = gantt(run, spans, None if window is None else steps_in(window, run.steps))
        made = [*style.save(figure, folder, "timeline"), trace.write(folder, run, spans)]
        note_files(Path(folder), made)
        for path in made:
            print(path)
        print(summary(run, spans))
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


def option(arguments: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """The arguments without ``NAME VALUE``, and the value; an option without one has the value ''."""
    if name not in arguments:
        return list(arguments), None
    at = list(arguments).index(name)
    return [*arguments[:at], *arguments[at + 2 :]], (list(arguments[at + 1 : at + 2]) or [""])[0]


COMMANDS: dict[str, Callable[[list[str], Path], int]] = {
    "--check": checked,
    "report": reported,
    "compare": compared,
    "wandb": published,
    "keep": kept,
    "timeline": timelines,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
