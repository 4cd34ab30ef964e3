"""Videos that begin with a picture (Wan 2.2 TI2V-5B): methods against diffusers' loop, this against its pipeline."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from torch import Tensor

from experiments.models.stock_sampling import denoise
from pipefusion.core.attention import full
from pipefusion.core.dit import Given, KeptSkips, run_blocks
from tests.cases import (
    CPU,
    Case,
    case_model,
    case_scheduler,
    case_view,
    case_weights,
    inputs,
    relative_error,
    stock_network,
)
from tests.contract.oracle import TOLERANCE, check, computes, label, product
from tests.sampling import measure_peak, planned


def begun(name: str, degrees: str = "", **method: Any) -> Case:
    """Two guided videos with a first frame each; random weights hardly matter without a gain."""
    case = product(name, degrees, "wan_tiny", **method)
    return case.but(scheduler="shipped", gain=2.0, architecture={"first_frame": True})


EXACT = [
    begun("serial", "data 2 cfg 2"),
    begun("ring", "ring 2 ulysses 2", patch_axis="rows"),
    begun("pipefusion", "pipe 2 ulysses 2", M=3, W=3),
]
STALE = [
    begun("pipefusion", "cfg 2 pipe 2", M=3),
    begun("pipefusion", "ring 2 tensor 2", M=3, W=0, ring="rotate", patch_axis="rows"),
    begun("distrifusion", "patch 3 ulysses 2", W=1),
]


@cache
def stock_loop(case: Case) -> Tensor:
    model, (noise, cond) = case_model(case), inputs(case, case_model(case))
    scheduler, size = case_scheduler(case), (model.height, model.width)
    with torch.inference_mode():
        return denoise(stock_network(case), scheduler, noise, cond.prompt, cond.negative, case.guidance, size)


@torch.inference_mode()
def test_the_loop_is_the_pipeline_s() -> None:
    case = EXACT[0]
    model, (noise, cond) = case_model(case), inputs(case, case_model(case))
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1, latents_mean=[0.1] * 4, latents_std=[0.5] * 4
    )
    scheduler = case_scheduler(case)
    pipe = WanImageToVideoPipeline(
        None, None, vae, scheduler, transformer=stock_network(case), expand_timesteps=True
    )
    pipe.set_progress_bar_config(disable=True)
    size = model.height, model.width
    picture = torch.rand(1, 3, *size)
    assert model.frames is not None and cond.negative is not None
    sizes = {"height": size[0], "width": size[1], "num_frames": model.frames}
    theirs = pipe(
        2 * picture - 1,
        prompt_embeds=cond.prompt["prompt_embeds"],
        negative_prompt_embeds=cond.negative["prompt_embeds"],
        guidance_scale=case.guidance,
        num_inference_steps=case.steps,
        latents=noise,
        output_type="latent",
        **sizes,
    ).frames
    _, first, _ = pipe.prepare_latents(2 * picture - 1, 2, 4, **sizes)
    prompt = {**cond.prompt, "first_frame": first}
    fresh = case_scheduler(case)
    ours = denoise(stock_network(case), fresh, noise, prompt, cond.negative, case.guidance, size)
    assert relative_error(ours, theirs) <= TOLERANCE
    assert torch.equal(ours[:, :, :1], first)


@pytest.mark.parametrize("case", EXACT, ids=label)
def test_what_is_never_stale_is_the_stock_loop(case: Case) -> None:
    computes(check(case), stock_loop(case.but(name="", method={}, parallel=product("serial").parallel)))


@pytest.mark.parametrize("case", STALE, ids=label)
def test_what_is_stale_depends_on_bands_and_warm_up_alone(case: Case) -> None:
    results, (_, cond) = check(case), inputs(case, case_model(case))
    assert results[0].latents is not None
    assert torch.equal(results[0].latents[:, :, :1], cond.prompt["first_frame"])


@torch.inference_mode()
def test_k_and_v_of_the_given_frame_are_the_same_in_all_steps_in_the_first_layer_alone() -> None:
    case = EXACT[0]
    view, (noise, cond) = case_view(case), inputs(case, case_model(case))
    view.load(case_weights(case), CPU)
    text, rows = view.text(cond), range(view.shape.lines)
    seen: dict[tuple[float, int], Tensor] = {}
    for time in (900.0, 100.0):

        def attend(
            layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0, time: float = time
        ) -> Tensor:
            seen[time, layer] = torch.stack([k, v])[:, :, : view.shape.grid.width]
            return full(q, k, v)

        modulation = view.modulation(torch.tensor(time), text, 4)
        latent = torch.cat([noise, noise]) * time / 1000
        given = Given(text, modulation, view.positions(rows, range(0)), view.cross(text), range(0))
        tokens = view.embed(latent, rows, text, modulation)
        run_blocks(view, tokens, given, attend, KeptSkips(view.shape), range(2))
    assert torch.equal(seen[900.0, 0], seen[100.0, 0])
    assert not torch.allclose(seen[900.0, 1], seen[100.0, 1], atol=1e-3)


def test_the_plan_s_peak_is_that_of_the_program() -> None:
    case = STALE[0]
    for rank, counted in enumerate(planned(case, case.parallel.world)):
        assert counted.meter.peak_bytes == measure_peak(case, case.parallel.world, rank, CPU), f"rank {rank}"
