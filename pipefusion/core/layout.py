"""The part of an image and of a model that one rank computes: its stage of layers, its patches, its share of each.

Ring and Ulysses ranks share every patch: rank s of the `lanes` takes the s-th of equal parts of each one, so that all
of them always work on the same patch. In a synchronous step a rank's rows are its shares of all patches. Ulysses ranks
share an MM-DiT's prompt as well, ceil(T/U) tokens each and the last ones what is left; ring ranks have it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from pipefusion.core import closed_forms as forms
from pipefusion.core.grid import Band, TokenGrid, strips
from pipefusion.core.ledger import Where
from pipefusion.core.mesh import Axis
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import Split, ceil_sizes, ranges, split_rows


@dataclass(frozen=True)
class Job:
    """Step `step` on `patches` (all of them in a synchronous step), of which this rank computes the token `rows`.

    `own` are its tokens in the order of this rank's own, `at` its place in the ledger: patch -1 for all of them, micro
    -1 for all images and branches. A stage reads what the one before it made at `origin`: in this step, unless stages
    do not wait for each other; then nobody reads what comes of the last job. The prediction moves the latent by so many
    steps: it `drives` them.
    Meanwhile the last stage makes the new latents of the patches `returned`, which it sends to the first.
    """

    step: int
    patches: range
    rows: Band
    own: slice
    at: Where
    origin: Where
    returned: range
    drives: int = 1
    read: bool = True
    sync: bool = False
    """Whether it is of the warm-up, in which nothing is stale."""
    ends: bool = True
    """Whether no other micro-batch follows of the same step and patches."""

    @property
    def late(self) -> bool:
        """Whether the input of a stage is of an earlier step."""
        return self.origin.step < self.step

    @property
    def driven(self) -> range:
        """The steps that the prediction moves the latent by."""
        return range(self.step, self.step + self.drives)

    @property
    def tokens(self) -> int:
        """This rank's tokens of the job."""
        return self.own.stop - self.own.start

    @property
    def entries(self) -> slice:
        """Its images and branches, of the rank's batch."""
        return slice(None) if self.at.micro < 0 else slice(self.at.micro, self.at.micro + 1)

    def where(self, layer: int) -> Where:
        """The place of a communication of a layer."""
        return self.at._replace(layer=layer)

    def micro_batches(self, batch: int) -> list[Job]:
        """A synchronous job as one for each image and branch, in the order of the batch; itself if it is not."""
        if not self.sync or batch == 1:
            return [self]
        cut = [(self.at._replace(micro=micro), self.origin._replace(micro=micro)) for micro in range(batch)]
        return [replace(self, at=at, origin=origin, ends=at.micro == batch - 1) for at, origin in cut]


@dataclass(frozen=True)
class Layout:
    """`stages` of layers, of which this rank has number `stage`; and a share of each of the `patches` of token rows.

    `bands` are the rows of every rank that holds a part of the image, in the order of the axes patch, ring, ulysses,
    and `units` the patches of all bands, each as the `lanes` that share it have it.
    `prompt` are this rank's tokens of an MM-DiT's prompt, none in other models.
    """

    grid: TokenGrid
    stages: tuple[range, ...]
    stage: int
    patches: tuple[range, ...]
    shares: tuple[range, ...]
    bands: tuple[Band, ...]
    units: tuple[tuple[range, ...], ...]
    lanes: int
    prompt: range

    @property
    def layers(self) -> range:
        """The layers of this rank."""
        return self.stages[self.stage]

    @property
    def first(self) -> bool:
        """Whether this rank embeds."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Whether this rank unembeds."""
        return self.stage == len(self.stages) - 1

    @property
    def tokens(self) -> int:
        """This rank's tokens of the image."""
        return sum(map(len, self.shares)) * self.grid.width

    @property
    def band_tokens(self) -> int:
        """Tokens of all patches."""
        return sum(map(len, self.patches)) * self.grid.width

    def jobs(self, steps: int, warmup: int, stride: int | None = None, rotational: bool = False) -> list[Job]:
        """W synchronous steps on all patches at once, then S - W steps patch by patch: every stage's order.

        With a `stride` all patches at once in every `stride`-th step behind the warm-up, of which a stage reads what
        the one before it made in the job before. `rotational`: stage d takes patch (i - d) mod M as the i-th of a step;
        of the first one it reads what the stage before made as its last one of the step before.
        """
        count, whole = len(self.patches), strips(self.shares)
        starts = [rows * self.grid.width for rows in accumulate(map(len, self.shares), initial=0)]

        def at_once(step: int, source: int, drives: int = 1, sync: bool = False) -> Job:
            every, own = range(count), slice(0, self.tokens)
            return Job(step, every, whole, own, Where(step), Where(source), every, drives, sync=sync)

        def alone(step: int, place: int) -> Job:
            m, last = ((place - rotational * stage) % count for stage in (self.stage, len(self.stages) - 1))
            own, at = slice(starts[m], starts[m + 1]), Where(step, -1, m)
            before = Where(step - 1, -1, m if step > warmup else -1)
            origin = before if rotational and place == 0 else at
            return Job(step, range(m, m + 1), self.shares[m], own, at, origin, range(last, last + 1))

        found = [at_once(step, step, sync=True) for step in range(warmup)]
        for step in range(warmup, steps, stride or 1):
            if stride:
                found.append(at_once(step, found[-1].step, min(stride, steps - step)))
            elif count == 1:
                found.append(at_once(step, step))
            else:
                found += [alone(step, place) for place in range(count)]
        if any(job.late for job in found):
            found[-1] = replace(found[-1], read=False)
        return found

    def latent_copies(self, jobs: Sequence[Job]) -> int:
        """How many latents a rank holds: two where a new one may arrive before the old one is read."""
        early = any(job.returned != job.patches for job in jobs)
        return 2 if early and self.first else 1

    def slots(self, job: Job, lanes: int) -> list[slice]:
        """Where the tokens of a job, from `lanes` ranks in turn, go in a buffer that has patch after patch.

        The buffer holds what these ranks have together: a fraction of each patch where they are not all.
        """
        if lanes == 1 or len(job.patches) == 1:
            return [slice(job.own.start * lanes, job.own.stop * lanes)]
        sizes = [len(share) * self.grid.width for share in self.shares]
        starts = [start * lanes for start in accumulate(sizes, initial=0)]
        return [
            slice(starts[m] + lane * sizes[m], starts[m] + (lane + 1) * sizes[m])
            for lane in range(lanes)
            for m in job.patches
        ]


def make_layout(
    shape: DiTShape, axis: Callable[[str], Axis], patches: int = 1, split: Split = "even"
) -> Layout:
    """The layout of the rank whose places on the axes `axis` gives. Raises ValueError where rows cannot be cut so."""
    pipe, band, ring, ulysses = (axis(name) for name in ("pipe", "patch", "ring", "ulysses"))
    lanes, lane = ring.size * ulysses.size, ring.index * ulysses.size + ulysses.index
    rows = split_rows(range(shape.lines), band.size, lanes)
    if len({len(part) for part in rows}) > 1:
        raise ValueError(
            f"{shape.lines} {shape.line_name} cannot be shared evenly by {band.size * lanes} ranks"
        )
    cuts = [split_rows(part, patches, lanes) for part in rows]
    shares = [[[split_rows(patch, lanes)[s] for patch in parts] for s in range(lanes)] for parts in cuts]
    return Layout(
        grid=shape.grid,
        stages=tuple(forms.stages(shape, pipe.size, split)),
        stage=pipe.index,
        patches=tuple(cuts[band.index]),
        shares=tuple(shares[band.index][lane]),
        bands=tuple(strips(own) for parts in shares for own in parts),
        units=tuple(unit for parts in shares for unit in zip(*parts, strict=True)),
        lanes=lanes,
        prompt=prompt_shares(shape, ulysses.size)[ulysses.index],
    )


def prompt_shares(shape: DiTShape, ranks: int) -> list[range]:
    """The tokens of an MM-DiT's prompt that each of so many Ulysses ranks has."""
    return ranges(ceil_sizes(shape.joint_tokens, ranks))
