"""ParaStep as a loop: one process, a latent and a scheduler for each rank of a round in lists; no messages."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from experiments.conformance.reference import combined
from experiments.conformance.request import Request
from pipefusion.core.dit import DiT, Given, KeptSkips, for_expert, run_blocks
from pipefusion.core.linear import own_attention
from pipefusion.core.sampler import experts_by_step


@torch.inference_mode()
def denoise(dit: DiT, request: Request, ranks: int) -> Tensor:
    """Rank 0's latents [B, C, H, W] after the last step, float32 on the view's device."""
    cond, times, warmup = request.cond.to(dit.device), request.scheduler.timesteps, request.warmup
    rows, prompt, text = range(dit.shape.lines), range(dit.shape.joint_tokens), dit.text(cond)
    given = Given(text, None, dit.positions(rows, prompt), dit.cross(text), prompt)
    experts = experts_by_step(dit.shape.experts, request.scheduler)

    def predict(latent: Tensor, step: int) -> Tensor:
        copies, own = torch.cat([latent] * cond.branches), for_expert(text, experts[step])
        modulation = dit.modulation(times[step].to(dit.device), own, len(copies))
        tokens = dit.embed(copies, rows, text, modulation)
        known = given._replace(modulation=modulation)
        image = run_blocks(dit, tokens, known, own_attention(dit.shape), KeptSkips(dit.shape)).image
        scale = dit.shape.scale(cond.guidance_scale, experts[step])
        return combined(dit.unembed(image, modulation, rows), cond, scale, False).float()

    latents = [request.noise.to(dit.device).float().clone()] * ranks
    schedulers = [copy.deepcopy(request.scheduler) for _ in range(ranks)]
    newest = [latents[0]] * ranks
    for step in range(request.steps):
        turn = (step - warmup) % ranks
        made = predict(latents[turn if step >= warmup else 0], step)
        for rank in range(ranks):
            if step < warmup or rank in (0, turn):
                newest[rank] = made
            stepped = schedulers[rank].step(newest[rank], times[step], latents[rank], return_dict=False)
            latents[rank] = stepped[0]
        if step >= warmup and turn == ranks - 1:
            latents = [latents[0]] * ranks
    return request.cond.completed(latents[0])
