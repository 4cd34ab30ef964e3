"""Long skip connections across pipeline stages: from the stage that gives straight to the one that takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from torch import Tensor

from pipefusion.core.closed_forms import find_stage
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.run import Run

TAG = 1  # apart from the hidden states, which two neighbours exchange in an order of their own


class StageSkips:
    """The ends of the skips that one stage has. Idle where the model has none, or both ends are here.

    A skip is received into place: a buffer for the whole image [b, p, hs] a layer, cut like the jobs. No more than a
    whole image is ever under way, since a patch's next step begins after its last one has ended; so the receive for
    the next step is posted as soon as this step's has been read, and no sender waits long. Like its other input, a
    stage reads them of the step that the job's source is.
    """

    def __init__(self, run: Run):
        self.run, self.fabric, stages = run, run.fabric, run.layout.stages
        self.steps: dict[int, list[Job]] = {}
        for job in run.jobs:
            self.steps.setdefault(job.step, []).append(job)
        me = run.layout.layers
        ends = [(giver, taker) for giver, taker in run.shape.skips if giver in me or taker in me]
        self.local = {giver: taker for giver, taker in ends if giver in me and taker in me}
        self.sent_to = {giver: find_stage(stages, taker) for giver, taker in ends if taker not in me}
        self.takers = {giver: taker for giver, taker in ends if taker in me}
        self.sources = {
            giver: find_stage(stages, giver) for giver in sorted(self.takers) if giver not in self.local
        }
        size = run.batch * run.layout.tokens * run.shape.hidden
        self.buffers = {giver: self.fabric.empty("comm", size, dtype=run.dtype) for giver in self.sources}
        self.kept: dict[int, Tensor] = {}
        self.posted: dict[tuple[Where, int], tuple[Tensor, Work]] = {}
        self.arrived: dict[tuple[Where, int], Tensor] = {}
        self.sending: deque[list[Work]] = deque([[]])
        self.job = run.jobs[0]
        self._post([job for job in run.jobs if job.step == self.job.step])

    def begin(self, job: Job) -> None:
        """A job starts: what the one before the last sent must be gone."""
        self.job = job
        self.sending.append([])
        if len(self.sending) > 2:
            for work in self.sending.popleft():
                work.wait()

    def put(self, layer: int, image: Tensor) -> None:
        if layer in self.local:
            self.kept[self.local[layer]] = image
        elif layer in self.sent_to and self.job.read:
            at = self.job.where(layer)
            work = self.fabric.isend(image.contiguous(), self.sent_to[layer], axis="pipe", at=at, tag=TAG)
            self.sending[-1].append(work)

    def take(self, layer: int) -> Tensor | None:
        if layer in self.kept:
            return self.kept.pop(layer)
        giver = next((giver for giver in self.sources if self.takers[giver] == layer), None)
        if giver is None:
            return None
        place = self.job.origin, giver
        if place in self.posted:
            self.arrived[place], work = self.posted.pop(place)
            work.wait()
        return self.arrived[place]

    def end(self) -> None:
        """A job is done and its skips have been read: there is room for those of the next, unless it reads the same."""
        own, after = self.job.own, self.steps.get(self.job.driven.stop, [])
        mine = {self.job.at.micro, -1 if self.job.ends else self.job.at.micro}
        inside = [
            job
            for job in after
            if own.start <= job.own.start and job.own.stop <= own.stop and job.at.micro in mine
        ]
        if all(job.origin != self.job.origin for job in inside):
            self.arrived.clear()
            self._post(inside)

    def drain(self) -> None:
        """Wait for everything sent."""
        for works in self.sending:
            for work in works:
                work.wait()

    def _post(self, jobs: Sequence[Job]) -> None:
        """Start receiving what these jobs take."""
        width = self.run.shape.hidden
        for job in jobs:
            entries = self.run.entries(job)
            size = entries * job.tokens * width
            start = job.own.start * self.run.batch * width + max(job.at.micro, 0) * size
            for giver, source in self.sources.items():
                out = self.buffers[giver][start : start + size].view(entries, -1, width)
                at = job.origin._replace(layer=giver)
                work = self.fabric.irecv(out, source, axis="pipe", at=at, tag=TAG)
                self.posted[job.origin, giver] = (out, work)
