"""Closed forms of padded heads: what Ulysses ranks hold and send in place of heads that they lack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.grid import model_config
from experiments.models.model import open_model
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction, predict

PIXART, FLUX, SD35 = (
    open_model(model_config(name)).shape for name in ("pixart_alpha", "flux_dev", "sd35_large")
)
STEPS = 4


def rank_bytes(shape, parallel: Parallel) -> Prediction:
    """Of a rank of PipeFusion with two patches and no warm-up."""
    return predict(shape, parallel, 0, STEPS, 1, 1, buffer="stale", patches=2, warmup=0)


@pytest.mark.parametrize(
    ("heads", "parallel", "held"),
    [
        (16, Parallel(ulysses=8), 2),
        (16, Parallel(ulysses=32), 1),
        (12, Parallel(ulysses=8), 2),
        (12, Parallel(ulysses=4, tensor=2), 2),
        (12, Parallel(pipe=2, ring=2, ulysses=8), 2),
    ],
    ids=str,
)
def test_padded_heads_are_held_and_sent(heads: int, parallel: Parallel, held: int) -> None:
    shape, u = replace(PIXART, heads=heads), parallel.ulysses
    got, layers, e = rank_bytes(shape, parallel), 28 // parallel.pipe, shape.itemsize
    width = held * shape.hidden // heads
    tokens = shape.tokens // parallel.lanes
    assert got.kv_bytes == 2 * shape.tokens * width * layers * e
    assert got.axis_bytes["ulysses"] - gathered_latents(shape, parallel) == (
        STEPS * layers * 4 * tokens * (u - 1) * width * e
    )
    if parallel.ring > 1:
        assert got.axis_bytes["ring"] - gathered_latents(shape, parallel, "ring") == (
            STEPS * layers * 2 * tokens * u * (parallel.ring - 1) * width * e
        )


def gathered_latents(shape, parallel: Parallel, axis: str = "ulysses") -> int:
    """What the final gather sends on an axis, float32: a share of the latent, of all Ulysses ranks on the ring."""
    share = 4 * shape.in_channels * shape.tokens * shape.patch_size**2 // parallel.lanes
    return share * (parallel.ulysses - 1 if axis == "ulysses" else parallel.ulysses * (parallel.ring - 1))


@pytest.mark.parametrize(
    ("shape", "ranks", "overhead"), [(FLUX, 16, 32 / 24), (SD35, 4, 40 / 38), (FLUX, 8, 1)], ids=str
)
def test_the_overhead_is_that_of_the_heads(shape, ranks: int, overhead: float) -> None:
    """U * ceil(heads/U) / heads, of the buffer, its place for the prompt and all that Ulysses moves."""
    got = rank_bytes(shape, Parallel(ulysses=ranks))
    even = rank_bytes(replace(shape, heads=ranks), Parallel(ulysses=ranks))
    latents = gathered_latents(shape, Parallel(ulysses=ranks))
    assert got.kv_bytes == pytest.approx(overhead * even.kv_bytes)
    assert got.axis_bytes["ulysses"] - latents == pytest.approx(
        overhead * (even.axis_bytes["ulysses"] - latents)
    )
    assert got.param_bytes == even.param_bytes
