"""AsyncDiff as a loop: one process, all layers, the outputs of earlier steps in a list; no messages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from experiments.conformance.reference import combined
from experiments.conformance.request import NONE, Deviation, Request, See
from pipefusion.core.dit import DiT, Given, Tokens, for_expert
from pipefusion.core.linear import own_attention
from pipefusion.core.sampler import experts_by_step


class Made(NamedTuple):
    """What a forward made: the tokens behind each stage, and the image's [b, p, hs] behind each layer."""

    stages: list[Tokens]
    images: dict[int, Tensor]


@torch.inference_mode()
def denoise(dit: DiT, request: Request, deviation: Deviation = NONE, see: See | None = None) -> Tensor:
    """The latents after each step [S, B, C, H, W], float32 on the view's device."""
    cond, times, warmup = request.cond.to(dit.device), request.scheduler.timesteps, deviation.warmup(request)
    latent, scheduler = request.noise.to(dit.device).float().clone(), copy.deepcopy(request.scheduler)
    rows, prompt, text = range(dit.shape.lines), range(dit.shape.joint_tokens), dit.text(cond)
    batch, time_shift = len(latent) * cond.branches, request.time_shift != deviation.other_time
    given = Given(text, None, dit.positions(rows, prompt), dit.cross(text), prompt)
    experts = experts_by_step(dit.shape.experts, scheduler)
    computed: list[tuple[int, Made]] = []  # the step, and what it made
    prediction, after = latent, []
    for step in range(request.steps):
        late = step >= warmup
        if not late or (step - warmup) % (request.stride or 1) == 0:
            made = Made([], {})
            age = 2 if deviation.old and len(computed) > 1 else 1
            source, before = computed[-age] if computed else (step, made)
            for stage, layers in enumerate(request.stages):
                read = before if late else made
                moment = source if late and time_shift and stage else step
                own = for_expert(text, experts[moment])
                modulation = dit.modulation(times[moment].to(dit.device), own, batch)
                tokens = (
                    read.stages[stage - 1]
                    if stage
                    else dit.embed(torch.cat([latent] * cond.branches), rows, text, modulation)
                )
                known = given._replace(modulation=modulation)
                made.stages.append(run_stage(dit, layers, tokens, known, read.images, made.images))
            if see is not None:
                for layer, image in made.images.items():
                    see(step, -1, layer, image)
            predicted = dit.unembed(made.stages[-1].image, modulation, rows)
            scale = dit.shape.scale(cond.guidance_scale, experts[moment])
            prediction = combined(predicted, cond, scale, False).float()
            computed.append((step, made))
        latent = scheduler.step(prediction, times[step], latent, return_dict=False)[0]
        after.append(cond.completed(latent).clone())
    return torch.stack(after)


def run_stage(
    dit: DiT,
    layers: range,
    tokens: Tokens,
    given: Given,
    read: Mapping[int, Tensor],
    made: dict[int, Tensor],
) -> Tokens:
    """The tokens behind a stage, of the whole image: in its layers nothing is stale.

    Long skips start in `read`, or within the stage; `made` gets its layers' outputs.
    """
    attend = own_attention(dit.shape)
    for layer in layers:
        giver = next((giver for giver, taker in dit.shape.skips if taker == layer), None)
        skip = None if giver is None else (made if giver in layers else read)[giver]
        tokens = dit.block(layer, tokens, given, attend, skip)
        made[layer] = tokens.image
    return tokens
