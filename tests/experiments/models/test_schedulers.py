"""Conversions of schedulers keep what the shipped one means, or are refused by the key that would be lost."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest
import torch

from experiments.grid import model_config
from experiments.models.model import open_model
from experiments.models.scheduler import build_scheduler, choose_scheduler, choose_timesteps
from experiments.models.schedulers import converted, whole
from pipefusion.core.problem import Problem
from pipefusion.schedulers import make_scheduler

DPM, DDIM, FLOW = "DPMSolverMultistepScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"
DPM_OF_FLOWS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize(
    ("shipped", "name", "kept"),
    [
        ({"_class_name": DPM}, "ddim", {"clip_sample": False, "thresholding": False}),
        (
            {"_class_name": DPM, "trained_betas": [0.1, 0.2], "steps_offset": 1, "timestep_spacing": "trailing"},
            "ddim",
            {"trained_betas": [0.1, 0.2], "steps_offset": 1, "timestep_spacing": "trailing"},
        ),
        ({"_class_name": "DDPMScheduler", "beta_end": 0.018}, "ddim", {"clip_sample": True, "beta_end": 0.018}),
        ({"_class_name": DDIM, "clip_sample": False, "beta_schedule": "scaled_linear"}, "dpmsolver++",
         {"beta_schedule": "scaled_linear", "algorithm_type": "dpmsolver++"}),
        ({"_class_name": DPM, "solver_order": 3, "algorithm_type": "sde-dpmsolver++"}, "dpmsolver++",
         {"solver_order": 3, "algorithm_type": "dpmsolver++"}),
        ({"_class_name": DDIM, "rescale_betas_zero_snr": True}, "ddim", {"rescale_betas_zero_snr": True}),
        ({"_class_name": FLOW, "shift": 3.0}, "dpmsolver++", DPM_OF_FLOWS | {"flow_shift": 3.0}),
        ({"_class_name": FLOW, "use_dynamic_shifting": True, "base_shift": 0.3}, "dpmsolver++",
         DPM_OF_FLOWS | {"use_dynamic_shifting": True}),
        ({"_class_name": DPM, "flow_shift": 3.0} | DPM_OF_FLOWS, "flow_euler", {"shift": 3.0}),
    ],
)  # fmt: skip
def test_what_the_shipped_scheduler_means_is_kept(
    shipped: dict[str, Any], name: str, kept: dict[str, Any]
) -> None:
    found = converted(shipped, name)
    assert {key: found[key] for key in kept} == kept


@pytest.mark.parametrize(
    ("shipped", "name", "key"),
    [
        ({"_class_name": "DDPMScheduler"}, "dpmsolver++", "clip_sample=True"),
        ({"_class_name": DPM, "use_karras_sigmas": True}, "ddim", "use_karras_sigmas=True"),
        ({"_class_name": FLOW, "shift_terminal": 0.02}, "dpmsolver++", "shift_terminal=0.02"),
        ({"_class_name": FLOW, "invert_sigmas": True}, "dpmsolver++", "invert_sigmas=True"),
        ({"_class_name": FLOW, "use_beta_sigmas": True}, "dpmsolver++", "use_beta_sigmas=True"),
        ({"_class_name": DPM, "thresholding": True} | DPM_OF_FLOWS, "flow_euler", "thresholding=True"),
        ({"_class_name": "UNet2DModel"}, "ddim", "UNet2DModel is no scheduler"),
        ({"_class_name": DPM, "beta_schedule": "cubic"}, "ddim", "cannot be made: cubic is not implemented"),
    ],
)
def test_what_would_be_lost_is_refused(shipped: dict[str, Any], name: str, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        converted(shipped, name)


@pytest.mark.parametrize(
    ("name", "config"), [(DPM, {"solver_order": 3}), (DDIM, {"clip_sample": False}), (FLOW, {"shift": 2.0})]
)
def test_a_whole_configuration_makes_the_same_scheduler(name: str, config: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(whole(name, config), allow_nan=False))
    cls = getattr(diffusers, name)
    first, again = (cls.from_config(each).config for each in (config, stored))
    keys = [key for key in first if not key.startswith("_")]
    assert {key: first[key] for key in keys} == {key: again[key] for key in keys}


def test_the_shift_by_size_survives_a_conversion() -> None:
    """DPM-Solver gets the `mu` that the flow's own class gets: its sigmas are those of that shift."""
    model = open_model(model_config("flux_tiny"))
    shipped = {"_class_name": FLOW, "use_dynamic_shifting": True}
    trained = open_model(model_config("flux_tiny"))
    object.__setattr__(trained, "scheduler", shipped)
    object.__setattr__(trained, "folder", "there")
    chosen = choose_scheduler(trained, "dpmsolver++")
    assert not isinstance(chosen, Problem) and chosen[1]["use_dynamic_shifting"] is True
    own = choose_scheduler(trained, "shipped")
    assert not isinstance(own, Problem)
    given, theirs = choose_timesteps(trained, chosen, 4), choose_timesteps(trained, own, 4)
    assert given["mu"] == theirs["mu"]
    made, plain = make_scheduler(*chosen, given), build_scheduler(model, "dpmsolver++", 4)
    shift = torch.tensor(given["mu"]).exp()
    expected = shift * plain.sigmas / (1 + (shift - 1) * plain.sigmas)
    torch.testing.assert_close(made.sigmas, expected)


def test_random_models_take_any_scheduler() -> None:
    for architecture in ("pixart_tiny", "flux_tiny"):
        model = open_model(model_config(architecture))
        for name in ("shipped", "dpmsolver++", "ddim", "flow_euler"):
            assert len(build_scheduler(model, name, 3).timesteps) == 3
    assert build_scheduler(open_model(model_config("flux_tiny")), "ddim", 3).config.clip_sample is False
