"""Ulysses ranks share the prompt of an MM-DiT: nothing changes by it, and the bugs that it makes possible are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import pipefusion.views.flux2 as flux2
from pipefusion.core.dit import Tokens
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import DiTShape
from pipefusion.sim.fabric import SimFabric
from tests.cases import Case
from tests.contract.oracle import computes, label, product, sends_and_holds_what_is_predicted
from tests.sampling import simulate


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
    prompted("pipefusion", "pipe 2 ulysses 2", "hunyuan_video_tiny", M=3).but(padded=True),
    prompted("ring", "cfg 2 ring 2 ulysses 2", "hunyuan_video15_tiny").but(padded=True),
    prompted("tensor", "ulysses 3 tensor 2", "flux2_tiny", 1),
    prompted("sync_pipeline", "pipe 2 ulysses 4", "qwen_tiny").but(padded=True),
    prompted("ulysses", "ulysses 5", "qwen_tiny", 8, heads="pad").but(padded=True, size=(10, 10)),
    prompted("pipefusion", "ulysses 3", "z_image_tiny", M=5).but(size=(15, 3)),  # 19 fill up the image
]


@pytest.mark.parametrize("case", PROMPTS, ids=label)
@pytest.mark.fast_cases(5)
def test_a_shared_prompt_is_the_whole_one(case: Case) -> None:
    """As published (`first_patch`) the result depends on stages, and on no other degree either."""
    results = simulate(case)
    computes(results, nothing_shared(case))
    sends_and_holds_what_is_predicted(results)


@pytest.mark.parametrize("tokens", [7, 8])
@pytest.mark.fast_cases(1)
def test_the_prompt_travels_once_between_stages_whoever_shares_it(tokens: int) -> None:
    def between(degrees: str) -> int:
        results = simulate(prompted("pipefusion", degrees, "flux_tiny", tokens, M=3))
        return sum(result.measured["axis_bytes"].get("pipe", 0) for result in results)

    assert between("pipe 2") == between("pipe 2 ulysses 2") == between("pipe 2 ulysses 3")


def plant_one_share_of_the_prompt_on_all_ranks(patch: pytest.MonkeyPatch) -> None:
    share = Tokens.share
    patch.setattr(Tokens, "share", lambda tokens, prompt: share(tokens, range(len(prompt))))


def plant_positions_of_the_first_share(patch: pytest.MonkeyPatch) -> None:
    positions = flux2.View.positions

    def at_the_start(view: flux2.View, rows: Any, prompt: range) -> Any:
        return positions(view, rows, range(len(prompt)))

    patch.setattr(flux2.View, "positions", at_the_start)


def plant_shares_of_the_prompt_go_back_to_others(patch: pytest.MonkeyPatch) -> None:
    all_to_all, share = SimFabric.all_to_all, 4

    def turned(fabric: SimFabric, out: Tensor, tensor: Tensor, **kwargs: Any) -> Any:
        if tensor.dim() == 5:  # of Q, K, V: 6
            tensor[:, :share] = tensor[:, :share].roll(1, 0)
        return all_to_all(fabric, out, tensor, **kwargs)

    patch.setattr(SimFabric, "all_to_all", turned)


def plant_filled_up_tokens_of_the_prompt_attend(patch: pytest.MonkeyPatch) -> None:
    prefix = DiTShape.prefix
    patch.setattr(DiTShape, "prefix", lambda shape, layer: -(-prefix(shape, layer) // 2) * 2)


@pytest.mark.parametrize(
    ("plant", "case"),
    [
        (plant_one_share_of_the_prompt_on_all_ranks, prompted("ulysses", "ulysses 2", "sd3_tiny", 8)),
        (plant_positions_of_the_first_share, prompted("pipefusion", "ulysses 2", "flux2_tiny", M=3)),
        (plant_shares_of_the_prompt_go_back_to_others, prompted("ring", "ulysses 2", "flux_tiny", 8)),
        (plant_filled_up_tokens_of_the_prompt_attend, prompted("ulysses", "ulysses 2", "qwen_tiny")),
    ],
)
@pytest.mark.fast_cases(2)
def test_planted_bugs_of_shared_prompts_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = nothing_shared(case)
    computes(simulate(case), want)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="away from what they have to be"):
        computes(simulate(case), want)
