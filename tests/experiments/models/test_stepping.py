"""Schedulers that can be stepped patch by patch, and what makes others that cannot: as they behave."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.models.stepping import stepping_problem

DPM, DDIM, FLOW = "DPMSolverMultistepScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"

ZERO_SNR = {"clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (DPM, {}),
        (DPM, {"solver_order": 3, "use_karras_sigmas": True}),
        (DPM, {"thresholding": True}),  # to 1 at most, which is to 1 always: element by element
        (DPM, {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
        (DDIM, {"clip_sample": True}),
        (DDIM, ZERO_SNR | {"prediction_type": "v_prediction"}),
        (FLOW, {"shift": 3.0}),
    ],
)
def test_elementwise_steps(name: str, config: dict[str, Any]) -> None:
    assert stepping_problem(name, config, 8) is None


SDE = {"algorithm_type": "sde-dpmsolver++"}
QUANTILE = {"thresholding": True, "sample_max_value": 1.05}


@pytest.mark.parametrize(
    ("name", "config", "keys", "why"),
    [
        (DPM, SDE | {"solver_order": 1}, "algorithm_type=sde-dpmsolver++ ", "draws noise"),
        (FLOW, {"stochastic_sampling": True, "shift": 2.0}, "stochastic_sampling=True ", "draws noise"),
        *((name, QUANTILE, "thresholding=True, sample_max_value=1.05 ", "a part of the latent otherwise than the whole")
          for name in (DPM, DDIM)),
        (DPM, {"beta_schedule": "cubic"}, "beta_schedule=cubic ", "cannot be stepped (cubic is not"),
        (FLOW, {"use_dynamic_shifting": True}, "use_dynamic_shifting=True ", "cannot be stepped (`mu`"),
        (DDIM, ZERO_SNR, "clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing=trailing ", "not finite"),
    ],
)  # fmt: skip
def test_the_key_that_makes_the_fault_is_named(
    name: str, config: dict[str, Any], keys: str, why: str
) -> None:
    text = str(stepping_problem(name, config, 8))
    assert text.startswith(f"{name} with {keys}")
    assert why in text


def test_two_faults_are_both_named() -> None:
    text = str(stepping_problem(DPM, SDE | {"beta_schedule": "cubic", "solver_order": 1}, 8))
    assert text.startswith(f"{DPM} with algorithm_type=sde-dpmsolver++, beta_schedule=cubic ")


def test_no_random_number_is_taken_from_the_run() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    stepping_problem(DPM, SDE, 4)
    assert torch.equal(torch.random.get_rng_state(), before)
