"""Rotational PipeFusion as a loop: one process, all stages in turn at each place of a step; no messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import comb, factorial

import torch
from torch import Tensor

from experiments.conformance.reference import Buffers, Steppers, combined
from experiments.conformance.request import NONE, Deviation, Request, See
from pipefusion.core.dit import DiT, Given, Tokens, for_expert
from pipefusion.core.sampler import experts_by_step

Inputs = Sequence[Tokens]
"""What a stage was given for one patch, step by step."""


@torch.inference_mode()
def denoise(dit: DiT, request: Request, deviation: Deviation = NONE, see: See | None = None) -> Tensor:
    """The latents after each step [S, B, C, H, W], float32 on the view's device."""
    request = replace(request, noise=request.noise.to(dit.device), cond=request.cond.to(dit.device))
    cond, shape, bands, stages = request.cond, dit.shape, request.bands, request.stages
    buffers, steppers = Buffers(dit, request, NONE), Steppers(request, "own")
    experts = experts_by_step(shape.experts, request.scheduler)
    whole_text, prompt, count = dit.text(cond), range(shape.joint_tokens), len(bands)
    latent, every, warmup = request.noise.float().clone(), [], deviation.warmup(request)
    order = 0 if deviation.forecast == "last" else request.differences or 0
    newest = None if deviation.forecast != "late" else -1
    inputs: dict[tuple[int, int], list[Tokens]] = defaultdict(list)  # by stage and patch

    def embed(rows: range) -> Tokens:
        part = shape.grid.take_latent(latent, rows)
        return dit.embed(torch.cat([part] * cond.branches), rows, text, modulation)

    def compute(stage: int, rows: range, patch: int, tokens: Tokens) -> Tokens:
        convolve = buffers.convolve_for(rows, patch)
        given = Given(text, modulation, dit.positions(rows, prompt), cross, prompt, convolve)
        for layer in stages[stage]:
            tokens = dit.block(layer, tokens, given, buffers.attend_for(rows, patch), None)
            if see is not None:
                see(step, patch, layer, tokens.image)
        return tokens

    def finish(rows: range, patches: range, tokens: Tokens) -> None:
        prediction = combined(dit.unembed(tokens.image, modulation, rows), cond, scale, False)
        parts = shape.grid.split_latent(prediction, [bands[m] for m in patches])
        for m, part in zip(patches, parts, strict=True):
            own = shape.grid.take_latent(after, bands[m])  # a view of it
            own.copy_(steppers.step(m, step, part, own))

    for step, timestep in enumerate(request.scheduler.timesteps):
        text, scale = for_expert(whole_text, experts[step]), shape.scale(cond.guidance_scale, experts[step])
        cross = dit.cross(text)
        modulation = dit.modulation(timestep.to(dit.device), text, len(latent) * cond.branches)
        after = latent.clone()
        if step < warmup or count == 1:
            rows = range(bands[0].start, bands[-1].stop)
            tokens = embed(rows)
            for stage in range(len(stages)):
                for m, band in enumerate(bands):
                    inputs[stage, m].append(Tokens(tokens.image[:, shape.band_tokens(band)], tokens.text))
                tokens = compute(stage, rows, -1, tokens)
            finish(rows, range(count), tokens)
        else:
            for place in range(count):
                for stage in reversed(range(len(stages))):  # nothing made at this place is read at it
                    m = (place - stage - deviation.turned) % count
                    if stage == 0:
                        tokens = embed(bands[m])
                    else:
                        known = inputs[stage, m]
                        tokens = known[-1] if place else ahead(known[:newest] or known, order)
                    tokens = compute(stage, bands[m], m, tokens)
                    if stage + 1 < len(stages):
                        inputs[stage + 1, m].append(tokens)
                    else:
                        finish(bands[m], range(m, m + 1), tokens)
        latent = after
        every.append(cond.completed(latent).clone())
    return torch.stack(every)


def ahead(inputs: Inputs, order: int) -> Tokens:
    """The input that follows: the sum over i of the i-th backward difference over i!, as far as there are inputs."""
    weights = [0.0] * len(inputs)  # the newest first
    for i in range(min(order + 1, len(inputs))):
        for j in range(i + 1):
            weights[j] += (-1) ** j * comb(i, j) / factorial(i)

    def summed(parts: list[Tensor]) -> Tensor:
        weighted = [weight * part for weight, part in zip(weights, reversed(parts), strict=True)]
        return torch.stack(weighted).sum(0)

    texts = [each.text for each in inputs if each.text is not None]
    return Tokens(summed([each.image for each in inputs]), summed(texts) if texts else None)
