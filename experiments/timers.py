"""What the seconds of a source are of: whether its clock ran while the VAE decoded (results/published/timers.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from analysis.evidence.published import Published

TIMERS = Path(__file__).resolve().parents[1] / "results" / "published" / "timers.yaml"


@dataclass(frozen=True)
class Timer:
    """What is known of a source, a part of the text in a row's column of that name, and from where."""

    source: str
    decoded: bool
    evidence: str


@cache
def read_timers(path: Path = TIMERS) -> list[Timer]:
    """The sources of which it is known."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, list)
    return [Timer(**each) for each in content]


def decoded(row: Published) -> bool:
    """Whether the published seconds include decoding; where that is not known they are taken as the sampling's."""
    return any(timer.decoded for timer in read_timers() if timer.source in row["source"])
