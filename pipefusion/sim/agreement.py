"""Whether ranks that work on the same images skip the same jobs: who does not would wait for the others for ever."""

from __future__ import annotations

from collections.abc import Sequence

from pipefusion.core.ledger import Where
from pipefusion.sim.exchange import place
from pipefusion.sim.fabric import SimFabric


def disagreement(fabrics: Sequence[SimFabric]) -> str | None:
    """The first job that some ranks skip and others compute, and who does which; None where all agree."""
    sides: dict[tuple[int, Where], dict[bool, list[int]]] = {}
    for fabric in fabrics:
        for at, computed in fabric.ledger.decisions.items():
            ranks = sides.setdefault((fabric.axis("data").index, at), {})
            ranks.setdefault(computed, []).append(fabric.rank)
    apart = [(at, ranks) for (_, at), ranks in sides.items() if len(ranks) == 2]
    if not apart:
        return None
    at, ranks = min(apart, key=lambda found: found[0])
    named = {computed: ", ".join(map(str, who)) for computed, who in ranks.items()}
    return f"ranks disagree about {place(at)}: {named[True]} compute it, {named[False]} skip it"
