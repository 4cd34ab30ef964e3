"""Every committed table and figure again, from the committed records alone.

    python -m analysis                       all of them
    python -m analysis quickstart            those whose name begins so
    python -m analysis keep FOLDER NAME      make the runs in FOLDER the records NAME
    python -m analysis timeline RUN_DIR ... [--steps 0:4]
                                             timeline.png, timeline.svg and trace.json (for Perfetto) in each run
    python -m analysis --check               exit 1 if a statistic uses a row that its cluster was calibrated on

The same records give the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from analysis import published, style, trace
from analysis.gantt import gantt
from analysis.keep import keep
from analysis.outputs import OUTPUTS, PREDICTIONS
from analysis.readme import refresh
from analysis.timeline import read, summary

RESULTS = Path("results")


def check(results: Path) -> int:
    """Exit code 1, and one line, when the committed predictions score what they were fitted on."""
    path = results / PREDICTIONS
    if not path.exists():
        print(f"no predictions in {path}")
        return 0
    profiles = published.profiles_of(results.parent / "conf")
    wrong = published.check(published.load(path), results / "published", profiles)
    print(
        f"error: {wrong}" if wrong else "no statistic uses a row that its cluster was calibrated on",
        file=sys.stderr if wrong else sys.stdout,
    )
    return 1 if wrong else 0


def timelines(arguments: list[str]) -> None:
    """Draw the timeline of each run directory, into it; ``--steps A:B`` (B not included) chooses the lower panel."""
    folders, window = list(arguments), None
    if "--steps" in folders:
        at = folders.index("--steps")
        window = (folders[at + 1 : at + 2] or [""])[0]
        del folders[at : at + 2]
    for folder in folders:
        run, spans = read(folder)
        figure = gantt(run, spans, None if window is None else steps_in(window, run.steps))
        for path in [*style.save(figure, folder, "timeline"), trace.write(folder, run, spans)]:
            print(path)
        print(summary(run, spans))


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


def main(arguments: list[str], results: Path = RESULTS) -> int:
    """Exit code 0, or 2 when a name is unknown or there is nothing to keep."""
    if arguments[:1] == ["keep"] and len(arguments) == 3:
        try:
            copies = keep(arguments[1], results / "records" / arguments[2])
        except FileNotFoundError as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 2
        print(f"kept {len(copies)} runs in {results / 'records' / arguments[2]}")
        return 0
    if arguments == ["--check"]:
        return check(results)
    if arguments[:1] == ["timeline"] and len(arguments) > 1:
        try:
            timelines(arguments[1:])
        except (FileNotFoundError, ValueError) as wrong:
            print(f"error: {wrong}", file=sys.stderr)
            return 2
        return 0
    wanted = [make for make in OUTPUTS if not arguments or make.__name__.startswith(tuple(arguments))]
    if not wanted:
        names = ", ".join(make.__name__ for make in OUTPUTS)
        print(f"error: {' '.join(arguments)}: no such table or figure; allowed: {names}", file=sys.stderr)
        return 2
    for make in wanted:
        records = results / "records" / make.__name__.split("_")[0]
        if not records.exists():
            print(f"{make.__name__}: no records in {records}")
            continue
        for path in make(results):
            print(path)
    for page in [results.parent / "README.md", *sorted((results.parent / "docs").glob("*.md"))]:
        if page.exists() and refresh(page, results / "tables"):
            print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
