"""Bytes that each mesh axis sends, and that are held for it: closed forms for one rank.

Symbols: p image tokens, hs hidden size, b this rank's images times guidance branches, n ranks on an axis, S steps, W
warm-up steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal

from pipefusion.core import closed_forms as forms
from pipefusion.core.cache import Rule, decided
from pipefusion.core.change import DECISION, SHARED_BY, SUMS
from pipefusion.core.layout import Job
from pipefusion.core.ledger import wire_bytes
from pipefusion.core.mesh import Axis
from pipefusion.core.residuals import message_bytes
from pipefusion.core.sizes import Sizes

Buffer = Literal["none", "stale", "rotating", "displaced"]
"""The K, V that a method keeps from step to step, as the functions of `core/kv.py` and `core/displaced.py` do."""

Traffic = tuple[int, int, int]
"""Bytes sent, bytes received, bytes of buffers for it."""


def held_kv(size: Sizes, buffer: Buffer) -> tuple[int, int]:
    """K, V of this rank's layers, and the prompt's place in front of them: 2 * tokens * h * d * layers * b elements.

    Of linear attention the states of all patches.
    h = ceil(heads/(U T)) of head size d: hs/(U T) elements a token, unless heads are padded.
    """
    layers, inner = len(size.layout.layers), size.inner
    if buffer == "none":
        return 0, 0
    if size.shape.linear:
        return len(size.layout.units) * size.state * layers, 0
    if buffer == "rotating" and size.parallel.ring > 1:
        return 2 * size.layout.tokens * size.parallel.ulysses * inner * layers, 0
    places = 0 if buffer == "displaced" else sum(map(size.shape.prefix, size.layout.layers))
    return 2 * size.shape.tokens * inner * layers, 2 * places * inner


def cross_kv(size: Sizes, whole_cross: bool) -> int:
    """K, V of the prompt for the cross-attentions of this rank's layers: 2 * tokens * hs/T * layers * b."""
    token = size.hidden // (1 if whole_cross else size.parallel.tensor)
    tokens = size.shape.cross * size.shape.text_tokens * size.shape.transformers
    return 2 * tokens * token * len(size.layout.layers)


def step(size: Sizes, jobs: Sequence[Job], warmup: int, place: Axis) -> Traffic:
    """A prediction to rank 0 in every step but the first of a round; its latent behind every round but the last."""
    if place.size == 1:
        return 0, 0, 0
    late, own, prediction = jobs[-1].driven.stop - warmup, len(jobs) - warmup, size.prediction(jobs[0])
    latents = max(ceil(late / place.size) - 1, 0) * size.latent
    if place.index:
        return own * prediction, latents, 0
    others = place.size - 1
    return wire_bytes("broadcast", latents, place.size), (late - own) * prediction, others * prediction


def pipe(size: Sizes, jobs: Sequence[Job], first_patch: bool, compress: str) -> Traffic:
    """Hidden states of every job to the next stage, new latents from the last to the first, long skips straight on.

    With `compress` residuals of them behind the synchronous steps, the prompt's apart.
    """
    layout, shape = size.layout, size.shape

    def message(job: Job, stage: int) -> int:
        along = forms.takes_text(layout.stages, stage) and not (first_patch and job.patches.start)
        return stage_message(size, job, len(layout.prompt) if along else 0, compress)

    read = [job for job in jobs if job.read]
    # The first to read a message reads all of it.
    arrived = {job.origin: job for job in reversed(jobs)}.values()
    latents = sum(job.tokens for job in jobs) // layout.tokens * size.latent
    mine, place = layout.layers, layout.tokens * size.hidden
    given = sum(giver in mine and taker not in mine for giver, taker in shape.skips)
    taken = sum(taker in mine and giver not in mine for giver, taker in shape.skips)
    sent = received = room = 0
    if len(layout.stages) > 1:
        here, following = layout.stage, layout.stage + 1
        sent = latents if layout.last else sum(message(job, following) for job in read)
        received = latents if layout.first else sum(message(job, here) for job in arrived)
        room = 0 if layout.first else 2 * max(message(job, here) for job in jobs)
    gives, takes = (sum(job.tokens for job in each) * size.hidden for each in (read, arrived))
    return sent + given * gives, received + taken * takes, room + taken * place


def stage_message(size: Sizes, job: Job, prompt: int, compress: str) -> int:
    """Bytes from stage to stage for a job: hidden states of its tokens and of so many of a prompt."""
    if compress == "none" or job.sync:
        return (job.tokens + prompt) * size.hidden
    parts = [(size.batch, tokens, size.shape.hidden) for tokens in (prompt, job.tokens) if tokens]
    return sum(message_bytes(compress, part, size.shape.itemsize) for part in parts)


def stage_bases(size: Sizes, jobs: Sequence[Job], first_patch: bool, compress: str) -> int:
    """The hidden states of all patches that the next stage has, and those that came here from the one before."""
    layout = size.layout
    patches = {job.patches.start: job.tokens for job in jobs if not job.sync}
    if compress == "none" or not patches:
        return 0
    image, texts = sum(patches.values()) * size.hidden, (1 if first_patch else len(patches)) * size.prompt
    ends = [layout.stage] * (not layout.first) + [layout.stage + 1] * (not layout.last)
    return sum(image + forms.takes_text(layout.stages, stage) * texts for stage in ends)


def forecasts(size: Sizes, jobs: Sequence[Job], forecast: int | None) -> int:
    """Differences of the one patch of which a stage has to forecast the input: one more than are used."""
    layout, late = size.layout, [job for job in jobs if job.late]
    if forecast is None or layout.first or not late:
        return 0
    prompt = size.prompt if forms.takes_text(layout.stages, layout.stage) else 0
    return (forecast + 1) * (late[0].tokens * size.hidden + prompt)


def cfg(size: Sizes, jobs: Sequence[Job]) -> Traffic:
    """One prediction of every job, among the ranks that unembed."""
    if size.parallel.cfg == 1 or not size.layout.last:
        return 0, 0, 0
    sent = sum(map(size.prediction, jobs))
    return sent, sent, 2 * max(map(size.prediction, jobs))


def patch(size: Sizes, gathers: int, steps: int, synced: int) -> Traffic:
    """Table 1: 2 O(p hs) L per step; the K, V of the other bands are received into the buffer itself.

    Of linear attention the state of the band, whatever p.
    """
    block = size.state if size.shape.linear else 2 * size.layout.band_tokens * size.inner
    times = gathers * (len(size.layout.layers) - synced) + steps * synced
    sent = times * (size.parallel.patch - 1) * block
    return sent, sent, 0


def ring(size: Sizes, jobs: Sequence[Job], buffer: Buffer) -> Traffic:
    """Table 1: 2 O(p hs) L per step for the fresh K, V, passed on or gathered; `rotating` passes whole buffers on.

    Linear attention adds up the sums of each patch; edges are gathered, those of the Ulysses neighbours among them.
    """
    n, layers = size.parallel.ring, len(size.layout.layers)
    if n == 1:
        return 0, 0, 0
    if size.shape.linear:
        sent, room = gathered_edges(size, jobs, size.parallel.ulysses, n)
        sent += layers * sum(wire_bytes("all_reduce", len(job.patches) * size.sums, n) for job in jobs)
        return sent, sent, room
    lane = (
        2 * size.parallel.ulysses * size.inner
    )  # K, V of one of this rank's tokens and its Ulysses neighbours'
    if buffer == "rotating":
        whole = size.layout.tokens * lane
        sent = len(jobs) * layers * (n - 1) * whole
        return sent, sent, 2 * whole
    sent = sum(job.tokens for job in jobs) * layers * (n - 1) * lane
    room = max(job.tokens for job in jobs) * lane * (n if buffer != "none" else 2)
    return sent, sent, room


def gathered_edges(size: Sizes, jobs: Sequence[Job], brought: int, n: int) -> tuple[int, int]:
    """Bytes sent where n ranks gather the edges of so many shares of every patch each, and of room for them."""
    shares = [len(job.patches) * brought for job in jobs]
    sent = wire_bytes("all_gather", sum(shares) * size.edges, n) * len(size.layout.layers)
    return sent, max(shares) * n * size.edges


def ulysses(size: Sizes, jobs: Sequence[Job], qkv: str) -> Traffic:
    """Table 1: 4/n O(p hs) L per step for Q, K, V and the result; in every job of an MM-DiT the prompt's beside them.

    A rank brings ceil(T/n) of its T tokens, the last ones filled up with zeros. Room: a message there, and one back.
    """
    n, layers = size.parallel.ulysses, len(size.layout.layers)
    if n == 1:
        return 0, 0, 0
    share = ceil(size.shape.joint_tokens / n)
    prompts = sum(min(size.shape.prefix(layer), share) for layer in size.layout.layers)
    tokens = sum(layers * job.tokens + prompts for job in jobs)
    rows, rows_room = gathered_edges(size, jobs, 1, n)
    sent = wire_bytes("all_to_all", 4 * tokens * n * size.inner, n) + rows
    room = (4 if qkv == "packed" else 2) * (max(job.tokens for job in jobs) + share) * n * size.inner
    return sent, sent, room + rows_room


def tensor(size: Sizes, jobs: Sequence[Job], whole_cross: bool) -> Traffic:
    """Two all-reduces per attention and MLP pair: 2(n-1)/n * p * hs elements each per step, the prompt's beside them.

    Table 1's 4 O(p hs) L counts one attention and one MLP per block; a split cross-attention makes it 6 O(p hs) L.
    Norms over all heads sum one float32 a token besides.
    """
    n, shape = size.parallel.tensor, size.shape
    blocks = [shape.blocks[layer] for layer in size.layout.layers]
    images = sum(block.image_reduces - (whole_cross and block.cross_params > 0) for block in blocks)
    texts = sum(
        shape.blocks[layer].text_reduces
        * wire_bytes("all_reduce", shape.own_prefix(layer, size.layout.prompt) * size.hidden, n)
        for layer in size.layout.layers
    )
    crosses = 0 if whole_cross else sum(block.wide_cross for block in blocks)
    norms, square = sum(block.wide_norms for block in blocks) + crosses, 4 * size.batch
    sent = shape.transformers * crosses * wire_bytes("all_reduce", shape.text_tokens * square, n) + sum(
        images * wire_bytes("all_reduce", job.tokens * size.hidden, n)
        + norms * wire_bytes("all_reduce", job.tokens * square, n)
        + texts
        for job in jobs
    )
    return sent, sent, 0


def step_cache(
    size: Sizes, jobs: Sequence[Job], rule: Rule, exact: bool
) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Of a step cache: bytes sent and received by axis, of buffers for them, and of what is kept.

    The first stage sums two numbers over the ranks that share a job, and each stage sends the decision to the next. All
    keep what their blocks have added to their tokens, p * hs * b elements, and the first one its signal besides.
    """
    layout, steps = size.layout, jobs[-1].driven.stop
    decisions = sum(decided(job, steps, exact) for job in jobs)
    found, room, whole = {}, 2 * DECISION.itemsize, layout.tokens * size.hidden
    blocks = len(layout.layers) - (layout.first and rule.name == "fbcache")
    receives = 0 if layout.first else DECISION.itemsize
    sends = 0 if layout.last else DECISION.itemsize
    found["pipe"] = decisions * sends, decisions * receives
    if layout.first:
        room = 2 * SUMS.itemsize
        for axis in SHARED_BY:
            sent = decisions * wire_bytes("all_reduce", room, getattr(size.parallel, axis))
            found[axis] = sent, sent
    return found, room, whole * ((blocks > 0) + layout.first)


def gather(size: Sizes) -> list[tuple[str, int, int]]:
    """The final latents, on the ranks of the first stage: (axis, bytes sent, bytes of the buffer), innermost first."""
    found: list[tuple[str, int, int]] = []
    held = size.latent
    if not size.layout.first:
        return found
    for axis in ("ulysses", "ring", "patch", "data"):
        n = getattr(size.parallel, axis)
        if n > 1:
            found.append((axis, wire_bytes("all_gather", held, n), n * held))
            held *= n
    return found
