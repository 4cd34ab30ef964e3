"""What is known of a source's program (results/published/programs.yaml): what its clock ran over, and what it held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from analysis.evidence.published import Published

PROGRAMS = Path(__file__).resolve().parents[1] / "results" / "published" / "programs.yaml"


@dataclass(frozen=True)
class Program:
    """The program of a source, or of its rows of some hardware, and the evidence: both are parts of the text in a
    row's columns of these names."""

    source: str
    decoded: bool
    offloaded: bool
    evidence: str
    hardware: str = ""


UNKNOWN = Program("", decoded=False, offloaded=False, evidence="")
"""Where nothing is known the seconds are the sampling's, and all parts stay on the device."""


@cache
def read_programs(path: Path = PROGRAMS) -> list[Program]:
    """The programs that are known."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, list)
    return [Program(**each) for each in content]


def find_program(row: Published) -> Program:
    """The first program that fits a row's source and hardware."""
    known = (
        one for one in read_programs() if one.source in row["source"] and one.hardware in row["hardware"]
    )
    return next(known, UNKNOWN)
