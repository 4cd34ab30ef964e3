"""What is remembered of a block that ran once on `meta`: its parts between the calls that others see."""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import Tensor

from pipefusion.sim.cost import Segment


@dataclass(frozen=True)
class AtStep:
    """A timestep's modulation, and which step that is."""

    step: int
    inner: Any


@dataclass(frozen=True)
class Part:
    """A stretch of a block up to the next call: what it costs, and the bytes it adds at most and at its end.

    `call` is the name of the collective that follows, "attend", "convolve", or "" at the end; `tensors` what it is
    called with, and `besides` the prefix or the convolution; `returned` the kind of tensor that the method gave back.
    """

    segment: Segment
    rise_bytes: int
    kept_bytes: int
    call: str
    axis: str = ""
    tensors: tuple[Tensor, ...] = ()
    besides: Any = None
    returned: Any = None


call_again = object()
"""In the memo: not to be remembered."""


def function_kind(function: Any) -> Any:
    """Which functions attend, from the outside in: Ulysses around a ring is another kind than Ulysses alone."""
    if not isinstance(function, FunctionType):
        return function
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    return (function.__code__, *(function_kind(each) for each in inside if isinstance(each, FunctionType)))
