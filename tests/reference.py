"""PipeFusion and the other methods with stale steps from their equations: for loops, one process, no fabric.

Deliberately naive and independent of the project's own code: a PixArt forward is written out from the stock model's
parameters, attention is a plain softmax, K and V live in dictionaries.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import PixArtTransformer2DModel
from torch import Tensor

Remember = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(layer, own K, own V) -> the K, V of all tokens that the own queries attend to."""


class Task(NamedTuple):
    """What every loop starts from: the stock model and its scheduler, noise [B, C, H, W], prompts and their mask."""

    model: PixArtTransformer2DModel
    scheduler: Any
    noise: Tensor
    text: Tensor
    mask: Tensor
    guidance: float


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


def quantize(x: Tensor, bits: int) -> Tensor:
    """Each number of x [b, t, hs] as the nearest of 2^bits levels at equal distances around zero, channel by channel.

    The distance is 2, 1.25 or 0.42 times the mean magnitude of the channel's numbers.
    """
    distance = {1: 2.0, 2: 1.25, 4: 0.42}[bits] * x.abs().mean(1, keepdim=True)
    levels = [distance * (number - (2**bits - 1) / 2) for number in range(2**bits)]
    nearest = torch.stack([(x - level).abs() for level in levels]).argmin(0)
    return sum((nearest == number) * level for number, level in enumerate(levels))


def banded(
    task: Task,
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
    model, scheduler, noise, text, mask, guidance = task
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
    task: Task,
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
    model, scheduler, noise, text, mask, guidance = task
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
