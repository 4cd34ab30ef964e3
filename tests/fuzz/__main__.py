"""Try all of it: `python -m tests.fuzz [configurations | files] [--part K/N]`. Exit code 1 if there is a fault."""

from __future__ import annotations

import resource
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from tempfile import TemporaryDirectory
from typing import Any

from tests.fuzz import configurations, files
from tests.fuzz.verdict import FAULTS, Verdict

KINDS: dict[str, tuple[Callable[[], Iterator[Any]], Callable[[Any], Verdict]]] = {
    "configurations": (configurations.cases, configurations.verdict),
    "files": (files.cases, files.verdict),
}


def main() -> int:
    """The exit code."""
    parser = ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--part", default="1/1", help="K/N: every Nth case, the Kth first")
    parser.add_argument("--verbose", action="store_true")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    # Some values are folders in which data are looked for, and put.
    with TemporaryDirectory() as folder, chdir(folder):
        return int(sum(faults(kind, part, parts, asked.verbose) for kind in asked.kinds or KINDS) > 0)


def faults(kind: str, part: int, parts: int, verbose: bool) -> int:
    """How many cases of a kind end in a fault; each of them is printed, and how many ended how."""
    make, judge = KINDS[kind]
    counts: Counter[str] = Counter()
    for case in [*make()][part - 1 :: parts]:
        found = judge(case)
        counts[found.kind] += 1
        if found.kind in FAULTS or verbose:
            print(f"{found.kind}: {case}\n    {found.text}", flush=True)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{kind}: {dict(counts)}, {peak_mib} MiB", flush=True)
    return sum(counts[each] for each in FAULTS)


if __name__ == "__main__":
    sys.exit(main())
