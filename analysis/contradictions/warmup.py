"""W against W + 1: how many synchronous steps the published latencies of PipeFusion have, whatever W they name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from analysis.contradictions.bounds import Layers, alone
from analysis.contradictions.finding import CONTRADICTS, FOLLOWS, Finding
from analysis.paper.facts import Latency, bound_s
from analysis.tables import percent

CONVENTION = "number of synchronous steps"
BEYOND = 2
"""Up to how many steps more than are named are tried."""


def synchronous_steps(found: Sequence[Latency], layers: Layers) -> Iterator[Finding]:
    """Which number of synchronous steps explains each version's PipeFusion best; a single size tells nothing."""
    groups: dict[tuple[str, str, int, int], dict[int, Latency]] = {}
    for one in found:
        filled = (one.patches or one.devices) >= one.devices  # with fewer patches, stages idle in every step
        if one.method == "pipefusion" and one.warmup is not None and filled and not one.oom:
            sizes = groups.setdefault((one.version, one.gpu, one.devices, one.warmup), {})
            best = sizes.setdefault(one.resolution, one)
            if one.seconds < best.seconds:  # the fastest M, as the sources searched too
                sizes[one.resolution] = one
    for (version, _, _, named), sizes in groups.items():
        if len(sizes) > 1:
            yield steps_that_fit(version, named, list(sizes.values()), found, layers)


def steps_that_fit(
    version: str, named: int, points: list[Latency], found: Sequence[Latency], layers: Layers
) -> Finding:
    """The errors of T = t1 (w + (S - w) ceil(L/N) / L) / S for each w, and the w of the least median."""
    errors = {w: [error(one, w, found, layers) for one in points] for w in range(named + BEYOND + 1)}
    off = {w: median(map(abs, each)) for w, each in errors.items()}
    best = min(off, key=lambda w: off[w])
    listed = [f"{w}: {', '.join(f'{100 * each:+.0f} %' for each in errors[w])}" for w in errors]
    sizes = "/".join(str(one.resolution) for one in points)
    return Finding(
        kind=CONVENTION,
        what=f"PipeFusion on {points[0].devices} {points[0].gpu}, W={named}, {sizes} px ({version})",
        rows=tuple(one.row_id for one in points),
        printed=f"W={named}: {', '.join(one.said for one in points)}",
        expected=f"w={best}, median error {percent(off[best])}",
        size=off[named],
        how=f"t1 (w + (S - w) ceil(L/N)/L) / S over published, by w: {'; '.join(listed)}",
        verdict=FOLLOWS if best == named else CONTRADICTS,
    )


def error(one: Latency, w: int, found: Sequence[Latency], layers: Layers) -> float:
    """How far w synchronous steps, and the slowest stage for the others, are off a published latency."""
    first, count = alone(one.task, found), layers[one.model]
    assert first is not None, one
    share = math.ceil(count / one.devices) / count
    return bound_s(first.seconds, one.steps, w, share) / one.seconds - 1
