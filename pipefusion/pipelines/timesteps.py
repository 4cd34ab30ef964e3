"""How a family's pipeline sets the timesteps of its scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipefusion.deferred import diffusers

PASS_SIGMAS = (
    "FluxTransformer2DModel",
    "Flux2Transformer2DModel",
    "QwenImageTransformer2DModel",
    "ZImageTransformer2DModel",
    "HunyuanVideoTransformer3DModel",
    "HunyuanVideo15Transformer3DModel",
    "LTXVideoTransformer3DModel",
    "LTX2VideoTransformer3DModel",
)


def timestep_arguments(
    transformer_class: str, scheduler_config: Mapping[str, Any], image_tokens: int, steps: int
) -> dict[str, Any]:
    """What the pipeline of a transformer gives to `set_timesteps` of its scheduler, in numbers that JSON can hold.

    Those of `SAY_SIGMAS` say the sigmas themselves; they and SD3 shift them by `mu`, which grows with the picture, if
    the scheduler asks for it. `scheduler_config` is a scheduler_config.json, `_class_name` included.
    """
    scheduler = getattr(diffusers, scheduler_config["_class_name"]).from_config(scheduler_config)
    config = scheduler.config  # with the defaults of its class
    arguments: dict[str, Any] = {"num_inference_steps": steps}
    takes = inspect.signature(scheduler.set_timesteps).parameters
    if transformer_class in PASS_SIGMAS and "sigmas" in takes and not config.get("use_flow_sigmas", False):
        arguments = {"sigmas": np.linspace(1.0, 1 / steps, steps).tolist()}
    if "mu" in takes and config.get("use_dynamic_shifting", False):
        arguments |= shift(transformer_class, config, image_tokens, steps)
    return arguments


def shift(
    transformer_class: str, config: Mapping[str, Any], image_tokens: int, steps: int
) -> dict[str, float]:
    """`mu` as the pipeline computes it; nothing where its pipeline knows none."""
    if transformer_class == "Flux2Transformer2DModel":
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return {"mu": compute_empirical_mu(image_tokens, steps)}
    if transformer_class in PASS_SIGMAS:
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        most = 1.15
    elif transformer_class == "SD3Transformer2DModel":
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

        most = 1.16
    else:
        return {}
    length = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    bounds = config.get("base_shift", 0.5), config.get("max_shift", most)
    return {"mu": calculate_shift(image_tokens, *length, *bounds)}
