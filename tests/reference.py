"""PipeFusion and the other methods with stale steps from their equations: for loops, one process, no fabric.

Deliberately naive and independent of the project's own code: a PixArt forward is written out from the stock model's
parameters, attention is a plain softmax, K and V live in dictionaries.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import PixArtTransformer2DModel
from torch import Tensor

Remember = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(layer, own K, own V) -> the K, V of all tokens that the own queries attend to."""


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, head by head, on [b, t, hs]."""
    outs = []
    for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = qh @ kh.transpose(1, 2) / qh.shape[-1] ** 0.5
        outs.append((scores if bias is None else scores + bias).softmax(-1) @ vh)
    return torch.cat(outs, -1)


def embed(model: PixArtTransformer2DModel, latent: Tensor, rows: list[int]) -> Tensor:
    """The image tokens [b, t, hs] of these token rows of a full latent."""
    cols = latent.shape[3] // model.config.patch_size
    return model.pos_embed(latent)[:, [r * cols + c for r in rows for c in range(cols)]]


def run_layers(
    model: PixArtTransformer2DModel,
    layers: range,
    x: Tensor,
    time: Tensor,
    text: Tensor,
    mask: Tensor,
    remember: Remember,
) -> Tensor:
    """Tokens x behind these layers; self-attention sees what `remember` gives."""
    heads, b = model.config.num_attention_heads, x.shape[0]
    six = model.adaln_single(time.expand(b), None, batch_size=b, hidden_dtype=x.dtype)[0]
    y = model.caption_projection(text)
    bias = (1 - mask[:, None]) * -10000.0
    for layer in layers:
        block = model.transformer_blocks[layer]
        shift1, scale1, gate1, shift2, scale2, gate2 = (block.scale_shift_table + six.view(b, 6, -1)).split(
            1, dim=1
        )
        a, c = block.attn1, block.attn2
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1
        k, v = remember(layer, a.to_k(h), a.to_v(h))
        x = x + gate1 * a.to_out[0](attention(a.to_q(h), k, v, heads))
        x = x + c.to_out[0](attention(c.to_q(x), c.to_k(y), c.to_v(y), heads, bias))
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2
        x = x + gate2 * block.ff(h)
    return x


def unembed(model: PixArtTransformer2DModel, x: Tensor, time: Tensor, cols: int) -> Tensor:
    """The prediction [b, C, h, W] of token rows of so many columns."""
    ps, b = model.config.patch_size, x.shape[0]
    embedded = model.adaln_single(time.expand(b), None, batch_size=b, hidden_dtype=x.dtype)[1]
    shift, scale = (model.scale_shift_table + embedded[:, None]).split(1, dim=1)
    x = model.proj_out(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
    rows = x.shape[1] // cols
    picture = torch.zeros(b, model.out_channels, rows * ps, cols * ps)
    for i in range(rows):
        for j in range(cols):
            token = x[:, i * cols + j].view(b, ps, ps, -1).permute(0, 3, 1, 2)
            picture[:, :, i * ps : (i + 1) * ps, j * ps : (j + 1) * ps] = token
    return picture


def guide(prediction: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, the unconditional branch first; none at a scale of 1."""
    if guidance <= 1:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + guidance * (positive - negative)


def asyncdiff(
    model: PixArtTransformer2DModel,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    guidance: float,
    sizes: list[int],
    warmup: int,
    stride: int,
    time_shift: bool,
) -> Tensor:
    """Component k at step t works on what component k - 1 made in the step before; `sizes`: layers of each."""
    cols = noise.shape[3] // model.config.patch_size
    rows, latent, times = [*range(noise.shape[2] // model.config.patch_size)], noise, scheduler.timesteps
    outputs: dict[tuple[int, int], Tensor] = {}  # (step, component)
    computed: list[int] = []
    for t in range(len(times)):
        if t < warmup or (t - warmup) % stride == 0:
            for k in range(len(sizes)):
                layers, source = range(sum(sizes[:k]), sum(sizes[: k + 1])), t
                if k and t >= warmup:
                    source = computed[-1]
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


def rotational(
    model: PixArtTransformer2DModel,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    guidance: float,
    patches: list[list[int]],
    sizes: list[int],
    warmup: int,
    order: int,
) -> Tensor:
    """Stage d takes patch (i - d) mod M as the i-th of a step; of its first it has what `order` differences forecast.

    All stages compute at once: what is made at place i is read at later ones. `sizes`: layers of each stage.
    """
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
                mine = [*range(count)] if synchronous else [(i - d) % count]
                rows = [row for m in mine for row in patches[m]]
                tokens = slice(rows[0] * cols, (rows[-1] + 1) * cols)
                if d == 0:
                    x = embed(model, torch.cat([latent] * (len(text) // len(noise))), rows)
                elif not synchronous:
                    x = forecast(t, d, mine[0]) if i == 0 else given[t, d, mine[0]]

                def remember(layer: int, k: Tensor, v: Tensor, tokens: slice = tokens) -> tuple[Tensor, ...]:
                    whole_k, whole_v = kept.setdefault(layer, (k.clone(), v.clone()))
                    whole_k[:, tokens], whole_v[:, tokens] = k, v
                    return whole_k, whole_v

                x = run_layers(model, layers, x, time, text, mask, remember)
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


def parastep(
    model: PixArtTransformer2DModel,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    guidance: float,
    ranks: int,
    warmup: int,
) -> Tensor:
    """One rank after another through each round: what it knows is its own noise, rank 0 knows that of all."""
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


def quantize(x: Tensor, bits: int) -> Tensor:
    """Each number of x [b, t, hs] as the nearest of 2^bits levels at equal distances around zero, channel by channel.

    The distance is 2, 1.25 or 0.42 times the mean magnitude of the channel's numbers.
    """
    distance = {1: 2.0, 2: 1.25, 4: 0.42}[bits] * x.abs().mean(1, keepdim=True)
    levels = [distance * (number - (2**bits - 1) / 2) for number in range(2**bits)]
    nearest = torch.stack([(x - level).abs() for level in levels]).argmin(0)
    return sum((nearest == number) * level for number, level in enumerate(levels))


def banded(
    model: PixArtTransformer2DModel,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    guidance: float,
    patches: list[list[int]],
    warmup: int,
    synced: Container[int] = (),
    bits: int | None = None,
    this_step: bool = False,
) -> Tensor:
    """DistriFusion layer by layer: a patch sees the others of the step before, in `synced` layers of this one.

    With `bits` others have, behind the warm-up, what their base and quantized residuals make of K, V: those of
    `this_step` in a ring.
    """
    cols, latent = noise.shape[3] // model.config.patch_size, noise
    bases: dict[int, list[list[Tensor]]] = {}  # by layer: K, V of each patch as the others have them

    def rebuilt(base: list[Tensor], kv: list[Tensor]) -> list[Tensor]:
        return [old + quantize(x - old, bits) for old, x in zip(base, kv, strict=True)] if bits else kv

    for step, time in enumerate(scheduler.timesteps):
        whole, given = torch.cat([latent] * (len(text) // len(noise))), (time, text, mask)
        xs = [embed(model, whole, rows) for rows in patches]
        for layer in range(len(model.transformer_blocks)):
            own: list[list[Tensor]] = []

            def write(_: int, k: Tensor, v: Tensor, own: list = own) -> tuple[Tensor, Tensor]:
                own.append([k, v])
                return k, v

            for x in xs:
                run_layers(model, range(layer, layer + 1), x, *given, write)
            fresh = step < warmup or layer in synced
            after = own if fresh else [rebuilt(*pair) for pair in zip(bases[layer], own, strict=True)]
            others = after if fresh or this_step else bases[layer]
            bases[layer] = after
            for m, x in enumerate(xs):
                parts = [own[m] if other == m else others[other] for other in range(len(patches))]
                seen = tuple(torch.cat(each, dim=1) for each in zip(*parts, strict=True))
                xs[m] = run_layers(model, range(layer, layer + 1), x, *given, lambda *_, seen=seen: seen)
        prediction = torch.cat([guide(unembed(model, x, time, cols), guidance) for x in xs], dim=2)
        latent = scheduler.step(prediction, time, latent, return_dict=False)[0]
    return latent


def denoise(
    model: PixArtTransformer2DModel,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    guidance: float,
    patches: list[list[int]],
    warmup: int,
    sees: str,
    rows_seen: list[list[int]] | None = None,
    backwards: bool = False,
) -> Tensor:
    """`sees`: what stale K, V a patch attends to after the warm-up; `rows_seen`: of which rows, patch by patch.

    "pipefusion": patches before it of this step, patches after it of the step before (one buffer, written in turn).
    "distrifusion": every other patch of the step before. "naive": every other patch of the last warm-up step.
    """
    layers, ps = len(model.transformer_blocks), model.config.patch_size
    cols, branches = noise.shape[3] // ps, 2 if guidance > 1 else 1
    all_rows = [r for patch in patches for r in patch]
    b, hs = noise.shape[0] * branches, model.inner_dim
    zeros = torch.zeros(b, len(all_rows) * cols, hs)
    kept = {layer: (zeros.clone(), zeros.clone()) for layer in range(layers)}
    steppers = [copy.deepcopy(scheduler) for _ in patches]
    latent = noise.clone()

    def guided(rows: list[int], time: Tensor, remember: Remember) -> Tensor:
        x = embed(model, torch.cat([latent] * branches), rows)
        x = run_layers(model, range(layers), x, time, text, mask, remember)
        return guide(unembed(model, x, time, cols), guidance)

    for step, time in enumerate(scheduler.timesteps):
        synchronous = step < warmup
        before = {layer: (k.clone(), v.clone()) for layer, (k, v) in kept.items()}
        new = latent.clone()
        whole = {}
        if synchronous:

            def all_fresh(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
                kept[layer] = (k.clone(), v.clone())
                return k, v

            whole["prediction"] = guided(all_rows, time, all_fresh)
        order = [*enumerate(patches)]
        for m, rows in reversed(order) if backwards and not synchronous else order:
            tokens = slice(rows[0] * cols, (rows[-1] + 1) * cols)
            pixels = slice(rows[0] * ps, (rows[-1] + 1) * ps)

            source = kept if sees == "pipefusion" else before
            seen = [r * cols + c for r in (rows_seen[m] if rows_seen else all_rows) for c in range(cols)]

            def mixed(
                layer: int,
                k: Tensor,
                v: Tensor,
                tokens: slice = tokens,
                source: dict = source,
                seen: list[int] = seen,
            ) -> tuple[Tensor, Tensor]:
                old_k, old_v = (t.clone() for t in source[layer])
                old_k[:, tokens], old_v[:, tokens] = k, v
                if sees != "naive":
                    kept[layer][0][:, tokens], kept[layer][1][:, tokens] = k, v
                return old_k[:, seen], old_v[:, seen]

            out = whole["prediction"][:, :, pixels] if synchronous else guided(rows, time, mixed)
            new[:, :, pixels] = steppers[m].step(out, time, latent[:, :, pixels], return_dict=False)[0]
        latent = new
    return latent
