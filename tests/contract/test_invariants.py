"""Every method of the table on every architecture, alone and in products. A new row is tested without a word here.

A method that is `exact` must equal serial always. One that is not is displaced: it must equal serial when every step
is synchronous. One with a `patches` key must equal serial for a single patch, and may not depend on the number of
devices. Who shares what changes no result, and bytes are as predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from experiments.methods import METHODS
from tests.cases import Case, case_model, problem, relative_error
from tests.contract.covering import UNEVEN, cover, pairs_apart
from tests.contract.oracle import (
    ARCHITECTURES,
    STEPS,
    TOLERANCE,
    check,
    product,
    sends_and_holds_what_is_predicted,
)
from tests.contract.products import PRODUCTS
from tests.sampling import simulate

SETTINGS: list[dict[str, Any]] = [
    {},
    {"guidance": 1.0, "images": 1},
    {"guidance": 1.0, "scheduler": "flow_euler"},
    {"guidance": 3.0, "images": 1, "scheduler": "ddim"},
    {"size": UNEVEN},
]
SPLITS = ("ceil", "even", "cost", "bytes", "list")
JOINT = [name for name in ARCHITECTURES if case_model(Case("serial", model=name)).shape.joint]


def methods(name: str, model: str) -> Iterator[dict[str, Any]]:
    """What is tried of a method's own settings."""
    method = METHODS[name]
    if method.has("patches"):
        yield from ({"M": m, "W": w} for m, w in ((1, 0), (1, 2), (2, 0), (5, 1), (5, STEPS)))
        yield from (
            {"M": m, "W": w, "text": "first_patch"} for m, w in ((1, 0), (3, STEPS)) if model in JOINT
        )
    elif not method.exact:
        yield from ({"W": warmup} for warmup in (0, 1, STEPS))
    else:
        yield {}
    if method.has("cross"):
        yield {"cross": "whole"}


def single_axis() -> Iterator[Case]:
    """Each on one rank and on two (products have more); pixart with all settings of a run.

    Random weights are louder where only the noise of an earlier step is stale: it hardly differs else.
    """
    for model in ARCHITECTURES:
        for name, method in METHODS.items():
            gain = 2.0 if method.stale == "noise" else 1.0
            for own in methods(name, model):
                for devices in (1, 2) if method.axis else (1,):
                    for settings in SETTINGS if model == "pixart" else SETTINGS[:1]:
                        case = product(name, "", model, **own).but(gain=gain, **settings).on(devices)
                        if problem(case) is None:
                            yield case


def splits(name: str, model: str, split: str) -> Case:
    layers = case_model(Case(name, model=model)).shape.layers
    sizes = [1, layers - 2, 0, 1] if split == "list" else split
    return product(name, "pipe 4", model, split=sizes, **({"M": 3} if METHODS[name].has("patches") else {}))


SPLIT_CASES = [
    splits(name, model, split)
    for model in ARCHITECTURES
    for name, method in METHODS.items()
    if method.has("split")
    for split in SPLITS
]


@pytest.mark.parametrize("case", cover([*single_axis(), *SPLIT_CASES, *PRODUCTS], pairs_apart))
def test_methods(case: Case) -> None:
    sizes = [len(result.layers) for result in check(case)]
    assert not isinstance(case.method.get("split"), list) or sizes == case.method["split"]


def test_ceil_leaves_the_last_stages_less() -> None:
    """5 layers on 4 devices: an empty last stage."""
    case = product("pipefusion", "pipe 4", M=3, split="ceil").but(architecture={"num_layers": 5})
    assert [[*result.layers] for result in check(case)] == [[0, 1], [2, 3], [4], []]


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("model", JOINT)
@pytest.mark.fast_cases(2)
def test_published_treatment_of_the_prompt(model: str, devices: int) -> None:
    """`first_patch` sends less, and is another result that depends on N; serial's with nothing stale, as above."""
    loud = product("pipefusion", f"pipe {devices}", model, M=3).but(
        gain=2.0
    )  # random prompts hardly matter else
    exact, partial = (
        simulate(loud.but(method={"patches": 3, "text": text})) for text in ("exact", "first_patch")
    )
    sends_and_holds_what_is_predicted(partial)
    assert partial[0].measured["sent_bytes"] < exact[0].measured["sent_bytes"]
    assert exact[0].latents is not None
    assert relative_error(partial[0].latents, exact[0].latents) > 100 * TOLERANCE


def test_skips_go_straight_to_their_mirror() -> None:
    """HunyuanDiT of 8 layers on 4 stages: layers 0, 1, 2 give to 7, 6, 5 -- stage 0 to 3, and 1 to 2."""
    rows = [
        row for rank in simulate(product("pipefusion", "pipe 4", "hunyuan_tiny", M=2)) for row in rank.rows
    ]
    sent = {
        (row["rank"], row["peer"], row["layer"]) for row in rows if row["op"] == "send" and row["layer"] >= 0
    }
    assert sent == {(0, 3, 0), (0, 3, 1), (1, 2, 2)}
