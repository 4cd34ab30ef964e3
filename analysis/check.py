"""Whether what is committed is what the records say: ``python -m analysis --check``.

Every output is made again in a folder that holds nothing but the records it names, so that one that reads another file
fails, and compared with the committed one. One line a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from analysis import readme, same, sources
from analysis.evidence import predictions as published
from analysis.output import Output, alone, each, missing

FOLDERS = ("tables", "figures")


@dataclass(frozen=True)
class Found:
    """What making one output again has shown: its files below the results folder, and what is wrong.

    An output without records is not wrong: it has nothing to be compared with, and is listed at the end.
    """

    made: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    no_records: bool = False


def check(
    results: Path, outputs: Sequence[Output], predictions: str, processes: int = 2
) -> tuple[list[str], str]:
    """All problems, a line each, and a last line that counts."""
    wrong = calibration(results, predictions)
    found = list(each(again, outputs, results, processes))
    wrong += [problem for one in found for problem in one.problems]
    made = [path for one in found for path in one.made]
    failed = [
        output.name for output, one in zip(outputs, found, strict=True) if one.problems and not one.made
    ]
    wrong += unclaimed(results, made, tuple(f"{name}." for name in failed))
    marked = readme.pages(results.parent)
    wrong += [
        f"{page.relative_to(results.parent)}: table {name} is not the generated one"
        for page in marked
        for name in readme.stale(page, results / "tables")
    ]
    idle = [output.name for output, one in zip(outputs, found, strict=True) if one.no_records]
    counts = f"{len(outputs) - len(idle)} outputs, {len(made)} files, {len(marked)} pages: "
    counts += (
        f"{len(wrong)} problems" if wrong else "as their records say; no statistic uses a row of calibration"
    )
    return wrong, counts + (f"; without records: {', '.join(idle)}" if idle else "")


def calibration(results: Path, predictions: str) -> list[str]:
    """A line when the predictions are scored on rows that their cluster was fitted on."""
    path = results / predictions
    if not path.exists():
        return []
    profiles = published.read_profiles(results.parent / "conf")
    try:
        wrong = published.check(published.load(path), results / "published", profiles)
    except (KeyError, ValueError, OSError) as error:
        wrong = f"{type(error).__name__}: {error}"
    return [f"{results.name}/{predictions}: {wrong}"] if wrong else []


def again(output: Output, results: Path) -> Found:
    """One output from its declared records alone, compared with the committed files."""
    if missing(output, results):
        return Found(no_records=True)
    with alone(output, results) as place:
        try:
            with redirect_stdout(StringIO()):
                made = output.write(place)
        except Exception as error:  # whatever it is: one line, and the others are still looked at
            words = " ".join(str(error).replace(str(place.parent), "").split())
            text = f"{output.name}: cannot be made of its records alone: {type(error).__name__}: {words}"
            return Found(problems=(text,))
        if not made:
            return Found()
        made = [*made, sources.write(output, results, made, place)]
        names = [path.relative_to(place) for path in made]
        differences = [(name, same.difference(place / name, results / name)) for name in names]
        problems = [f"{output.name}: {results.name}/{name} {words}" for name, words in differences if words]
        return Found(tuple(names), tuple(problems))


def unclaimed(results: Path, made: Sequence[Path], failed: tuple[str, ...]) -> list[str]:
    """Files that no output makes, less those called as one that could not be made, and files that two make."""
    known = set(made)
    there = sorted(
        path.relative_to(results) for folder in FOLDERS for path in (results / folder).glob("**/*")
        if path.is_file()
    )  # fmt: skip
    lines = [
        f"{results.name}/{path}: no output makes it"
        for path in there
        if path not in known and not path.name.startswith(failed)
    ]
    twice = sorted({path for path in made if made.count(path) > 1})
    return lines + [f"{results.name}/{path}: two outputs make it" for path in twice]
