"""Everything that the sources claim, theme by theme."""

from __future__ import annotations

from analysis.evidence import costs, latency, memory, quality, schedule, text
from analysis.evidence.claim import Claim
from analysis.evidence.records import Evidence

THEMES = (text, costs, latency, schedule, memory, quality)


def all_claims(evidence: Evidence) -> list[Claim]:
    """Every claim."""
    return [claim for theme in THEMES for claim in theme.claims(evidence)]
