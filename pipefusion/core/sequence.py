"""The tokens of a job shared by several ranks: Ulysses (heads for tokens), a gather, and ring attention.

Each function takes the attention that goes inside it and returns the one outside. On an axis of one rank it returns
what it was given. Tensors are [batch, tokens, heads, head_dim]; the first `prefix` tokens are an MM-DiT's prompt,
which every rank has whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.core.attention import Attend, full, merge, with_logsumexp
from pipefusion.core.fabric import Work
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.run import AttendFor, Run


def plain(run: Run) -> AttendFor:
    """Attention of a job to its own tokens."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
        return full(q, k, v, run.mask(prefix, k.shape[1]))

    return lambda job: attend


def head_groups(x: Tensor, n: int, h: int) -> Tensor:
    """The heads of each of n ranks, [b, t, H, d] -> [n, t, b, h, d]; behind the last of H there are zeros."""
    padding = n * h - x.shape[2]
    if padding:
        x = F.pad(x, (0, 0, 0, padding))
    return x.unflatten(2, (n, h)).permute(2, 1, 0, 3, 4)


def merged(groups: Tensor) -> Tensor:
    """The heads of all ranks side by side, [n, t, b, h, d] -> [b, t, n, h, d], without a copy."""
    return groups.permute(2, 1, 0, 3, 4)


def ulysses(run: Run, inner: AttendFor) -> AttendFor:
    """DeepSpeed-Ulysses: inside, a rank has 1/n of the heads for the tokens of all n ranks, in the order of the ranks.

    Two all-to-alls per layer (Q, K, V in one call, then the output); an MM-DiT's prompt comes back by an all-gather.
    Tokens come before the batch on the wire, and Q, K, V of a token lie together. What arrives behind the prompt is
    thus one sequence already, and what attention makes of it can be sent as it is: one copy on either side. Heads that
    n does not divide are padded with zeros, whose output is cut off again.
    """
    fabric, place = run.fabric, run.fabric.axis("ulysses")
    n = place.size
    if n == 1:
        return inner
    b, h, d = run.batch, run.inner_heads, run.shape.head_dim
    text = run.shape.joint_tokens
    inside = run.scratch("comm", text + n * run.most_tokens, 3, b, h, d)
    back = run.scratch("comm", n, run.most_tokens, b, h, d)
    prompt = run.scratch("comm", n, text, b, h, d)

    def attend_for(job: Job) -> Attend:
        t, attend_inside = job.tokens, inner(job)
        returned = back.view(n, t, b, h, d)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            at, qkv = job.where(layer), (q, k, v)
            whole = inside.view(prefix + n * t, 3, b, h, d)
            for i, x in enumerate(qkv if prefix else ()):
                whole[:prefix, i].copy_(head_groups(x[:, :prefix], n, h)[place.index])
            mine = torch.stack([head_groups(x[:, prefix:], n, h) for x in qkv], dim=2)  # [n, t, 3, b, h, d]
            fabric.all_to_all(whole[prefix:].unflatten(0, (n, t)), mine, axis="ulysses", at=at)
            del mine
            inner_q, inner_k, inner_v = whole.movedim(2, 0).unbind(2)  # [b, T + n t, h, d] each
            out = attend_inside(layer, inner_q, inner_k, inner_v, prefix)
            out = out.movedim(1, 0).contiguous()  # a copy only where the kernel leaves another order
            fabric.all_to_all(returned, out[prefix:].unflatten(0, (n, t)), axis="ulysses", at=at)
            if not prefix:
                return merged(returned).flatten(2, 3)[:, :, : run.heads]  # [b, t, H, d]
            texts = prompt.view(n, prefix, b, h, d)
            fabric.all_gather(texts, out[:prefix], axis="ulysses", at=at)
            both = torch.cat([merged(texts), merged(returned)], dim=1)
            return both.flatten(2, 3)[:, :, : run.heads]  # [b, T + t, H, d]

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
    """Ring attention over the fresh K, V of a job: a kernel, with nothing inside it."""
    n = run.fabric.axis("ring").size
    if n == 1:
        return plain(run)
    size = (run.batch, run.fabric.axis("ulysses").size * run.most_tokens, run.inner_heads, run.shape.head_dim)
    spare = [run.scratch("comm", 2, *size) for _ in range(2)]

    def attend_for(job: Job) -> Attend:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            mine = torch.stack([k[:, prefix:], v[:, prefix:]])  # [2, b, t, h, d]
            places = [memory.view(*mine.shape) for memory in spare]
            return round_the_ring(run, job.where(layer), q, k, v, mine, places, prefix)

        return attend

    return attend_for


def round_the_ring(
    run: Run, at: Where, q: Tensor, k: Tensor, v: Tensor, mine: Tensor, spare: list[Tensor], prefix: int
) -> Tensor:
    """Attention of q to k, v and to what the other ring ranks have as `mine` [2, b, t, h, d] (K, then V).

    The first `prefix` tokens of k, v are the prompt's. n - 1 hops, each under the attention to the block before it;
    partial results are merged by online softmax.
    """
    fabric, place, current = run.fabric, run.fabric.axis("ring"), mine
    n = place.size
    after, before = (place.index + 1) % n, (place.index - 1) % n
    block_k, block_v, mask = k, v, run.mask(prefix, k.shape[1])
    parts: list[tuple[Tensor, Tensor]] = []
    for hop in range(n):
        works: list[Work] = []
        if hop < n - 1:
            works.append(fabric.irecv(spare[hop % 2], before, axis="ring", at=at))
            works.append(fabric.isend(current, after, axis="ring", at=at))
        parts.append(with_logsumexp(q, block_k, block_v, None if hop else mask))
        if hop:
            parts = [merge(*parts[0], *parts[1])]
        for work in works:
            work.wait()
        if works:
            current = spare[hop % 2]
            block_k, block_v = current[0], current[1]
    return parts[0][0].to(q.dtype)
