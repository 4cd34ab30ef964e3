"""What one device was published with, and the least that PipeFusion's schedule makes of it."""

from __future__ import annotations

import pandas as pd


def serial_s(table: pd.DataFrame, cluster: str, resolution: int, model: str) -> float:
    """The least seconds that one device of a cluster was published with; NaN without any."""
    alone = table[(table.method == "serial") & (table.cluster == cluster)]
    alone = alone[(alone.resolution == resolution) & (alone.model == model)]
    return float(alone.published_s.min())


def schedule_s(alone_s: float, devices: int, patches: int, steps: int, warmup: int) -> float:
    """The least seconds that PipeFusion's schedule allows, if messages and small patches cost nothing and all stages
    are equal: W steps as slow as on one device, then jobs of 1/(MN) of a step.

    While M < N a step takes N jobs' time instead of M: a patch is back from the last stage only then.
    """
    after = steps - warmup
    jobs = (after - 1) * max(patches, devices) + patches + devices - 1 if after else 0
    return alone_s / steps * (warmup + jobs / (patches * devices))
