"""What the sources claim, and what is known here about each claim: sentence, evidence, verdict.

`claim.py` has the verdict; `evidence.py` reads the records; the other modules have the claims, one theme each.
"""

from __future__ import annotations

from pathlib import Path

from analysis.claims import costs, latency, memory, network, quality, schedule, text
from analysis.claims.claim import Claim
from analysis.claims.evidence import Evidence, read

__all__ = ["Claim", "all_claims", "claims_of"]
THEMES = (text, costs, latency, network, schedule, memory, quality)


def all_claims(results: Path) -> list[Claim]:
    """Every claim, theme by theme."""
    return claims_of(read(results))


def claims_of(evidence: Evidence) -> list[Claim]:
    """Every claim, from evidence that may have been changed."""
    return [claim for theme in THEMES for claim in theme.claims(evidence)]
