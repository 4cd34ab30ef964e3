"""What is known to go wrong when PipeFusion is written into an engine: a name, a sentence, a switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.conformance.reference import Deviation, Request
from pipefusion.core.shape import DiTShape

Applies = Callable[[Request, DiTShape], bool]


def always(request: Request, shape: DiTShape) -> bool:
    return True


def with_patches(request: Request, shape: DiTShape) -> bool:
    return len(request.bands) > 1


def with_prompt_stages(request: Request, shape: DiTShape) -> bool:
    """An MM-DiT on several devices: its prompt tokens pass from stage to stage."""
    return shape.joint and len(request.bands) > 1 and sum(map(bool, request.stages)) > 1


def guided(request: Request, shape: DiTShape) -> bool:
    """Classifier-free: two branches."""
    return request.cond.guided


def guided_patches(request: Request, shape: DiTShape) -> bool:
    return guided(request, shape) and with_patches(request, shape)


def with_scale(request: Request, shape: DiTShape) -> bool:
    return request.cond.guided or (shape.guidance == "embedded" and request.cond.guidance_scale != 1)


def equal_bands(request: Request, shape: DiTShape) -> bool:
    """Histories of patches of several sizes could not be shared."""
    return len(request.bands) > 1 and len({len(band) for band in request.bands}) == 1


def other_patches(request: Request, shape: DiTShape, kind: Literal["stages", "double", "half"]) -> bool:
    """There can be so many patches, which are several, others than asked for, and not those of another kind."""
    count, asked = Deviation(patches=kind).count(request), len(request.bands)
    if (kind == "half" and asked % 2) or (kind != "stages" and count == len(request.stages)):
        return False
    return 1 < count <= shape.lines and count != asked


def edits(request: Request, shape: DiTShape) -> bool:
    """There are reference pictures."""
    return shape.references > 0


@dataclass(frozen=True)
class Hypothesis:
    """One way to be wrong. `applies` is False where it could not be done at all."""

    name: str
    sentence: str
    deviation: Deviation
    applies: Applies = always

    def possible(self, request: Request, shape: DiTShape) -> bool:
        """Whether it can be tried on a request."""
        moved = self.deviation.warmup(request) != request.warmup or not self.deviation.extra_warmup
        return moved and self.applies(request, shape)


EVERY = 1_000_000  # more steps than anybody takes

HYPOTHESES = (
    Hypothesis("W+1", "one synchronous step too many, as the first published implementation had it",
               Deviation(extra_warmup=1), with_patches),
    Hypothesis("W-1", "one synchronous step too few", Deviation(extra_warmup=-1), with_patches),
    Hypothesis("serial", "every step is synchronous", Deviation(extra_warmup=EVERY), with_patches),
    Hypothesis("other text", "the prompt's tokens are treated as in the other of text=exact and text=first_patch",
               Deviation(other_text=True), with_prompt_stages),
    Hypothesis("W+1, other text", "one synchronous step too many, and the other treatment of the prompt's tokens",
               Deviation(extra_warmup=1, other_text=True), with_prompt_stages),
    Hypothesis("M = N", "there is a patch for each device, and not as many as were asked for",
               Deviation(patches="stages"), partial(other_patches, kind="stages")),
    Hypothesis("2 M", "there are twice as many patches", Deviation(patches="double"),
               partial(other_patches, kind="double")),
    Hypothesis("M / 2", "there are half as many patches", Deviation(patches="half"),
               partial(other_patches, kind="half")),
    Hypothesis("backwards", "after the warm-up patches are taken from the last to the first",
               Deviation(backwards=True), with_patches),
    Hypothesis("kept buffers", "K, V buffers are kept from an earlier image",
               Deviation(kept_buffers=True), with_patches),
    Hypothesis("KV at the next patch", "K, V of a patch are written at the place of the patch after it",
               Deviation(kv="next"), with_patches),
    Hypothesis("KV at the previous patch", "K, V of a patch are written at the place of the patch before it",
               Deviation(kv="previous"), with_patches),
    Hypothesis("KV late", "K, V are written after the attention that should have seen them", Deviation(kv="late")),
    Hypothesis("displaced", "all other patches are seen as they were a whole step ago (DistriFusion)",
               Deviation(kv="displaced"), with_patches),
    Hypothesis("never refreshed", "other patches are seen as they were in the warm-up (naive patches)",
               Deviation(kv="frozen"), with_patches),
    Hypothesis("alone", "a patch attends to itself only", Deviation(kv="alone"), with_patches),
    Hypothesis("references kept", "K, V of reference pictures are those of the warm-up, and not computed again",
               Deviation(references="kept"), edits),
    Hypothesis("one scheduler", "one scheduler is stepped for all patches in turn, which share its history",
               Deviation(history="shared"), equal_bands),
    Hypothesis("no history", "the scheduler forgets its history from step to step", Deviation(history="lost")),
    Hypothesis("guidance swapped", "the two halves of guidance are mixed up where they are combined",
               Deviation(guidance="swapped"), guided),
    Hypothesis("KV halves swapped", "stale K, V of the two halves of guidance are mixed up",
               Deviation(guidance="swapped_kv"), guided_patches),
    Hypothesis("guidance lost", "guidance is lost after the warm-up (scale 1)",
               Deviation(guidance="lost"), with_scale),
)  # fmt: skip
