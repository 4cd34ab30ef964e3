"""Products of degrees on simulated and on real ranks: who shares what changes no result; bytes are as predicted.

What a displaced method computes depends on its bands and W and on no other degree; an exact one equals serial.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pipefusion.core.denoise as denoise
import pipefusion.core.layout as layout
import pipefusion.core.sequence as sequence
import pipefusion.method as method_of_pipefusion
import pipefusion.views.flux2 as flux2
from experiments.methods import METHODS
from pipefusion.core.attention import Attend, full
from pipefusion.core.dit import Conditioning, Tokens
from pipefusion.core.kv import StaleKV
from pipefusion.core.layout import Job, Layout
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Sizes
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import ring
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows
from pipefusion.sim.engine import SimulationError
from tests.cases import (
    FAMILIES,
    VIDEOS,
    Case,
    Result,
    model_of,
    peak_of,
    planned,
    relative_error,
    sample,
    simulate,
)
from tests.contract.test_invariants import TOLERANCE
from tests.contract.test_reference import reference
from tests.contract.test_worlds import agree
from tests.ranks import Ranks

STEPS = 3
KEYS = {"M": "patches", "W": "warmup"}


def product(name: str, degrees: str, model: str = "pixart", **method: Any) -> Case:
    """`product("pipefusion", "cfg 2 pipe 2", M=3)`: two guided images on so many ranks."""
    words = degrees.split()
    parallel = Parallel(**{axis: int(n) for axis, n in zip(words[::2], words[1::2], strict=True)})
    own = {KEYS.get(key, key): value for key, value in method.items()}
    return Case(name, own, STEPS, guidance=4.5, images=2, model=model, parallel=parallel)


def label(case: Case) -> str:
    method = [f"{key}={value}" for key, value in case.method.items()]
    sizes = [f"{key.split('_')[-1]}={size}" for key, size in case.architecture.items()]
    model = [case.model] * (case.model != "pixart") + ["padded"] * case.padded
    return " ".join([case.name, str(case.parallel), *method, *sizes, *model])


def padded(name: str, degrees: str, heads: int = 12, **method: Any) -> Case:
    """A product whose Ulysses ranks do not divide so many heads (of each tensor rank)."""
    changes = {"num_attention_heads": heads, "attention_head_dim": 48 // heads} if heads != 12 else {}
    return product(name, degrees, heads="pad", **method).but(architecture=changes)


EXACT_PRODUCTS = [
    product(name, degrees)
    for name, grid in {
        "serial": ("cfg 2", "data 2 cfg 2"),
        "sync_pipeline": (
            "cfg 2 pipe 2",
            "pipe 3 ulysses 2",
            "pipe 2 ring 2 tensor 2",
            "data 2 cfg 2 pipe 4",
        ),
        "tensor": ("ulysses 2 tensor 2", "cfg 2 ring 2 tensor 3"),
        "ulysses": ("ring 3 ulysses 2", "data 2 cfg 2 ulysses 4"),
        "ring": ("cfg 2 ring 2 ulysses 2 tensor 2", "data 2 ring 3"),
    }.items()
    for degrees in grid
]
BANDED_PRODUCTS = [
    product(name, degrees, W=warmup)
    for name in ("distrifusion", "pcpp", "naive_patch")
    for degrees, warmup in (
        ("patch 2 ulysses 2", 1),
        ("patch 2 ring 2", 0),
        ("patch 3 ring 2 ulysses 2", 1),
        ("cfg 2 patch 2 tensor 2", 0),
        ("data 2 patch 3", 1),
        ("data 2 cfg 2 patch 2 ulysses 2", 1),
        ("cfg 2 patch 2 ring 2", STEPS),
    )
]
PIPED_PRODUCTS = [
    product("pipefusion", "cfg 2 pipe 2", M=5),
    product("pipefusion", "cfg 2 pipe 3", M=4, W=0),
    product("pipefusion", "data 2 pipe 2", M=3),
    product("pipefusion", "pipe 2 ulysses 2", M=3),
    product("pipefusion", "pipe 2 ulysses 2", M=5),
    product("pipefusion", "pipe 2 ulysses 2", M=4, W=0),
    product("pipefusion", "pipe 2 ulysses 2", M=5, W=STEPS),
    product("pipefusion", "ulysses 4", M=2),
    product("pipefusion", "pipe 2 tensor 2", M=5, W=0),
    product("pipefusion", "ulysses 2 tensor 3", M=5),
    product("pipefusion", "ring 2 ulysses 2", M=2),
    product("pipefusion", "ring 2 ulysses 2", M=2, ring="rotate"),
    product("pipefusion", "pipe 2 ring 2", M=5),
    product("pipefusion", "pipe 2 ring 2", M=5, ring="rotate"),
    product("pipefusion", "pipe 2 ring 2", M=3, W=0),
    product("pipefusion", "pipe 2 ring 2", M=3, W=0, ring="rotate"),
    product("pipefusion", "pipe 2 ring 2", M=3, W=STEPS, ring="rotate"),
    product("pipefusion", "ring 3", M=4, ring="rotate"),
    product("pipefusion", "cfg 2 pipe 2 ring 3", M=3, ring="rotate"),
    product("pipefusion", "cfg 2 pipe 2 ring 2 ulysses 2", M=2),
    product("pipefusion", "cfg 2 pipe 2 ring 2 tensor 2", M=5, ring="rotate"),
    product("pipefusion", "data 2 cfg 2 pipe 2 ulysses 2", M=5),
    product("pipefusion", "pipe 2 ring 2 ulysses 2 tensor 2", M=3, ring="rotate"),
]
FAMILY_PRODUCTS = [
    product(name, degrees, family, **method)
    for family in FAMILIES
    if family != "sd35_tiny"  # SD3 with norms that test_views.py has seen
    for name, degrees, method in (
        ("pipefusion", "pipe 2 ulysses 2", {"M": 3}),
        ("pipefusion", "data 2 pipe 2 ring 2", {"M": 2, "W": 0, "ring": "rotate"}),
        ("distrifusion", "patch 2 ulysses 3", {"W": 1}),
        ("pcpp", "patch 3 ulysses 2", {"W": 1}),
        ("sync_pipeline", "pipe 2 tensor 2", {}),
        ("ring", "ring 2 ulysses 2", {}),
    )
]
VIDEO_PRODUCTS = [  # over frames they are among those of families
    product(name, degrees, "wan_tiny", patch_axis="rows", **method)
    for name, degrees, method in (
        ("pipefusion", "pipe 2 ulysses 2", {"M": 3}),
        ("pipefusion", "cfg 2 pipe 3", {"M": 5, "W": 0}),
        ("pipefusion", "pipe 2 ring 2", {"M": 3, "ring": "rotate"}),
        ("pipefusion", "pipe 2 tensor 2", {"M": 3, "W": STEPS}),
        ("distrifusion", "patch 2 ulysses 3", {"W": 1}),
        ("pcpp", "patch 3 ulysses 2", {"W": 1}),
        ("naive_patch", "patch 2 ring 2", {"W": 1}),
        ("ring", "ring 3 ulysses 2", {}),
    )
] + [
    product(
        name, "pipe 2 ulysses 2" if name == "pipefusion" else "patch 2 ulysses 2", "cogvideox_tiny", **method
    )
    for name, method in (
        ("pipefusion", {"M": 3, "patch_axis": "rows"}),
        ("distrifusion", {"W": 1, "patch_axis": "rows"}),
    )
]
GUIDED_PRODUCTS = [
    product("pipefusion", "cfg 2 pipe 2 ulysses 2", family, M=3)
    for family in FAMILIES
    if model_of(Case("serial", model=family)).shape.guidance == "cfg"
]
PADDED_PRODUCTS = [
    padded("serial", "data 2 ulysses 2", 3),
    padded("sync_pipeline", "pipe 2 ulysses 4", 6),  # 2, 2, 2 heads, and a rank with none
    padded("tensor", "ulysses 4 tensor 2"),
    padded("ulysses", "ulysses 2", 3),
    padded("ulysses", "cfg 2 ulysses 4", 6),
    padded("ulysses", "ulysses 4", 2),  # two ranks with none
    padded("ring", "ring 2 ulysses 2", 3),
    padded("naive_patch", "cfg 2 patch 2 ulysses 2", 3, W=1),
    padded("pcpp", "patch 3 ulysses 2", 3, W=1),
    padded("distrifusion", "patch 2 ulysses 2", 3, W=1),
    padded("distrifusion", "patch 3 ring 2 ulysses 2", 3, W=0),
    padded("pipefusion", "cfg 2 pipe 2 ulysses 4", 6, M=3),
    padded("pipefusion", "ulysses 4 tensor 2", M=3),
    padded("pipefusion", "pipe 2 ring 2 ulysses 2", 3, M=3),
    padded("pipefusion", "pipe 2 ring 2 ulysses 2", 3, M=3, ring="rotate"),
    padded("pipefusion", "ulysses 4", 2, M=3, W=0),
    padded("pipefusion", "pipe 2", M=3),  # nothing to pad
] + [
    product(name, degrees, family, heads="pad", **method).but(
        size=(10, 2 if family in VIDEOS else 10)
    )  # heads: 3, 3, 3, 3, 0
    for family in FAMILIES
    for name, degrees, method in (
        ("pipefusion", "pipe 2 ulysses 5", {"M": 2}),
        ("distrifusion", "patch 2 ulysses 5", {"W": 1}),
        ("ring", "ring 2 ulysses 5", {}),
    )
]
PRODUCTS = [
    *EXACT_PRODUCTS,
    *BANDED_PRODUCTS,
    *PIPED_PRODUCTS,
    *FAMILY_PRODUCTS,
    *VIDEO_PRODUCTS,
    *GUIDED_PRODUCTS,
    *PADDED_PRODUCTS,
]


Items = tuple[tuple[str, Any], ...]


@cache
def alone(
    name: str, model: str, architecture: Items, size: tuple[int, int] | None, bands: int, method: Items
) -> Tensor:
    """Latents of one rank, or of one a band."""
    case = Case(name, dict(method), STEPS, guidance=4.5, images=2, model=model, size=size)
    latents = simulate(case.but(architecture=dict(architecture), parallel=Parallel(patch=bands)))[0].latents
    assert latents is not None
    return latents


def wanted(case: Case) -> Tensor:
    """What the case has to compute: serial's latents, or those of its method with the same bands and nothing shared.

    Units of more than one token row move the borders of an uneven M. Then the loops of `tests/reference.py` say it.
    """
    row, parallel, rows = METHODS[case.name], case.parallel, model_of(case).shape.lines
    model = (case.model, tuple(sorted(case.architecture.items())), case.size)
    if row.never_stale(case.steps, case.method):
        return alone("serial", *model, 1, ())
    patches = case.method.get("patches", 1)
    if split_rows(rows, patches, parallel.lanes) == split_rows(rows, patches):
        return alone(case.name, *model, parallel.patch, tuple(sorted(case.method.items())))
    warmup = case.method.get("warmup", 1)
    assert case.model == "pixart"
    return reference(case, patches, warmup, case.name, unit=parallel.lanes)


def computes(case: Case, results: list[Result], want: Tensor) -> None:
    assert relative_error(results[0].latents, want) <= TOLERANCE


def sends_and_holds_what_is_predicted(results: list[Result]) -> None:
    for rank, result in enumerate(results):
        predicted = {key: result.predicted[key] for key in result.measured}
        assert result.measured == predicted, f"rank {rank}"
    sent, received = (
        sum(row[key] for result in results for row in result.rows) for key in ("sent_bytes", "recv_bytes")
    )
    assert sent == received


def holds_its_part_of_kv(case: Case, results: list[Result]) -> None:
    """2 * p/R * h * d * own layers * images/data * branches/cfg elements, R only for a buffer that goes round.

    h = ceil(heads/(U T)) heads of d: hs/(U T) elements a token, unless heads are padded.
    """
    shape, parallel = model_of(case).shape, case.parallel
    parts = parallel.data * parallel.cfg
    parts *= parallel.ring if case.method.get("ring") == "rotate" else 1
    branches = 2 if shape.guidance == "cfg" else 1
    heads = ceil(shape.heads / (parallel.ulysses * parallel.tensor))
    layer = 2 * shape.tokens * heads * shape.head_dim * case.images * branches * shape.itemsize
    assert layer % parts == 0
    for result in results:
        want = 0 if METHODS[case.name].exact else layer // parts * len(result.layers)
        assert result.measured["kv_bytes"] == want


@pytest.mark.parametrize("case", PRODUCTS, ids=label)
def test_products(case: Case) -> None:
    results = simulate(case)
    computes(case, results, wanted(case))
    sends_and_holds_what_is_predicted(results)
    if case.name != "pcpp":  # which holds a part of the neighbours' alone
        holds_its_part_of_kv(case, results)


def test_the_products_are_many_and_large() -> None:
    assert len(PRODUCTS) >= 60
    assert {case.name for case in PRODUCTS} == set(METHODS)
    assert max(case.parallel.world for case in PRODUCTS) == 16


def prompted(name: str, degrees: str, model: str, tokens: int = 7, **method: Any) -> Case:
    """A product of an MM-DiT with so many tokens a prompt; random ones hardly matter without a gain."""
    return product(name, degrees, model, **method).but(gain=2.0, architecture={"text_tokens": tokens})


def nothing_shared(case: Case) -> Tensor:
    """Latents of the same stages and bands with all other degrees 1."""
    alone = Parallel(pipe=case.parallel.pipe, patch=case.parallel.patch)
    latents = simulate(case.but(parallel=alone))[0].latents
    assert latents is not None
    return latents


# Shares of the prompt: as many tokens a rank (8), one less on the last rank (7), and none on some (1; 7 on 5).
PROMPTS = [
    prompted("pipefusion", "pipe 2 ulysses 2", "flux_tiny", 8, M=3),
    prompted("pipefusion", "cfg 2 pipe 2 ulysses 2", "sd3_tiny", M=3, text="first_patch"),
    prompted("pipefusion", "pipe 3 ulysses 2", "flux2_tiny", 8, M=3, text="first_patch"),
    prompted("pipefusion", "pipe 2 ulysses 3", "flux_tiny", 1, M=2, text="first_patch"),
    prompted("pipefusion", "pipe 2 ulysses 2", "qwen_tiny", M=3).but(padded=True),
    prompted("pipefusion", "ring 2 ulysses 2", "qwen_tiny", M=3, ring="rotate").but(padded=True),
    prompted("distrifusion", "patch 2 ulysses 3", "qwen_tiny", W=1).but(padded=True),
    prompted("pcpp", "patch 2 ulysses 2", "flux2_tiny", 8, W=1),
    prompted("ring", "ring 2 ulysses 2", "qwen_tiny", 8).but(padded=True),
    prompted("tensor", "ulysses 3 tensor 2", "flux2_tiny", 1),
    prompted("sync_pipeline", "pipe 2 ulysses 4", "qwen_tiny").but(padded=True),
    prompted("ulysses", "ulysses 5", "qwen_tiny", 8, heads="pad").but(padded=True, size=(10, 10)),
    prompted("pipefusion", "ulysses 3", "z_image_tiny", M=5).but(size=(15, 3)),  # 19 fill up the image
]


@pytest.mark.parametrize("case", PROMPTS, ids=label)
def test_a_shared_prompt_is_the_whole_one(case: Case) -> None:
    """As published (`first_patch`) the result depends on stages, and on no other degree either."""
    results = simulate(case)
    computes(case, results, nothing_shared(case))
    sends_and_holds_what_is_predicted(results)


@pytest.mark.parametrize("tokens", [7, 8])
def test_the_prompt_travels_once_between_stages_whoever_shares_it(tokens: int) -> None:
    def between(degrees: str) -> int:
        results = simulate(prompted("pipefusion", degrees, "flux_tiny", tokens, M=3))
        return sum(result.measured["axis_bytes"].get("pipe", 0) for result in results)

    assert between("pipe 2") == between("pipe 2 ulysses 2") == between("pipe 2 ulysses 3")


PEAKS = [
    product("pipefusion", "cfg 2 pipe 2", M=5),
    product("pipefusion", "pipe 2 ulysses 2", "sd3_tiny", M=3),
    product("pipefusion", "pipe 2 ring 2", M=3, ring="rotate"),
    product("distrifusion", "patch 2 ulysses 2", W=1),
    product("pcpp", "cfg 2 patch 2", W=1),
    product("ring", "ring 2 tensor 2", "flux_tiny"),
    product("pipefusion", "pipe 2 ulysses 2", "qwen_tiny", M=3).but(padded=True),
    product("ulysses", "ulysses 2 tensor 2", "flux2_tiny").but(architecture={"text_tokens": 8}),
    product("pipefusion", "pipe 2 ulysses 3", "z_image_tiny", M=2),
    padded("pipefusion", "ulysses 2", 3, M=3),
    product("ring", "ulysses 5", "flux_tiny", heads="pad").but(size=(10, 10)),
]


@pytest.mark.parametrize("case", PEAKS, ids=label)
def test_peak_is_that_of_the_program_run_alone(case: Case) -> None:
    model, mesh = model_of(case), case.parallel.mesh()
    with torch.inference_mode():
        for rank, counted in enumerate(planned(case, mesh.size)):
            assert counted.meter.peak_bytes == peak_of(case, model, mesh, rank), f"rank {rank}"


LOCAL = [
    product("sync_pipeline", "cfg 2 pipe 2"),
    product("tensor", "ulysses 2 tensor 2"),
    product("ring", "ring 2 ulysses 2"),
    product("pipefusion", "cfg 2 pipe 2", M=5),
    product("pipefusion", "data 2 pipe 2", M=3, W=0),
    product("pipefusion", "pipe 2 ulysses 2", M=5),
    product("pipefusion", "pipe 2 ring 2", "sd3_tiny", M=3, ring="rotate"),
    product("tensor", "ulysses 2 tensor 2", "flux_tiny").but(architecture={"text_tokens": 1}),
    product("pipefusion", "pipe 2 ulysses 2", "qwen_tiny", M=3).but(padded=True),
    product("pipefusion", "pipe 2 ring 2", "hunyuan_tiny", M=3),
    product("distrifusion", "patch 2 ulysses 2", "flux_tiny", W=1),
    product("pcpp", "patch 2 ring 2", "qwen_tiny", W=0),
    product("naive_patch", "cfg 2 patch 2", "dit_tiny", W=1),
    product("pipefusion", "pipe 2 ulysses 2", "wan_tiny", M=3, patch_axis="rows"),
    product("pipefusion", "cfg 2 pipe 2 ulysses 2", M=3),
    product("pipefusion", "pipe 2 ring 2 ulysses 2", M=3, ring="rotate"),
    product("distrifusion", "data 2 patch 2 tensor 2", W=1),
    padded("ulysses", "ulysses 4", 6),
    padded("pipefusion", "pipe 2 ring 2 ulysses 2", 3, M=3, ring="rotate"),
]


@pytest.mark.parametrize("case", LOCAL, ids=label)
def test_local_and_sim_agree(ranks: Callable[[int], Ranks], case: Case) -> None:
    agree(case, ranks(case.parallel.world).run(sample, case, 2), simulate(case))


# Bugs that products make possible, each planted, and how it is found.


def own_share_only(run: Run) -> AttendFor:
    """A stale buffer outside the Ulysses exchange: of a patch's fresh K, V it gets this rank's own share."""
    kv, lane = StaleKV(run, run.layout.band_tokens), run.fabric.axis("ulysses").index

    def attend_for(job: Job) -> Attend:
        slots, t = run.layout.slots(job, run.layout.lanes), job.tokens
        own = slice(lane * t, (lane + 1) * t)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            if len(job.patches) > 1:
                kv.write(layer, slots, k, v, prefix)
            else:
                place = [slice(slots[0].start + own.start, slots[0].start + own.stop)]
                kv.write(layer, place, k[:, own], v[:, own], prefix)
            return full(q, *kv.read(layer))

        return attend

    return attend_for


def plant_buffer_outside_ulysses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(method_of_pipefusion, "stale", own_share_only)


def plant_ring_over_fresh_kv_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(method_of_pipefusion, "rotating", ring)


def plant_swapped_guidance(patch: pytest.MonkeyPatch) -> None:
    branch = Conditioning.branch
    patch.setattr(Conditioning, "branch", lambda cond, index: branch(cond, 1 - index))


def plant_latent_stepped_on_one_side(patch: pytest.MonkeyPatch) -> None:
    class Still:
        def step(self, patch: int, step: int, prediction: Tensor, latent: Tensor) -> Tensor:
            return latent

    emit = denoise.Stage.emit

    def stepped_on_one(stage: denoise.Stage, job: Job, tokens: Any) -> None:
        if stage.layout.last and stage.run.fabric.axis("cfg").index:
            stage.schedulers = Still()  # type: ignore[assignment]
        emit(stage, job, tokens)

    patch.setattr(denoise.Stage, "emit", stepped_on_one)


def plant_rank_major_warmup(patch: pytest.MonkeyPatch) -> None:
    def slots(own: Layout, job: Job, lanes: int) -> list[slice]:
        return [slice(job.own.start * lanes, job.own.stop * lanes)]

    patch.setattr(Layout, "slots", slots)


def plant_unequal_shares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layout, "split_rows", lambda rows, parts, unit=1: split_rows(rows, parts))


def plant_padding_in_front(patch: pytest.MonkeyPatch) -> None:
    def in_front(x: Tensor, n: int, h: int, tokens: int) -> Tensor:
        return F.pad(x, (0, 0, n * h - x.shape[2], 0)).unflatten(2, (n, h)).permute(2, 1, 0, 3, 4)

    patch.setattr(sequence, "head_groups", in_front)


def plant_one_share_of_the_prompt_on_all_ranks(patch: pytest.MonkeyPatch) -> None:
    share = Tokens.share
    patch.setattr(Tokens, "share", lambda tokens, prompt: share(tokens, range(len(prompt))))


def plant_positions_of_the_first_share(patch: pytest.MonkeyPatch) -> None:
    joint_rotary = flux2.joint_rotary

    def at_the_start(model: Any, shape: Any, rows: Any, prompt: range) -> Any:
        return joint_rotary(model, shape, rows, range(len(prompt)))

    patch.setattr(flux2, "joint_rotary", at_the_start)


def plant_shares_of_the_prompt_go_back_to_others(patch: pytest.MonkeyPatch) -> None:
    blocks = sequence.Shared.blocks

    def turned(shared: sequence.Shared, inside: Tensor, n: int) -> Tensor:
        found, result = blocks(shared, inside, n), inside.dim() == 4  # of Q, K, V: 5
        return found.roll(1, 0) if result and shared.start == 0 else found

    patch.setattr(sequence.Shared, "blocks", turned)


def plant_filled_up_tokens_of_the_prompt_attend(patch: pytest.MonkeyPatch) -> None:
    prefix = DiTShape.prefix
    patch.setattr(DiTShape, "prefix", lambda shape, layer: -(-prefix(shape, layer) // 2) * 2)


Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: list[tuple[Plant, Case, type[Exception], str]] = [
    (
        plant_buffer_outside_ulysses,
        product("pipefusion", "pipe 2 ulysses 2", M=3),
        AssertionError,
        "<= 1e-05",
    ),
    (
        plant_ring_over_fresh_kv_only,
        product("pipefusion", "pipe 2 ring 2", M=3, ring="rotate"),
        AssertionError,
        "<= 1e-05",
    ),
    (plant_swapped_guidance, product("pipefusion", "cfg 2 pipe 2", M=3), AssertionError, "<= 1e-05"),
    (
        plant_latent_stepped_on_one_side,
        product("pipefusion", "cfg 2 pipe 2", M=3),
        AssertionError,
        "<= 1e-05",
    ),
    (plant_rank_major_warmup, product("pipefusion", "pipe 2 ulysses 2", M=3), AssertionError, "<= 1e-05"),
    (plant_padding_in_front, padded("ulysses", "ulysses 2", 3), AssertionError, "<= 1e-05"),
    (
        plant_unequal_shares,
        product("pipefusion", "pipe 2 ulysses 2", M=5),
        SimulationError,
        "mismatched shape",
    ),
]


@pytest.mark.parametrize(
    ("plant", "case", "error", "found_as"), PLANTED, ids=[plant.__name__ for plant, *_ in PLANTED]
)
def test_planted_bugs_are_found(
    plant: Plant, case: Case, error: type[Exception], found_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = wanted(case)
    computes(case, simulate(case), want)
    plant(monkeypatch)
    with pytest.raises(error, match=found_as):
        computes(case, simulate(case), want)


@pytest.mark.parametrize(
    ("plant", "case"),
    [
        (plant_one_share_of_the_prompt_on_all_ranks, prompted("ulysses", "ulysses 2", "sd3_tiny", 8)),
        (plant_positions_of_the_first_share, prompted("pipefusion", "ulysses 2", "flux2_tiny", M=3)),
        (plant_shares_of_the_prompt_go_back_to_others, prompted("ring", "ulysses 2", "flux_tiny", 8)),
        (plant_filled_up_tokens_of_the_prompt_attend, prompted("ulysses", "ulysses 2", "qwen_tiny")),
    ],
)
def test_planted_bugs_of_shared_prompts_are_found(
    plant: Plant, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = nothing_shared(case)
    computes(case, simulate(case), want)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="<= 1e-05"):
        computes(case, simulate(case), want)


@pytest.mark.parametrize(
    "case", [padded("ulysses", "ulysses 2", 3), padded("pipefusion", "ulysses 2", 3, M=3)]
)
def test_padding_that_is_not_counted_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    results = simulate(case)
    sends_and_holds_what_is_predicted(results)
    monkeypatch.setattr(Sizes, "inner", property(lambda size: size.hidden // size.parallel.ulysses))
    with pytest.raises(AssertionError, match="rank 0"):
        sends_and_holds_what_is_predicted(simulate(case))
