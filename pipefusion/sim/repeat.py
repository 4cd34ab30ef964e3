"""A block of a steady step done again without running it: its script, its memory and the tokens that it returns."""

from __future__ import annotations

from pipefusion.core.dit import Tokens
from pipefusion.sim.meter import Meter
from pipefusion.sim.mold import Mold
from pipefusion.sim.script import Recorder


class Repeat:
    """A whole block with its attention in a steady step: what it did to the script and the memory, to do it again."""

    def __init__(self, fabric: Recorder, meter: Meter):
        self.fabric, self.meter = fabric, meter
        self.mark = fabric.mark()
        self.start_bytes, self.peak_bytes = meter.live_bytes, meter.peak_bytes
        meter.peak_bytes = meter.live_bytes

    def end(self, tokens: Tokens, out: Tokens) -> bool:
        """The block is over; whether it can be done again: it waited for all it posted, and keeps what it returns."""
        meter = self.meter
        self.rise_bytes = meter.peak_bytes - self.start_bytes
        meter.peak_bytes = max(meter.peak_bytes, self.peak_bytes)
        self.passed_by = out.text is tokens.text  # no new memory
        made = out._replace(text=None) if self.passed_by else out
        self.mold = Mold(made)
        passage = self.fabric.since(self.mark)
        if passage is None or meter.live_bytes - self.start_bytes != self.mold.nbytes:
            return False
        self.passage = passage
        return True

    def again(self, tokens: Tokens, step: int) -> Tokens:
        """The same in another step."""
        self.fabric.repeat(self.passage, step)
        self.meter.touch_bytes(self.meter.live_bytes + self.rise_bytes)
        out: Tokens = self.mold.make()
        return out._replace(text=tokens.text) if self.passed_by else out
