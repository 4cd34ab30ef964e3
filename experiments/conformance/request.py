"""What is asked of a method, and the ways in which engines are known to do something else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor

from pipefusion.core.conditioning import Conditioning

Schedule = Literal["plain", "rotational", "asynchronous"]
See = Callable[[int, int, int, Tensor], None]
"""see(step, patch or -1 for the whole image, layer, image tokens [b, t, hs] behind that layer's block)"""


@dataclass(frozen=True)
class Request:
    """Everything that the result depends on. `stages` matter for text="first_patch" and `sent` only.

    `attends`: the token rows whose K, V each patch sees after the warm-up; None: all of them, in every patch. In
    `synced` layers it sees all of this step. `compress`: others see K, V as rebuilt from residuals. `sent`: stages
    get hidden states as rebuilt from residuals, which each of `lanes` ranks (of a prompt each of `ulysses` ranks)
    compresses for its own share. `differences`: stages take patches in rotation, and forecast an input from so many
    differences. `stride`: stages do not wait for each other (AsyncDiff), with `time_shift` each gets the timestep of
    its input.
    """

    noise: Tensor  # [B, C, H, W]
    cond: Conditioning
    scheduler: Any  # with its timesteps set, never stepped itself
    bands: Sequence[range]  # token rows of each patch
    stages: Sequence[range]  # layers of each device
    warmup: int
    text: str
    attends: Sequence[Sequence[int]] | None = None
    synced: Collection[int] = ()
    compress: str = "none"
    sent: str = "none"
    lanes: int = 1
    ulysses: int = 1
    differences: int | None = None
    stride: int | None = None
    time_shift: bool = False

    @property
    def schedule(self) -> Schedule:
        """In what order stages compute."""
        if self.stride is not None:
            return "asynchronous"
        return "plain" if self.differences is None else "rotational"

    @property
    def whole_steps(self) -> int:
        """How many steps compute the whole image at once."""
        return self.steps if self.schedule == "asynchronous" else self.warmup

    @property
    def steps(self) -> int:
        return len(self.scheduler.timesteps)

    def stretches(self, layers: int) -> Iterator[range]:
        """All layers, those that are synchronous each by itself."""
        starts = sorted({0, *self.synced, *(layer + 1 for layer in self.synced)} - {layers})
        for start, stop in pairwise([*starts, layers]):
            yield range(start, stop)


@dataclass(frozen=True)
class Deviation:
    """What to do differently from PipeFusion. All fields at their defaults: nothing.

    `kv`, after the warm-up: `next` and `previous` write a patch's K, V at the place of another patch, `late` writes
    them after its attention, `displaced` shows other patches as they were a whole step ago (DistriFusion), `frozen`
    as they were in the warm-up, `rebuilt` as residuals of this very step say, `alone` not at all.
    `history` of a multistep solver: `shared` by all patches, stepped in turn, or `lost` from step to step.
    `patches` in place of those asked for: one a stage, or twice or half as many. `backwards`: taken from the last to
    the first. `references`, after the warm-up: `kept` shows those pictures as they were in it, as an engine does that
    computes their K, V once. `guidance`: `swapped` branches, `swapped_kv` where K, V are stale, or `lost` after the
    warm-up. `feedback`: residuals know what earlier ones have lost. In rotation stages may be `turned` by some places
    more, or not at all (`unturned`), and a `forecast` may be the `last` input whatever was asked for, or `late`, made
    without the newest. Of AsyncDiff an input may be `old` by one step more, and stages get the `other_time`.
    """

    extra_warmup: int = 0
    other_text: bool = False
    patches: Literal["asked", "stages", "double", "half"] = "asked"
    backwards: bool = False
    kept_buffers: bool = False
    kv: Literal["own", "next", "previous", "late", "displaced", "frozen", "rebuilt", "alone"] = "own"
    history: Literal["own", "shared", "lost"] = "own"
    references: Literal["own", "kept"] = "own"
    guidance: Literal["right", "swapped", "swapped_kv", "lost"] = "right"
    feedback: bool = True
    turned: int = 0
    unturned: bool = False
    forecast: Literal["asked", "last", "late"] = "asked"
    old: bool = False
    other_time: bool = False

    def warmup(self, request: Request) -> int:
        """The synchronous steps that come of it."""
        return min(max(request.warmup + self.extra_warmup, 0), request.steps)

    def count(self, request: Request) -> int:
        """The patches that come of it."""
        asked = len(request.bands)
        return {"stages": len(request.stages), "double": 2 * asked, "half": asked // 2}.get(
            self.patches, asked
        )


NONE = Deviation()
