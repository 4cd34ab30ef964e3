"""What a run has to compute, send and hold, whoever shares its work: the check behind the grids of this folder.

What a displaced method computes depends on its bands and W and on no other degree; an exact one equals serial. Where
the input of a stage is stale, the stages decide in place of bands.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

from torch import Tensor

from experiments.conformance import rounds
from experiments.conformance.loops import denoise
from experiments.conformance.request import Request
from experiments.methods import METHODS
from pipefusion.core import closed_forms as forms
from pipefusion.core.parallel import Parallel
from pipefusion.core.residuals import BITS
from pipefusion.core.split import split_rows
from tests.cases import (
    CPU,
    FAMILIES,
    OVER_FRAMES,
    OVER_ROWS,
    SIZE,
    Case,
    case_model,
    case_scheduler,
    case_view,
    case_weights,
    inputs,
    relative_error,
)
from tests.contract.test_reference import reference
from tests.sampling import Result, simulate

TOLERANCE = 1e-5
BETWEEN_LEVELS = 3e-4
"""Where residuals are quantized: rounding decides for a number between two levels, which may move latents by 1e-4."""
STEPS = 3
KEYS = {"M": "patches", "W": "warmup"}
ARCHITECTURES = ("pixart", *(name for name in FAMILIES if name != "sd35_tiny"))
"""SD3.5 is SD3 with norms that test_views.py has seen."""


def product(name: str, degrees: str = "", model: str = "pixart", **method: Any) -> Case:
    """`product("pipefusion", "cfg 2 pipe 2", M=3)`: two guided images on so many ranks."""
    words = degrees.split()
    parallel = Parallel(**{axis: int(n) for axis, n in zip(words[::2], words[1::2], strict=True)})
    own = {KEYS.get(key, key): value for key, value in method.items()}
    size = OVER_ROWS if own.get("patch_axis") == "rows" else SIZE
    return Case(name, own, STEPS, guidance=4.5, images=2, model=model, parallel=parallel, size=size)


def label(case: Case) -> str:
    method = [f"{key}={value}" for key, value in case.method.items()]
    changes = [f"{key}={value}" for key, value in case.architecture.items()]
    size = [] if case.size in (SIZE, OVER_FRAMES, OVER_ROWS) else [str(case.size)]
    padding = ["padded"] * case.padded
    return " ".join([case.name, str(case.parallel), *method, case.model, *size, *changes, *padding])


def padded(name: str, degrees: str, heads: int = 12, **method: Any) -> Case:
    """A product whose Ulysses ranks do not divide so many heads (of each tensor rank)."""
    changes = {"num_attention_heads": heads, "attention_head_dim": 48 // heads} if heads != 12 else {}
    return product(name, degrees, heads="pad", **method).but(architecture=changes)


@cache
def alone(case: Case) -> Tensor:
    """Latents of one rank, or of one a band."""
    latents = simulate(case)[0].latents
    assert latents is not None
    return latents


def serial(case: Case) -> Tensor:
    return alone(case.but(name="serial", method={}, parallel=Parallel()))


def never_stale(case: Case) -> bool:
    method = METHODS[case.name]
    stages = case.parallel.pipe if method.stages_decide(case.method) or not method.stale_kv else 1
    parts = case.parallel.step * case.parallel.patch * stages
    parts *= case.method.get("patches", 1) * case.method.get("stride", 1)
    return (parts == 1 and not method.exact) or method.never_stale(case.steps, case.method)


def wanted(case: Case) -> Tensor:
    """The latents that a case has to compute: serial's, or those of its method with the same bands and nothing shared.

    Units of more than one line move the borders of an uneven M. Then the loops of `tests/reference.py` say it.
    """
    if never_stale(case):
        return serial(case)
    parallel, patches = case.parallel, case.method.get("patches", 1)
    if METHODS[case.name].stages_decide(case.method) or METHODS[case.name].stale == "noise":
        return replayed(case)
    if METHODS[case.name].stale == "rebuilt":
        return alone(case.but(parallel=Parallel(ring=parallel.ring)))
    lines = case_model(case).shape.cut(case.method.get("patch_axis")).lines
    if split_rows(lines, patches, parallel.lanes) == split_rows(lines, patches):
        own = {
            key: value
            for key, value in case.method.items()
            if key in (*KEYS.values(), "patch_axis", "sync_layers", "compress")
        }
        return alone(case.but(method=own, parallel=Parallel(patch=parallel.patch)))
    assert case.model == "pixart"
    return reference(case, patches, case.method.get("warmup", 1), case.name, unit=parallel.lanes)


@cache
def replayed(case: Case) -> Tensor:
    """Latents that stages or rounds of steps decide, by the loop that replays them."""
    model, cfg, view = case_model(case), METHODS[case.name].Config(**case.method), case_view(case)
    view.cut(model.shape.cut(cfg.patch_axis).patch_axis)
    view.load(case_weights(case), CPU)
    stages = forms.stages(model.shape, case.parallel.pipe, getattr(cfg, "split", "even"))
    bands = split_rows(view.shape.lines, getattr(cfg, "patches", 1), case.parallel.lanes)
    fixed = case_scheduler(case), bands, stages, cfg.warmup, getattr(cfg, "text", "exact")
    own = {
        "sent": getattr(cfg, "compress", "none"),
        "lanes": case.parallel.lanes,
        "ulysses": case.parallel.ulysses,
        **{key: getattr(cfg, key) for key in ("differences", "stride", "time_shift") if hasattr(cfg, key)},
    }
    request = Request(*inputs(case, model), *fixed, **own)
    if METHODS[case.name].stale == "noise":
        return rounds.denoise(view, request, case.parallel.step)
    return denoise(view, request)[-1]


def computes(results: list[Result], want: Tensor, tolerance: float = TOLERANCE) -> None:
    error = relative_error(results[0].latents, want)
    assert error <= tolerance, f"latents are {error:.1e} away from what they have to be"


def sends_and_holds_what_is_predicted(results: list[Result]) -> None:
    """Parameters, KV, buffers, sent and received bytes of every rank."""
    for rank, result in enumerate(results):
        predicted = {key: result.predicted[key] for key in result.measured}
        assert result.measured == predicted, f"rank {rank}"
    rows = [row for result in results for row in result.rows]
    assert sum(row["sent_bytes"] - row["recv_bytes"] for row in rows) == 0, "sent is not what was received"


def holds_its_part_of_kv(case: Case, results: list[Result]) -> None:
    """2 * p/R * h * d * own layers * images/data * branches/cfg elements, R only for a buffer that goes round.

    h = ceil(heads/(U T)) heads of d: hs/(U T) elements a token, unless heads are padded. Linear attention holds sums of
    h * d * (d + 1) float32 for each patch of each band, and a convolution two rows of each rank's share of these.
    """
    shape, parallel = case_model(case).shape, case.parallel
    parts = parallel.data * parallel.cfg
    parts *= parallel.ring if case.method.get("ring") == "rotate" else 1
    branches = 2 if shape.guidance == "cfg" and case.guidance > 1 else 1
    heads = ceil(shape.heads / (parallel.ulysses * parallel.tensor))
    layer = 2 * shape.tokens * heads * shape.head_dim * case.images * branches * shape.itemsize
    if shape.linear:
        patches, row = case.method.get("patches", 1) * parallel.patch, shape.token_cols * shape.convolved
        shares = parallel.lanes if patches * parallel.lanes > 1 else 0
        sums = 4 * heads * shape.head_dim * (shape.head_dim + 1)
        edges = 2 * shares * row // parallel.tensor * shape.itemsize
        layer = patches * (sums + edges) * case.images * branches
    assert layer % parts == 0
    for result in results:
        want = 0 if not METHODS[case.name].stale_kv else layer // parts * len(result.layers)
        assert result.measured["kv_bytes"] == want, (
            f"{result.measured['kv_bytes']} bytes of K, V in place of {want}"
        )


def check(case: Case) -> list[Result]:
    """All of the above, and that a method which may be stale is: otherwise equality would prove nothing."""
    results = simulate(case)
    quantized = case.method.get("compress", "none") in BITS and not never_stale(case)
    computes(results, wanted(case), BETWEEN_LEVELS if quantized else TOLERANCE)
    if not never_stale(case):
        assert relative_error(results[0].latents, serial(case)) > 10 * TOLERANCE, "nothing is stale"
    sends_and_holds_what_is_predicted(results)
    if case.name == "pipefusion" or (
        case.name != "pcpp" and "compress" not in case.method
    ):  # who hold a part of the neighbours' alone, or more
        holds_its_part_of_kv(case, results)
    assert {layer for result in results for layer in result.layers} == {
        *range(case_model(case).shape.layers)
    }, "a layer is nobody's"
    return results
