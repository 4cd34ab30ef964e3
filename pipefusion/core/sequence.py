"""The tokens of a job shared by several ranks: Ulysses (heads for tokens), a gather, and ring attention.

Each function takes the attention that goes inside it and returns the one outside. On an axis of one rank it returns
what it was given. Tensors are [batch, tokens, heads, head_dim]; the first `prefix` tokens are an MM-DiT's prompt:
outside of Ulysses a rank's share of it, inside, and for ring ranks, all T of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.core.attention import Attend, full, merge, with_logsumexp
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.linear import own_attention, summed
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.states import fresh


def plain(run: Run) -> AttendFor:
    """Attention of a job to its own tokens."""
    if run.shape.linear:
        return lambda job: own_attention(run.shape)

    def attend_for(job: Job) -> Attend:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            return full(q, k, v, run.mask(prefix, k.shape[1], job.entries))

        return attend

    return attend_for


def head_groups(x: Tensor, n: int, h: int, filling: int) -> Tensor:
    """The heads of each of n ranks, [b, t, H, d] -> [n, filling + t, b, h, d]; zeros in front and as last heads."""
    padding = (0, 0, 0, n * h - x.shape[2], filling, 0)
    if any(padding):
        x = F.pad(x, padding)
    return x.unflatten(2, (n, h)).permute(2, 1, 0, 3, 4)


def ulysses(run: Run, inner: AttendFor, qkv: str = "packed") -> AttendFor:
    """DeepSpeed-Ulysses: inside, a rank has 1/n of the heads for the tokens of all n ranks, in the order of the ranks.

    Two all-to-alls per layer: Q, K, V in one call, then the output; four where `qkv` is separate. Tokens come before
    the batch on the wire, an MM-DiT's prompt in front of the image. Inside, the whole prompt comes first, and a head's
    tokens lie together. Heads that n does not divide are filled up with zeros, which are cut off again behind
    attention; so are the prompts of the last ranks, in front, in place of which they receive tokens of others.
    """
    fabric, n = run.fabric, run.fabric.axis("ulysses").size
    if n == 1:
        return inner
    b, h, d = run.batch, run.inner_heads, run.shape.head_dim
    share = ceil(run.shape.joint_tokens / n)
    packed = qkv == "packed"
    there = run.scratch("comm", n * (share + run.most_tokens), 3 if packed else 1, b, h, d)
    back = run.scratch("comm", n * (share + run.most_tokens), b, h, d)

    def attend_for(job: Job) -> Attend:
        t, attend_inside = job.tokens, inner(job)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            at, prompt = job.where(layer), run.shape.prefix(layer)
            each = min(prompt, share)
            ends = [min((rank + 1) * each, prompt) for rank in range(n)]  # of the ranks' prompts
            own = [max(end - rank * each, 0) for rank, end in enumerate(ends)]  # tokens of the prompt

            def exchange(*ours: Tensor) -> Tensor:
                """Own heads for the tokens of all ranks in one call, [x, b, T + n t, h, d] of x tensors."""
                sent = torch.stack([head_groups(x, n, h, each - prefix) for x in ours], 2)
                arrived = there.view(*sent.shape)  # [n, T/n + t, x, b, h, d]
                fabric.all_to_all(arrived, sent, axis="ulysses", at=at)
                del sent
                prompts = [part[each - size : each] for part, size in zip(arrived, own, strict=True)]
                tokens = [part.permute(1, 2, 3, 0, 4) for part in [*prompts, *arrived[:, each:]]]
                return torch.cat(tokens, dim=3).transpose(2, 3)

            inner_q, inner_k, inner_v = exchange(q, k, v) if packed else [exchange(x)[0] for x in (q, k, v)]
            out = attend_inside(layer, inner_q, inner_k, inner_v, prompt).movedim(1, 0)
            shares = [out[end - each : end] for end in ends]
            pairs = zip(shares, out[prompt:].split(t), strict=True)
            sent = torch.cat([part for pair in pairs for part in pair]).unflatten(0, (n, each + t))
            arrived = back.view(*sent.shape)  # [n, T/n + t, b, h, d]
            fabric.all_to_all(arrived, sent, axis="ulysses", at=at)
            merged = arrived[:, each - prefix :].permute(2, 1, 0, 3, 4)  # the heads of all ranks side by side
            # [b, T/n + t, H, d] in one memory order: what follows costs the same with any degree
            return merged.flatten(2, 3)[:, :, : run.heads].contiguous()

        return attend

    return attend_for


def gathered(run: Run, inner: AttendFor) -> AttendFor:
    """Fresh K, V of all ring ranks for the queries of this one: inside, k and v are those of the whole job."""
    fabric, n = run.fabric, run.fabric.axis("ring").size
    if n == 1:
        return inner
    size = (run.batch, run.fabric.axis("ulysses").size * run.most_tokens, run.inner_heads, run.shape.head_dim)
    memory = run.scratch("comm", n, 2, *size)

    def attend_for(job: Job) -> Attend:
        attend_inside = inner(job)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, h, d]
            arrived = memory.view(n, *mine.shape)
            fabric.all_gather(arrived, mine, axis="ring", at=job.where(layer))
            k, v = (
                torch.cat([*([x[:, :prefix]] if prefix else []), *arrived[:, i]], dim=1)
                for i, x in enumerate((k, v))
            )
            return attend_inside(layer, q, k, v, prefix)

        return attend

    return attend_for


def ring(run: Run) -> AttendFor:
    """Ring attention over the fresh K, V of a job: a kernel, with nothing inside it. Linear attention adds up sums."""
    n = run.fabric.axis("ring").size
    if n == 1:
        return plain(run)
    if run.shape.linear:
        return summed(run, fresh)
    size = (run.batch, run.inner_heads, run.fabric.axis("ulysses").size * run.most_tokens, run.shape.head_dim)
    spare = [run.scratch("comm", 2, *size) for _ in range(2)]

    def attend_for(job: Job) -> Attend:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            mine = torch.stack([x[:, prefix:].transpose(1, 2) for x in (k, v)])  # [2, b, h, t, d]
            places = [memory.view(*mine.shape) for memory in spare]
            return round_the_ring(run, job, layer, q, k, v, mine, places, prefix)

        return attend

    return attend_for


def round_the_ring(
    run: Run,
    job: Job,
    layer: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mine: Tensor,
    spare: list[Tensor],
    prefix: int,
    opened: Callable[[int, Tensor], Tensor] = lambda origin, message: message,
) -> Tensor:
    """Attention of q to k, v and to what the other ring ranks have as `mine` [2, b, h, t, d] (K, then V) of a layer.

    The first `prefix` tokens of k, v are the prompt's. n - 1 hops, each under the attention to the block before it;
    partial results are merged by online softmax. `opened(origin, message)` makes the block of a rank from its message.
    """
    fabric, place, current, at = run.fabric, run.fabric.axis("ring"), mine, job.where(layer)
    n = place.size
    after, before = (place.index + 1) % n, (place.index - 1) % n
    block_k, block_v, mask = k, v, run.mask(prefix, k.shape[1], job.entries)
    parts: list[tuple[Tensor, Tensor]] = []
    for hop in range(n):
        works: list[Work] = []
        if hop < n - 1:
            works.append(fabric.irecv(spare[hop % 2], before, axis="ring", at=at))
            works.append(fabric.isend(current, after, axis="ring", at=at))
        if hop:
            block_k, block_v = opened((place.index - hop) % n, current).transpose(2, 3)
        parts.append(with_logsumexp(q, block_k, block_v, None if hop else mask))
        if hop:
            parts = [merge(*parts[0], *parts[1])]
        for work in works:
            work.wait()
        if works:
            current = spare[hop % 2]
    return parts[0][0].to(q.dtype)
