"""Products of degrees, up to sixteen ranks: cases of `test_invariants.py`."""

from __future__ import annotations

from tests.cases import VIDEOS, Case, case_model, refused
from tests.contract.oracle import ARCHITECTURES, STEPS, padded, product

EXACT_PRODUCTS = [
    product(name, degrees)
    for name, grid in {
        "serial": ("data 2 cfg 2",),
        "sync_pipeline": ("cfg 2 pipe 2", "pipe 3 ulysses 2", "data 2 cfg 2 pipe 4"),
        "tensor": ("cfg 2 ring 2 tensor 3",),
        "ulysses": ("ring 3 ulysses 2", "data 2 cfg 2 ulysses 4"),
        "ring": ("cfg 2 ring 2 ulysses 2 tensor 2", "data 2 ring 3"),
    }.items()
    for degrees in grid
]
LAGGED_PRODUCTS = [
    product("asyncdiff", degrees, **own)
    for degrees, own in (
        ("cfg 2 pipe 2", {}),
        ("pipe 3 ulysses 2", {"stride": 2}),
        ("data 2 pipe 2 tensor 2", {"W": STEPS}),
        ("pipe 2 ring 2 ulysses 2", {"time_shift": True}),
    )
] + [product("asyncdiff", "pipe 4", "hunyuan_tiny", stride=2, time_shift=True, split=[3, 3, 0, 2])]
ROUND_PRODUCTS = [
    product("parastep", degrees, model, W=warmup)
    for degrees, model, warmup in (
        ("step 2 cfg 2", "pixart", 1),
        ("step 3 ulysses 2", "sd3_tiny", 1),
        ("data 2 step 2 tensor 2", "pixart", 1),
        ("step 2 ring 2 ulysses 2", "pixart", 1),
        ("data 2 step 2 cfg 2 ring 2", "pixart", STEPS),
    )
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
BANDED_PRODUCTS += [
    product("distrifusion", "cfg 2 patch 2 ulysses 2", W=1, sync_layers=[0, 2]),
    product("naive_patch", "patch 2 ring 2", W=1, sync_layers=[1]),
    product("distrifusion", "patch 2 ulysses 2 tensor 2", "flux_tiny", W=1, compress="int2"),
    product("distrifusion", "cfg 2 patch 2", W=1, compress="topk", sync_layers=[3]),
    product("distrifusion", "patch 3", "sd3_tiny", W=0, compress="lowrank"),
    product("ring", "data 2 ring 2 ulysses 2", "qwen_tiny", compress="int4", whole_steps=1),
    product("ring", "ring 3", compress="lowrank", whole_steps=0),
    product("ring", "ring 2", compress="topk", whole_steps=STEPS),
]
PIPED_PRODUCTS = [
    product("pipefusion", "pipe 2 ulysses 2", M=4, W=0),
    product("pipefusion", "pipe 2 ulysses 2", M=5, W=STEPS),
    product("pipefusion", "pipe 2 tensor 2", M=5, W=0),
    product("pipefusion", "ring 2 ulysses 2", M=2),
    product("pipefusion", "ring 2 ulysses 2", M=2, ring="rotate"),
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
MICRO_PRODUCTS = [
    product(name, degrees, model, micro_batches=True, **own).but(padded=model in ("sd3_tiny", "qwen_tiny"))
    for name, degrees, model, own in (
        ("pipefusion", "cfg 2 pipe 2 ulysses 2", "pixart", {"M": 3, "W": 2}),
        ("pipefusion", "pipe 2 ring 2", "sd3_tiny", {"M": 3, "W": 2, "ring": "rotate"}),
        ("pipefusion", "pipe 3", "hunyuan_tiny", {"M": 2, "W": 2}),
        ("sync_pipeline", "pipe 2 ring 2 tensor 2", "pixart", {}),
        ("sync_pipeline", "data 2 pipe 3", "qwen_tiny", {}),
    )
]
COMPRESSED_PRODUCTS = [
    product("pipefusion", degrees, model, compress=how, **own)
    for degrees, how, model, own in (
        ("cfg 2 pipe 2 tensor 2", "lowrank", "pixart", {"M": 5}),
        ("pipe 3 ulysses 2", "topk", "sd3_tiny", {"M": 3}),
        ("data 2 pipe 2 ring 2", "lowrank", "pixart", {"M": 2, "W": 2}),
        ("pipe 2 ring 2", "int1", "pixart", {"M": 2}),
        ("pipe 4", "topk", "pixart", {"M": 2, "split": [1, 0, 2, 1]}),
        ("pipe 2 ulysses 2", "int4", "flux_tiny", {"M": 3, "text": "first_patch"}),
        ("pipe 2", "int2", "hunyuan_tiny", {"M": 1}),
        ("pipe 2", "int2", "sana_tiny", {"M": 3}),
        ("pipe 2", "topk", "pixart", {"M": 3, "W": 2, "micro_batches": True}),
    )
]
ROTATED_PRODUCTS = [
    product("pipefusion", degrees, model, M=m, order="rotational", **own)
    for degrees, m, own, model in (
        ("pipe 4", 1, {}, "pixart"),
        ("pipe 2", 3, {"W": STEPS}, "pixart"),
        ("cfg 2 pipe 3", 4, {"forecast": "taylor1"}, "pixart"),
        ("data 2 pipe 2 tensor 2", 5, {"forecast": "taylor2"}, "pixart"),
        ("pipe 4 ulysses 2", 2, {"forecast": "taylor3"}, "pixart"),
        ("pipe 2 ring 2 ulysses 2", 3, {"ring": "rotate"}, "pixart"),
        ("pipe 3 ring 2", 3, {"W": 2, "forecast": "taylor1"}, "wan_tiny"),
        *(
            ("pipe 2 ulysses 2", 3, {}, model)
            for model in ("sd3_tiny", "flux_tiny", "qwen_tiny", "z_image_tiny", "dit_tiny")
        ),
    )
] + [product("pipefusion", "pipe 3 ulysses 2", "cogvideox_tiny", M=3, order="rotational", patch_axis="rows")]
FAMILY_PRODUCTS = [
    case
    for family in ARCHITECTURES[1:]
    for name, degrees, method in (
        ("pipefusion", "pipe 2 ulysses 2", {"M": 3}),
        ("pipefusion", "data 2 pipe 2 ring 2", {"M": 2, "W": 0, "ring": "rotate"}),
        ("distrifusion", "patch 2 ulysses 3", {"W": 1}),
        ("pcpp", "patch 3 ulysses 2", {"W": 1}),
        ("sync_pipeline", "pipe 2 tensor 2", {}),
        ("ring", "ring 2 ulysses 2", {}),
    )
    if not refused(case := product(name, degrees, family, **method))
]
VIDEO_PRODUCTS = [  # over frames they are among those of families
    product(name, degrees, "wan_tiny", patch_axis="rows", **method)
    for name, degrees, method in (
        ("pipefusion", "cfg 2 pipe 3", {"M": 5, "W": 0}),
        ("pipefusion", "pipe 2 ring 2", {"M": 3, "ring": "rotate"}),
        ("pipefusion", "pipe 2 tensor 2", {"M": 3, "W": STEPS}),
        ("distrifusion", "patch 2 ulysses 3", {"W": 1}),
        ("pcpp", "patch 3 ulysses 2", {"W": 1}),
        ("naive_patch", "patch 2 ring 2", {"W": 1}),
        ("ring", "ring 3 ulysses 2", {}),
    )
] + [product("distrifusion", "patch 2 ulysses 2", "cogvideox_tiny", W=1, patch_axis="rows")]
EDIT_PRODUCTS = [
    product(name, degrees, model, **method)
    for name, degrees, model, method in (
        ("serial", "cfg 2 ulysses 2", "qwen_edit_tiny", {}),
        ("sync_pipeline", "pipe 2 ring 2", "flux_kontext_tiny", {}),
        ("tensor", "data 2 tensor 2", "flux_kontext_tiny", {}),
        ("ulysses", "ulysses 3 tensor 2", "qwen_edit_tiny", {}),
        ("ring", "ring 3 ulysses 2", "flux_kontext_tiny", {}),
        ("pipefusion", "cfg 2 pipe 2 ulysses 2", "qwen_edit_tiny", {"M": 3}),
        ("pipefusion", "pipe 2 ring 2", "flux_kontext_tiny", {"M": 3, "W": 0, "ring": "rotate"}),
        ("pipefusion", "data 2 pipe 3", "flux_kontext_tiny", {"M": 5}),
        ("distrifusion", "patch 2 ulysses 3", "qwen_edit_tiny", {"W": 1}),
        ("pcpp", "patch 3 ulysses 2", "flux_kontext_tiny", {"W": 1}),
        ("naive_patch", "patch 2 ring 2", "qwen_edit_tiny", {"W": 1}),
        ("asyncdiff", "pipe 3 ulysses 2", "flux_kontext_tiny", {}),
    )
] + [
    product("pipefusion", "cfg 2 pipe 2", "qwen_edit_tiny", M=3).but(architecture={"zero_cond_t": True}),
    product("pipefusion", "pipe 2 ulysses 2", "flux2_tiny", M=3).but(architecture={"references": 2}),
]
"""Reference pictures: the tokens of each beside the image's."""
GUIDED_PRODUCTS = [
    product("pipefusion", "cfg 2 pipe 2 ulysses 2", family, M=3)
    for family in ARCHITECTURES[1:]
    if case_model(Case("serial", model=family)).shape.guidance == "cfg"
]
PADDED_PRODUCTS = (
    [
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
    ]
    + [
        product(name, degrees, family, heads="pad", **method).but(
            size=(10, 3, 2) if family in VIDEOS else (10, 10)
        )  # heads: 3, 3, 3, 3, 0
        for family in ARCHITECTURES[1:]
        for name, degrees, method in (
            ("pipefusion", "ulysses 5", {"M": 2}),
            ("distrifusion", "patch 2 ulysses 5", {"W": 1}),
            ("ulysses", "ulysses 5", {}),
        )
    ]
)
PRODUCTS = [
    *EXACT_PRODUCTS,
    *LAGGED_PRODUCTS,
    *ROUND_PRODUCTS,
    *BANDED_PRODUCTS,
    *PIPED_PRODUCTS,
    *MICRO_PRODUCTS,
    *COMPRESSED_PRODUCTS,
    *ROTATED_PRODUCTS,
    *FAMILY_PRODUCTS,
    *VIDEO_PRODUCTS,
    *EDIT_PRODUCTS,
    *GUIDED_PRODUCTS,
    *PADDED_PRODUCTS,
]
