"""The jobs that every stage of a pipeline does, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipefusion.core.ledger import Where


@dataclass(frozen=True)
class Job:
    """Step `step` on `patches` (all of them in a synchronous step), which are the token rows `rows`."""

    step: int
    patches: range
    rows: range

    @property
    def at(self) -> Where:
        """Its place in the ledger; patch -1 for the whole image."""
        return Where(self.step, -1, self.patches.start if len(self.patches) == 1 else -1)


def make_jobs(steps: int, warmup: int, bands: Sequence[range]) -> list[Job]:
    """W synchronous steps on the whole image, then S - W steps patch by patch: the job order of every stage."""
    whole = range(bands[0].start, bands[-1].stop)
    jobs = [Job(step, range(len(bands)), whole) for step in range(warmup)]
    for step in range(warmup, steps):
        jobs += [Job(step, range(m, m + 1), band) for m, band in enumerate(bands)]
    return jobs
