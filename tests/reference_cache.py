"""Step caches from their equations: for loops, one process, no fabric; on serial, PipeFusion and DistriFusion."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from tests.reference import Task, embed, guide, run_layers, unembed


def modulated(model: PixArtTransformer2DModel, x: Tensor, time: Tensor) -> Tensor:
    """The input of the first block's self-attention."""
    six = model.adaln_single(time.expand(len(x)), None, batch_size=len(x), hidden_dtype=x.dtype)[0]
    table = model.transformer_blocks[0].scale_shift_table + six.view(len(x), 6, -1)
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + table[:, 1:2]) + table[:, 0:1]


def cached(
    task: Task, patches: list[list[int]], warmup: int, rule: str, threshold: float, displaced: bool = False
) -> tuple[Tensor, dict[tuple[int, int], bool]]:
    """Latents, and by (step, patch) whether the blocks were computed; patch -1 where all are decided on at once.

    PipeFusion decides on each patch alone. `displaced`: DistriFusion, whose patches are decided on together and see of
    others the K, V that each layer computed before this step.
    """
    model, scheduler, noise, text, mask, guidance = task
    layers, ps, times = range(len(model.transformer_blocks)), model.config.patch_size, scheduler.timesteps
    cols, branches = noise.shape[3] // ps, 2 if guidance > 1 else 1
    everything, together = [row for patch in patches for row in patch], [*range(len(patches))]
    size = (len(noise) * branches, len(everything) * cols, model.inner_dim)
    kept = [[torch.zeros(size), torch.zeros(size)] for _ in layers]
    known, added, grown = torch.zeros(size), torch.zeros(size), [0.0] * len(patches)
    steppers, latent, computed = [copy.deepcopy(scheduler) for _ in patches], noise.clone(), {}
    first = 1 if rule == "fbcache" else 0

    for step, time in enumerate(times):
        before = [[x.clone() for x in kv] for kv in kept]
        predictions: dict[int, Tensor] = {}  # by row
        alone = not displaced and step >= warmup and len(patches) > 1
        for job in [[m] for m in together] if alone else [together]:
            apart = alone or (displaced and step >= warmup)
            pieces = [patches[m] for m in job] if apart else [everything]
            own = [slice(rows[0] * cols, (rows[-1] + 1) * cols) for rows in pieces]

            def run(
                x: Tensor, which: range, place: slice, before: Any = before, time: Tensor = time
            ) -> Tensor:
                def remember(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
                    seen = [x.clone() for x in (before if displaced else kept)[layer]]
                    for each in (seen, kept[layer]):
                        each[0][:, place], each[1][:, place] = k, v
                    return seen[0], seen[1]

                return run_layers(model, which, x, time, text, mask, remember)

            xs = [embed(model, torch.cat([latent] * branches), rows) for rows in pieces]
            heads = [run(x, layers[:first], place) for x, place in zip(xs, own, strict=True)]
            parts = [h - x if first else modulated(model, x, time) for h, x in zip(heads, xs, strict=True)]
            signal, old = torch.cat(parts, 1), torch.cat([known[:, place] for place in own], 1)
            skip = False
            if max(warmup, 1) <= step < len(times) - 1:
                change = float((signal - old).abs().mean() / old.abs().mean())
                for m in job:
                    grown[m] = change if first else grown[m] + change
                skip = all(grown[m] < threshold for m in job)
            computed[step, job[0] if alone else -1] = not skip
            for h, part, place, rows in zip(heads, parts, own, pieces, strict=True):
                y = h + added[:, place] if skip else run(h, layers[first:], place)
                added[:, place] = y - h
                if rule == "teacache" or not skip:
                    known[:, place] = part
                out = guide(unembed(model, y, time, cols), guidance)
                predictions |= zip(rows, out.split(ps, dim=2), strict=True)
            for m in job:
                grown[m] *= skip
        for m, rows in enumerate(patches):
            out = torch.cat([predictions[row] for row in rows], 2)
            pixels = slice(rows[0] * ps, (rows[-1] + 1) * ps)
            latent[:, :, pixels] = steppers[m].step(out, time, latent[:, :, pixels], return_dict=False)[0]
    return latent, computed
