"""Sampling with a stock model, as its diffusers pipeline does it, for replays and tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.models.stock_calls import CALLS, Prompt, Size, with_first_frame


def predict(model: Any, latent: Tensor, time: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """The prediction of a stock model without the variance that some learn beside it; float prompts in its dtype."""
    dtype = next(model.parameters()).dtype
    cast = {name: t.to(dtype) if t.is_floating_point() else t for name, t in prompt.items()}
    call = CALLS[type(model).__name__]
    return call(model, latent.to(dtype), time.expand(len(latent)), cast, scale, size)[:, : latent.shape[1]]


def denoise(
    model: Any,
    scheduler: Any,
    latents: Tensor,
    prompt: Prompt,
    negative: Prompt | None,
    scale: float,
    size: Size,
    second: tuple[Any, float, float] | None = None,
) -> Tensor:
    """Latents [B, C, H, W] float32 after the scheduler's last timestep; guided if there is a `negative` prompt.

    `second`: the model below a noise level (`boundary_ratio` of the pipeline), that level, and its guidance scale.
    """
    both = prompt
    if negative is not None:  # which edits the same pictures
        both = {name: torch.cat([negative.get(name, tensor), tensor]) for name, tensor in prompt.items()}
    for timestep in scheduler.timesteps:
        if second is not None and timestep < second[1] * scheduler.config.num_train_timesteps:
            model, _, scale = second
        whole = latents if negative is None else torch.cat([latents] * 2)
        prediction = predict(model, whole, timestep.to(latents.device), both, scale, size)
        if negative is not None:
            against, towards = prediction.chunk(2)
            prediction = against + scale * (towards - against)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False)[0]
    return with_first_frame(latents, prompt["first_frame"]) if "first_frame" in prompt else latents
