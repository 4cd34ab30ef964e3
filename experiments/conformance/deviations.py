"""What is known to go wrong when a method is written into an engine: a name, a sentence, a switch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal

from experiments.conformance.request import Deviation, Request, Schedule
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


def with_stages(request: Request, shape: DiTShape) -> bool:
    """Something passes from one stage with layers to another."""
    return sum(map(bool, request.stages)) > 1


def may_be_stale(request: Request, shape: DiTShape) -> bool:
    """Steps behind the warm-up differ from those of it."""
    between = request.schedule == "asynchronous" or request.sent != "none"
    return with_patches(request, shape) or (between and with_stages(request, shape))


def compressed(request: Request, shape: DiTShape) -> bool:
    """Residuals go from stage to stage."""
    return request.sent != "none" and with_stages(request, shape)


def forecast(request: Request, shape: DiTShape) -> bool:
    """Stages forecast inputs."""
    return with_patches(request, shape) and with_stages(request, shape)


def with_differences(request: Request, shape: DiTShape) -> bool:
    """Forecasts are more than the last input."""
    return bool(request.differences) and forecast(request, shape)


def edits(request: Request, shape: DiTShape) -> bool:
    """There are reference pictures."""
    return shape.references > 0


PLAIN: tuple[Schedule, ...] = ("plain",)
ROTATIONAL: tuple[Schedule, ...] = ("rotational",)
ASYNCHRONOUS: tuple[Schedule, ...] = ("asynchronous",)
ALL = PLAIN + ROTATIONAL + ASYNCHRONOUS


@dataclass(frozen=True)
class Hypothesis:
    """One way to be wrong with these schedules. `applies` is False where it could not be done at all."""

    name: str
    sentence: str
    deviation: Deviation
    applies: Applies = always
    schedules: Collection[Schedule] = PLAIN

    def possible(self, request: Request, shape: DiTShape) -> bool:
        """Whether it can be tried on a request."""
        warmup = self.deviation.warmup(request)
        moved = warmup != request.warmup or not self.deviation.extra_warmup
        known = warmup > 0 or (request.schedule == "plain" and request.sent == "none")
        return request.schedule in self.schedules and moved and known and self.applies(request, shape)


EVERY = 1_000_000  # more steps than anybody takes

HYPOTHESES = (
    Hypothesis("W+1", "one synchronous step too many, as the first published implementation had it",
               Deviation(extra_warmup=1), may_be_stale, ALL),
    Hypothesis("W-1", "one synchronous step too few", Deviation(extra_warmup=-1), may_be_stale, ALL),
    Hypothesis("serial", "every step is synchronous", Deviation(extra_warmup=EVERY), may_be_stale, ALL),
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
    Hypothesis("no feedback", "residuals are of the hidden states themselves, and what they lose stays lost",
               Deviation(feedback=False), compressed),
    Hypothesis("not rotated", "all stages take the patches in the same order, and nothing is forecast",
               Deviation(unturned=True), forecast, ROTATIONAL),
    Hypothesis("rotated by one more", "stages take each patch one place later", Deviation(turned=1), forecast,
               ROTATIONAL),
    Hypothesis("rotated by one less", "stages take each patch one place earlier", Deviation(turned=-1), forecast,
               ROTATIONAL),
    Hypothesis("last for taylor", "a forecast is the last input, whatever was asked for",
               Deviation(forecast="last"), with_differences, ROTATIONAL),
    Hypothesis("forecast late", "a forecast is made without the newest input", Deviation(forecast="late"), forecast,
               ROTATIONAL),
    Hypothesis("one step late", "stages work on what was made two steps before", Deviation(old=True), with_stages,
               ASYNCHRONOUS),
    Hypothesis("other timestep", "stages get the step of their input for their own, or the other way round",
               Deviation(other_time=True), with_stages, ASYNCHRONOUS),
)  # fmt: skip
