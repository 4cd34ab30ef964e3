"""The forecast of a stage's input that has not come when the stage is to read it (rotational PipeFusion)."""

from __future__ import annotations

from math import factorial

from torch import Tensor

from pipefusion.core.layout import Job
from pipefusion.core.messages import Messages
from pipefusion.core.run import Run


class Forecast:
    """The next input x(t) [b, T+n, hs] of one patch from those of the steps before: a sum of their differences.

    x(t) ~ x(t-1) + d_1 / 1! + ... + d_k / k!, where d_i is the i-th backward difference of x(t-1), x(t-2), ...: the
    Taylor expansion of TaylorSeer (arXiv 2503.06923), one step ahead. Order k = 0 is the last input; while there are
    fewer steps, the order is as high as they allow. Held are k + 1 such tensors.
    """

    def __init__(self, run: Run, job: Job, arriving: Messages, order: int):
        self.late, self.arriving = job, arriving
        size = run.batch, arriving.tokens(job), run.shape.hidden
        self.differences = [run.fabric.empty("buffer", *size, dtype=run.dtype) for _ in range(order + 1)]
        self.step, self.known = -1, 0

    def read(self, job: Job, message: Tensor) -> Tensor:
        """The input of a job: its message, or where this is of the step before (a late job's), a forecast from it."""
        if len(job.patches) == 1 and not job.late:
            return message
        if job.origin.step > self.step:
            self.step = job.origin.step
            whole = message.shape != self.differences[0].shape
            self.note(self.arriving.part(self.late, message) if whole else message)
        return self.ahead() if job.late else message

    def note(self, difference: Tensor) -> None:
        """The input of one more step: all differences move on by it."""
        for kept in self.differences[: self.known]:
            before = kept.clone()
            kept.copy_(difference)
            difference = difference - before
        for kept in self.differences[self.known : self.known + 1]:
            kept.copy_(difference)
            self.known += 1

    def ahead(self) -> Tensor:
        """The input of the step that follows the last one noted."""
        last, *others = self.differences[: self.known]
        return sum((each / factorial(i) for i, each in enumerate(others, 1)), start=last)
