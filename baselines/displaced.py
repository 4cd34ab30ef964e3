"""What DistriFusion and naive patch parallelism share: N = M, one band of token rows and all layers per device.

The two differ in whether fresh K, V are still exchanged after the warm-up.
"""

from __future__ import annotations

from pipefusion.core.checks import degrees_fit, within
from pipefusion.core.denoise import assemble
from pipefusion.core.displaced import displaced
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.sequence import ulysses
from pipefusion.core.shape import DiTShape

AXIS = "patch"


def check_bands(shape: DiTShape, parallel: Parallel, steps: int, warmup: int, heads: str) -> Problem | None:
    """Equal bands; W between 0 and S."""
    fit = degrees_fit(shape, parallel, AXIS, heads)
    return fit or within("method.warmup", warmup, 0, steps, "the steps")


def build_bands(dit: DiT, fabric: Fabric, warmup: int, *, exchange: bool) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V."""
    return assemble(
        dit, fabric, lambda run: ulysses(run, displaced(run, warmup, exchange=exchange)), warmup=warmup
    )
