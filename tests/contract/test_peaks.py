"""The most that a rank holds at once: what the plan of all ranks counts is the peak of its program run alone."""

from __future__ import annotations

import pytest

from experiments.methods import METHODS
from tests.cases import CPU, Case, refused
from tests.contract.covering import cover, pairs, pairs_apart
from tests.contract.oracle import ARCHITECTURES, padded, product
from tests.sampling import measure_peak, planned

METHOD = {"patches": 5, "warmup": 1}
ALONE = [
    product(name, "", model)
    .but(method={key: METHOD[key] for key in METHOD if METHODS[name].has(key)})
    .on(devices)
    for model in ARCHITECTURES
    for name in METHODS
    for devices in ((1, 3) if model == "pixart" and name != "serial" else (1,) if name == "serial" else (3,))
]
ALONE = [case for case in ALONE if not refused(case)]
PRODUCTS = [
    product("pipefusion", "pipe 2 ring 2", M=3, ring="rotate"),
    product("pipefusion", "pipe 3", "sd3_tiny", M=2, order="rotational", forecast="taylor2"),
    product("distrifusion", "patch 2 ulysses 2", W=1),
    product("pcpp", "cfg 2 patch 2", W=1),
    product("ring", "ring 2 tensor 2", "flux_tiny"),
    *(
        product("tensor", "tensor 2", model, cross="whole")
        for model in ("pixart", "hunyuan_tiny", "flux_tiny")
    ),
    product("pipefusion", "pipe 2 ulysses 2", "qwen_tiny", M=3).but(padded=True),
    product("ulysses", "ulysses 2 tensor 2", "flux2_tiny").but(architecture={"text_tokens": 8}),
    product("pipefusion", "pipe 2 ulysses 3", "z_image_tiny", M=2),
    product("pipefusion", "cfg 2 pipe 2", "qwen_edit_tiny", M=3).but(architecture={"zero_cond_t": True}),
    padded("pipefusion", "ulysses 2", 3, M=3),
    product("distrifusion", "cfg 2 patch 2", W=1, compress="int4", sync_layers=[0]),
    product("pipefusion", "pipe 3 ulysses 2", "sd3_tiny", M=2, compress="int4"),
    product("ring", "ring 2", "sd3_tiny", compress="lowrank", whole_steps=1),
    product("ring", "ulysses 5", "flux_tiny", heads="pad").but(size=(10, 10)),
]


@pytest.mark.parametrize("case", cover(ALONE + PRODUCTS, pairs_apart, pairs))
@pytest.mark.fast_cases(8)
def test_the_plan_counts_what_a_rank_holds(case: Case) -> None:
    """Of operations on data, which the plan does without."""
    for rank, counted in enumerate(planned(case, case.parallel.world)):
        want = measure_peak(case, case.parallel.world, rank, CPU)
        assert counted.meter.peak_bytes == want, f"rank {rank}"
