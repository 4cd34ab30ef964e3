"""Methods that differ in who computes what and when, written from their equations: loops in one process.

AsyncDiff, PipeFusion with compressed messages and in rotational order, ParaStep, all on a PixArt; what a layer does is
in `tests/reference.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from tests.reference import Task, embed, guide, run_layers, unembed


def written(kept: dict[int, tuple[Tensor, Tensor]], tokens: slice) -> Callable[..., tuple[Tensor, Tensor]]:
    """An attention's K, V: its own at the place of these tokens, beside what is kept of the layer."""

    def remember(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        whole_k, whole_v = kept.setdefault(layer, (k.clone(), v.clone()))
        whole_k[:, tokens], whole_v[:, tokens] = k, v
        return whole_k, whole_v

    return remember


def asyncdiff(
    task: Task, sizes: list[int], warmup: int, stride: int, time_shift: bool, age: int = 1
) -> Tensor:
    """Component k at step t works on what component k - 1 made `age` computed steps before; `sizes`: layers of each."""
    model, scheduler, noise, text, mask, guidance = task
    cols = noise.shape[3] // model.config.patch_size
    rows, latent, times = [*range(noise.shape[2] // model.config.patch_size)], noise, scheduler.timesteps
    outputs: dict[tuple[int, int], Tensor] = {}  # (step, component)
    computed: list[int] = []
    for t in range(len(times)):
        if t < warmup or (t - warmup) % stride == 0:
            for k in range(len(sizes)):
                layers, source = range(sum(sizes[:k]), sum(sizes[: k + 1])), t
                if k and t >= warmup:
                    source = computed[-min(age, len(computed))]
                time = times[source if time_shift else t]
                x = (
                    outputs[source, k - 1]
                    if k
                    else embed(model, torch.cat([latent] * (len(text) // len(noise))), rows)
                )
                outputs[t, k] = run_layers(model, layers, x, time, text, mask, lambda layer, k, v: (k, v))
            computed.append(t)
            prediction = guide(unembed(model, outputs[t, len(sizes) - 1], time, cols), guidance)
        latent = scheduler.step(prediction, times[t], latent, return_dict=False)[0]
    return latent


def low_rank(x: Tensor, rank: int = 4) -> Tensor:
    """x [b, t, hs] nearly, as a product of two factors: two rounds of subspace iteration from the first channels."""
    left = x[..., :rank]
    for _ in range(2):
        right = torch.linalg.qr(x.transpose(1, 2) @ torch.linalg.qr(left).Q).Q
        left = x @ right
    return left @ right.transpose(1, 2)


def compressed(
    task: Task, patches: list[list[int]], sizes: list[int], warmup: int, feedback: bool = True
) -> Tensor:
    """PipeFusion whose stages know a patch's input from what it was before and residuals of rank four.

    Without `feedback` a residual is what the hidden states themselves changed by. `sizes`: layers of each stage.
    """
    model, scheduler, noise, text, mask, guidance = task
    ps, cols = model.config.patch_size, noise.shape[3] // model.config.patch_size
    kept: dict[int, tuple[Tensor, Tensor]] = {}  # by layer: K, V of the whole image
    had: dict[tuple[int, int], Tensor] = {}  # what stage d has of patch m
    true: dict[tuple[int, int], Tensor] = {}  # what was made for it
    steppers, latent = [copy.deepcopy(scheduler) for _ in patches], noise.clone()
    for t, time in enumerate(scheduler.timesteps):
        new = latent.clone()
        for mine in [range(len(patches))] if t < warmup else [[m] for m in range(len(patches))]:
            rows = [row for m in mine for row in patches[m]]
            spans = [
                slice((patches[m][0] - rows[0]) * cols, (patches[m][-1] + 1 - rows[0]) * cols) for m in mine
            ]
            tokens = slice(rows[0] * cols, (rows[-1] + 1) * cols)

            x = embed(model, torch.cat([latent] * (len(text) // len(noise))), rows)
            for d in range(len(sizes)):
                if d:
                    for m, span in zip(mine, spans, strict=True):
                        part = x[:, span]
                        if t < warmup:
                            had[d, m] = part
                        else:
                            base = had[d, m] if feedback else true[d, m]
                            had[d, m] = had[d, m] + low_rank(part - base)
                        true[d, m] = part
                    x = torch.cat([had[d, m] for m in mine], dim=1)
                layers = range(sum(sizes[:d]), sum(sizes[: d + 1]))
                x = run_layers(model, layers, x, time, text, mask, written(kept, tokens))
            out = guide(unembed(model, x, time, cols), guidance)
            for m in mine:
                start = (patches[m][0] - rows[0]) * ps
                pixels = slice(patches[m][0] * ps, (patches[m][-1] + 1) * ps)
                part = out[:, :, start : start + len(patches[m]) * ps]
                stepped = steppers[m].step(part, time, latent[:, :, pixels], return_dict=False)
                new[:, :, pixels] = stepped[0]
        latent = new
    return latent


def rotational(
    task: Task, patches: list[list[int]], sizes: list[int], warmup: int, order: int, turned: int = 0
) -> Tensor:
    """Stage d takes patch (i - d) mod M as the i-th of a step; of its first it has what `order` differences forecast.

    All stages compute at once: what is made at place i is read at later ones. `sizes`: layers of each stage.
    """
    model, scheduler, noise, text, mask, guidance = task
    ps, count, cols = model.config.patch_size, len(patches), noise.shape[3] // model.config.patch_size
    stages = [range(sum(sizes[:d]), sum(sizes[: d + 1])) for d in range(len(sizes))]
    kept: dict[int, tuple[Tensor, Tensor]] = {}  # by layer: K, V of the whole image
    given: dict[tuple[int, int, int], Tensor] = {}  # what stage d has for patch m in step t: [t, d, m]
    steppers, latent = [copy.deepcopy(scheduler) for _ in patches], noise.clone()

    def forecast(t: int, d: int, m: int) -> Tensor:
        before = [given[s, d, m] for s in reversed(range(t))]  # the newest first
        guess, factor, differences = before[0], 1, before
        for i in range(1, min(order, t - 1) + 1):
            differences = [new - old for new, old in pairwise(differences)]
            factor *= i
            guess = guess + differences[0] / factor
        return guess

    for t, time in enumerate(scheduler.timesteps):
        synchronous, new, x = t < warmup, latent.clone(), latent
        for i in range(1 if synchronous else count):
            made: dict[tuple[int, int, int], Tensor] = {}
            for d, layers in enumerate(stages):
                mine = [*range(count)] if synchronous else [(i - d - turned) % count]
                rows = [row for m in mine for row in patches[m]]
                tokens = slice(rows[0] * cols, (rows[-1] + 1) * cols)
                if d == 0:
                    x = embed(model, torch.cat([latent] * (len(text) // len(noise))), rows)
                elif not synchronous:
                    x = forecast(t, d, mine[0]) if i == 0 else given[t, d, mine[0]]

                x = run_layers(model, layers, x, time, text, mask, written(kept, tokens))
                for m in mine:
                    start = (patches[m][0] - rows[0]) * cols
                    made[t, d + 1, m] = part = x[:, start : start + len(patches[m]) * cols]
                    if d == len(stages) - 1:
                        out = guide(unembed(model, part, time, cols), guidance)
                        pixels = slice(patches[m][0] * ps, (patches[m][-1] + 1) * ps)
                        before = latent[:, :, pixels]
                        new[:, :, pixels] = steppers[m].step(out, time, before, return_dict=False)[0]
            given |= made
        latent = new
    return latent


def parastep(task: Task, ranks: int, warmup: int) -> Tensor:
    """One rank after another through each round: what it knows is its own noise, rank 0 knows that of all."""
    model, scheduler, noise, text, mask, guidance = task
    cols, times = noise.shape[3] // model.config.patch_size, scheduler.timesteps
    rows, layers = [*range(noise.shape[2] // model.config.patch_size)], range(len(model.transformer_blocks))

    def predict(latent: Tensor, t: int) -> Tensor:
        x = embed(model, torch.cat([latent] * (len(text) // len(noise))), rows)
        x = run_layers(model, layers, x, times[t], text, mask, lambda layer, k, v: (k, v))
        return guide(unembed(model, x, times[t], cols), guidance)

    latent = noise
    own = [copy.deepcopy(scheduler) for _ in range(ranks)]
    for t in range(warmup):
        known = [predict(latent, t)] * ranks
        stepped = [one.step(known[0], times[t], latent, return_dict=False)[0] for one in own]
        latent = stepped[0]
    for start in range(warmup, len(times), ranks):
        steps = range(start, min(start + ranks, len(times)))
        true = {}
        for r in reversed(range(ranks)):  # rank 0 last, with the noises of all
            mine = latent
            for t in steps:
                if t == start + r:
                    known[r] = true[t] = predict(mine, t)
                used = true[t] if r == 0 else known[r]
                mine = own[r].step(used, times[t], mine, return_dict=False)[0]
        latent = mine
    return latent
