"""What became of one input that was tried: refused in a line, accepted, or one of four faults."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

REFUSED, ACCEPTED = "refused", "accepted"
TRACE, HANG, UNCLEAR, SILENT = "trace", "hang", "unclear", "accepted in silence"
FAULTS = (TRACE, HANG, UNCLEAR, SILENT)
UNREAD = ("cannot be checked (", "cannot be composed (", "Traceback")
"""In a line that says of an exception that nobody expected it."""
LIMIT_S = 100.0


@dataclass(frozen=True)
class Verdict:
    """How an input ended, and the line or the trace that came of it."""

    kind: str
    text: str = ""


class TooLong(BaseException):
    """Raised in what does not end. No Exception, which the code that is tried may catch."""


@contextmanager
def limited(seconds: float = LIMIT_S) -> Iterator[None]:
    """Raise TooLong where a block takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    handler = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, handler)


def tried(attempt: Callable[[], str | None]) -> Verdict:
    """What `attempt` comes to: it returns the line that refuses its input, or None."""
    try:
        with limited():
            line = attempt()
    except TooLong:
        return Verdict(HANG)
    except Exception:
        return Verdict(TRACE, traceback.format_exc())
    if line is None:
        return Verdict(ACCEPTED)
    clear = line.isprintable() and len(line) <= 2500 and "allowed: " in line
    return Verdict(REFUSED if clear and not any(each in line for each in UNREAD) else UNCLEAR, line)
