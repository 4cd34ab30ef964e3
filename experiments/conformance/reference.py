"""PipeFusion as a loop: one process, all layers, buffers in a list; no stages, no messages, none of the pipeline.

A `Deviation` makes it wrong in one of the ways that engines are known to get it wrong. Some of these are what another
displaced method is right to do, which is how runs of those are replayed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.conformance.request import NONE, Deviation, Request, See
from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.convolution import Convolve
from pipefusion.core.dit import DiT, Given, KeptSkips, Tokens, for_expert
from pipefusion.core.layout import prompt_shares
from pipefusion.core.linear import kernel
from pipefusion.core.residuals import Codec
from pipefusion.core.sampler import experts_by_step
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows


class Buffers:
    """K and V of the image tokens: a tensor [2, b, p, heads, head_dim] a layer, zeros at the start.

    Behind these what convolutions read of them, [1, b, p, 1, C] a layer.
    """

    def __init__(self, dit: DiT, request: Request, deviation: Deviation):
        shape = dit.shape
        size = 2, len(request.noise) * request.cond.branches, shape.tokens, shape.heads, shape.head_dim
        self.shape, self.deviation, self.attends = shape, deviation, request.attends
        self.synced, self.compress = request.synced, request.compress
        self.written: set[tuple[int, int]] = set()
        self.starts = [shape.band_tokens(band).start for band in request.bands]
        sizes = [size] * shape.layers + [(1, size[1], size[2], 1, shape.convolved)] * shape.layers
        self.layers = [torch.zeros(each, dtype=dit.dtype, device=dit.device) for each in sizes]
        self.before = self.layers

    def begin_step(self) -> None:
        """Remember the buffers as they are, for who sees nothing newer during a step."""
        self.written.clear()
        if self.deviation.kv == "displaced":
            self.before = [layer.clone() for layer in self.layers]

    def attend_for(self, rows: range, patch: int) -> Attend:
        """What the self-attentions of one job do; patch -1 is the whole image."""
        shape, band = self.shape, self.shape.band_tokens(rows)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            prompt, image = torch.stack([k, v]).tensor_split([prefix], dim=2)
            seen = self.refresh(layer, image, band, patch)
            if self.attends is not None and patch >= 0:
                parts = [seen[:, :, shape.band_tokens(range(row, row + 1))] for row in self.attends[patch]]
                seen = torch.cat(parts, dim=2)
            return kernel(shape)(q, *torch.cat([prompt, seen], dim=2))

        return attend

    def convolve_for(self, lines: range, patch: int) -> Convolve:
        """What the convolutions of one job do: that of all rows, of which it keeps its own."""
        shape, band = self.shape, self.shape.band_tokens(lines)

        def convolve(layer: int, conv: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
            own = rows.flatten(2).transpose(1, 2)[None, :, :, None]  # [1, b, t, 1, C]
            seen = self.refresh(shape.layers + layer, own, band, patch)[0, :, :, 0]
            whole = conv(seen.transpose(1, 2).unflatten(2, (-1, shape.token_cols)))  # [b, C, rows, cols]
            start = lines.start if whole.shape[2] == shape.token_rows else 0
            return whole[:, :, start : start + len(lines)]

        return convolve

    def refresh(self, layer: int, image: Tensor, band: slice, patch: int) -> Tensor:
        """Store a job's K, V [2, b, t, heads, head_dim]; what its queries see of the image [2, b, p or t, ...]."""
        stored, kv = self.layers[layer], self.deviation.kv
        if patch < 0:
            return stored.copy_(image)
        if self.deviation.references == "kept":
            columns = torch.arange(image.shape[2], device=image.device) % self.shape.grid.width
            own = (columns < self.shape.token_cols)[:, None, None]
            image = torch.where(own, image, stored[:, :, band])
        if kv == "rebuilt":
            if (layer, patch) not in self.written:
                self.written.add((layer, patch))
                stored[:, :, band] = self.rebuilt(stored[:, :, band], image)
            others = stored.clone()
            others[:, :, band] = image
            return others
        if layer % self.shape.layers in self.synced:
            stored[:, :, band] = image
            return stored
        if kv == "alone":
            return image
        shown = {"late": stored, "frozen": stored, "displaced": self.before[layer]}.get(kv)
        seen = None if shown is None else shown.clone()
        if seen is not None and kv != "late":
            seen[:, :, band] = image
        if kv != "frozen":
            place = self.place(band, patch)
            stored[:, :, place] = self.rebuilt(stored[:, :, place], image)
        if self.deviation.guidance == "swapped_kv":
            seen = stored.roll(stored.shape[1] // 2, dims=1)
            seen[:, :, band] = image
        return stored if seen is None else seen

    def rebuilt(self, base: Tensor, image: Tensor) -> Tensor:
        """K, V [2, b, t, heads, head_dim] as whoever holds this base gets them."""
        if self.compress == "none":
            return image
        return base + through(self.compress, (image - base).transpose(2, 3)).transpose(2, 3)

    def place(self, band: slice, patch: int) -> Tensor:
        """The tokens that a patch's K, V overwrite."""
        other = {"next": 1, "previous": -1}.get(self.deviation.kv, 0)
        start = self.starts[(patch + other) % len(self.starts)]
        return (torch.arange(band.stop - band.start) + start).to(self.layers[0].device) % self.shape.tokens


class Steppers:
    """A scheduler a patch, each with the history of its own patch."""

    def __init__(self, request: Request, history: str):
        self.fresh, self.history = request.scheduler, history
        self.copies = [copy.deepcopy(request.scheduler) for _ in request.bands]

    def step(self, patch: int, step: int, prediction: Tensor, latent: Tensor) -> Tensor:
        """The latent [B, C, h, W] of a patch after step number `step`, float32."""
        scheduler = self.copies[patch]
        if self.history != "own":
            scheduler = self.copies[0] if self.history == "shared" else copy.deepcopy(self.fresh)
            scheduler._step_index = step  # it would otherwise count the patches, or start from the beginning
        return scheduler.step(prediction.float(), self.fresh.timesteps[step], latent, return_dict=False)[0]


@torch.inference_mode()
def denoise(dit: DiT, request: Request, deviation: Deviation = NONE, see: See | None = None) -> Tensor:
    """The latents after each step [S, B, C, H, W], float32 on the view's device."""
    moved = replace(request, noise=request.noise.to(dit.device), cond=request.cond.to(dit.device))
    if deviation.patches != "asked":
        moved = replace(moved, bands=split_rows(dit.shape.lines, deviation.count(request)))
    buffers = Buffers(dit, moved, deviation)
    if deviation.kept_buffers:
        one_image(dit, moved, deviation, buffers, None)
    return one_image(dit, moved, deviation, buffers, see)


def one_image(dit: DiT, request: Request, deviation: Deviation, buffers: Buffers, see: See | None) -> Tensor:
    """All steps: the whole image in the first W of them, then patch by patch."""
    cond, shape, grid, bands = request.cond, dit.shape, dit.shape.grid, request.bands
    warmup, steppers = deviation.warmup(request), Steppers(request, deviation.history)
    stream, prompt = TextStream(request, deviation), range(shape.joint_tokens)
    sent = SentStates(request, shape, deviation.feedback)
    experts = experts_by_step(shape.experts, request.scheduler)
    latent, after = request.noise.float().clone(), []
    for step, timestep in enumerate(request.scheduler.timesteps):
        lost = deviation.guidance == "lost" and step >= warmup
        scale = 1.0 if lost else shape.scale(cond.guidance_scale, experts[step])
        text = dit.text(cond if cond.guided else replace(cond, guidance_scale=scale))
        text = for_expert(text, experts[step])
        cross = dit.cross(text)
        modulation = dit.modulation(timestep.to(dit.device), text, len(latent) * cond.branches)
        buffers.begin_step()
        jobs = []
        for patches in [range(len(bands))] if step < warmup else [range(m, m + 1) for m in range(len(bands))]:
            rows = range(bands[patches.start].start, bands[patches.stop - 1].stop)
            part = grid.take_latent(latent, rows)
            tokens = dit.embed(torch.cat([part] * cond.branches), rows, text, modulation)
            patch = -1 if step < warmup else patches.start
            attend, convolve = buffers.attend_for(rows, patch), buffers.convolve_for(rows, patch)
            given = Given(text, modulation, dit.positions(rows, prompt), cross, prompt, convolve)
            jobs.append(Job(patches, rows, tokens, given, attend, KeptSkips(shape)))
        if deviation.backwards:
            jobs.reverse()
        for layers in request.stretches(shape.layers):
            first = (jobs if layers.start in request.synced else []) * (2 if shape.convolved else 1)
            for job in first:  # K, V of all, before any patch attends, and then the rows that it convolves
                dit.block(layers.start, job.tokens, job.given, job.attend, job.skips.take(layers.start))
            for job in jobs:
                for layer in layers:
                    tokens = sent.enter(layer, job.patches, job.tokens, step < warmup)
                    tokens = stream.enter(layer, job.patches.start, tokens)
                    job.tokens = dit.block(layer, tokens, job.given, job.attend, job.skips.take(layer))
                    job.skips.put(layer, job.tokens.image)
                    if see is not None:
                        see(step, -1 if step < warmup else job.patches.start, layer, job.tokens.image)
        for job in jobs:
            job.tokens = sent.enter(shape.layers, job.patches, job.tokens, step < warmup)
            prediction = dit.unembed(job.tokens.image, modulation, job.rows)
            guided = combined(prediction, cond, scale, deviation.guidance == "swapped")
            parts = grid.split_latent(guided, bands[job.patches.start : job.patches.stop])
            for m, mine in zip(job.patches, parts, strict=True):
                own = grid.take_latent(latent, bands[m])  # a view of it
                own.copy_(steppers.step(m, step, mine, own))
        after.append(cond.completed(latent).clone())
    return torch.stack(after)


@dataclass
class Job:
    """A step on some patches: what its layers are given, and how far its tokens are."""

    patches: range
    rows: range
    tokens: Tokens
    given: Given
    attend: Attend
    skips: KeptSkips


def combined(prediction: Tensor, cond: Conditioning, scale: float, swapped: bool) -> Tensor:
    """Classifier-free guidance: [branches*B, ...] -> [B, ...], unconditional branch first."""
    if not cond.guided:
        return prediction
    negative, positive = reversed(prediction.chunk(2)) if swapped else prediction.chunk(2)
    return negative + scale * (positive - negative)


class TextStream:
    """With "first_patch", every stage but the first starts all patches of a step with patch 0's prompt tokens."""

    def __init__(self, request: Request, deviation: Deviation):
        first_patch = (request.text == "first_patch") != deviation.other_text
        self.entries = {stage.start for stage in request.stages[1:] if stage} if first_patch else set()
        self.kept: dict[int, Tensor | None] = {}

    def enter(self, layer: int, patch: int, tokens: Tokens) -> Tokens:
        """The tokens as they enter a layer in the job of this patch (0 for the whole image)."""
        if layer not in self.entries:
            return tokens
        if patch == 0:
            self.kept[layer] = tokens.text
        return Tokens(tokens.image, self.kept[layer])


class SentStates:
    """With `sent`, the hidden states that all stages but the first have of each share: residuals added up.

    Without `feedback` a residual is what the hidden states themselves changed by.
    """

    def __init__(self, request: Request, shape: DiTShape, feedback: bool):
        self.request, self.shape, self.feedback = request, shape, feedback
        self.entries = [] if request.sent == "none" else [*enumerate(request.stages)][1:]
        self.texts = [
            slice(share.start, share.stop) for share in prompt_shares(shape, request.ulysses) if share
        ]
        self.kept: dict[tuple[int, int], list[Tensor]] = {}  # by stage and patch
        self.bases = self.kept if feedback else {}

    def enter(self, layer: int, patches: range, tokens: Tokens, synchronous: bool) -> Tokens:
        """The tokens of a job as they come to the stages that begin with a layer, one of which may have layers."""
        for stage, layers in self.entries:
            if layers.start == layer:
                tokens = self.rebuilt(stage, patches, tokens, synchronous)
        return tokens

    def rebuilt(self, stage: int, patches: range, tokens: Tokens, synchronous: bool) -> Tokens:
        """The tokens as one stage gets them: as they are from a synchronous step, which starts all patches anew."""
        request, shape, first = self.request, self.shape, self.request.bands[patches.start].start
        texts = [] if tokens.text is None else [tokens.text[:, share] for share in self.texts]
        for m in patches:
            rows = [
                range(part.start - first, part.stop - first)
                for part in split_rows(request.bands[m], request.lanes)
            ]
            made = shares = texts + [tokens.image[:, shape.band_tokens(part)] for part in rows]
            if not synchronous:
                known = zip(self.kept[stage, m], self.bases[stage, m], made, strict=True)
                shares = [had + through(request.sent, new - base) for had, base, new in known]
            self.bases[stage, m] = made
            self.kept[stage, m] = shares
        if synchronous:
            return tokens
        text = torch.cat(shares[: len(texts)], dim=1) if texts else tokens.text
        return Tokens(torch.cat(shares[len(texts) :], dim=1), text)


def through(how: str, x: Tensor) -> Tensor:
    """What comes of x [..., t, d] through a codec."""
    codec = Codec(how, tuple(x.shape), x.dtype)
    return codec.decode(codec.encode(x))
