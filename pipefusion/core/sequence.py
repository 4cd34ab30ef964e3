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
    """The heads of each of n ranks, [b, t, H, d] -> [n, b, t, h, d]; behind the last of H there are zeros."""
    padding = n * h - x.shape[2]
    if padding:
        x = F.pad(x, (0, 0, 0, padding))
    return x.unflatten(2, (n, h)).movedim(2, 0)


def ulysses(run: Run, inner: AttendFor) -> AttendFor:
    """DeepSpeed-Ulysses: inside, a rank has 1/n of the heads for the tokens of all n ranks, in the order of the ranks.

    Two all-to-alls per layer (Q, K, V in one call, then the output); an MM-DiT's prompt comes back by an all-gather.
    Heads that n does not divide are padded with zeros, whose output is cut off again.
    """
    fabric, place = run.fabric, run.fabric.axis("ulysses")
    n = place.size
    if n == 1:
        return inner
    b, h, d = run.batch, run.inner_heads, run.shape.head_dim
    text = run.shape.joint_tokens
    sent = run.scratch("comm", n, 3, b, run.most_tokens, h, d)
    back = run.scratch("comm", n, b, run.most_tokens, h, d)
    prompt = run.scratch("comm", n, b, text, h, d)

    def merged(groups: Tensor) -> Tensor:
        """The heads of all ranks in one, [n, b, t, h, d] -> [b, t, H, d]."""
        return groups.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, : run.heads]

    def attend_for(job: Job) -> Attend:
        t, attend_inside = job.tokens, inner(job)
        arrived, returned = sent.view(n, 3, b, t, h, d), back.view(n, b, t, h, d)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            at = job.where(layer)
            groups = [head_groups(x, n, h) for x in (q, k, v)]  # [n, b, T + t, h, d] each
            mine = torch.stack([x[:, :, prefix:] for x in groups], dim=1)
            fabric.all_to_all(arrived, mine, axis="ulysses", at=at)  # [n, 3, b, t, h, d]
            whole = [
                torch.cat([x[place.index, :, :prefix], *arrived[:, i]], dim=1) for i, x in enumerate(groups)
            ]  # [b, T + n t, h, d] each
            del groups  # copies, where heads are padded
            out = attend_inside(layer, whole[0], whole[1], whole[2], prefix)
            # Always a copy, whatever order of memory the kernel leaves: peaks are predicted to the byte.
            bands = torch.stack(out[:, prefix:].split(t, dim=1))  # [n, b, t, h, d]
            fabric.all_to_all(returned, bands, axis="ulysses", at=at)
            if not prefix:
                return merged(returned)  # [b, t, H, d]
            texts = prompt.view(n, b, prefix, h, d)
            fabric.all_gather(texts, torch.cat([out[:, :prefix]]), axis="ulysses", at=at)
            return merged(torch.cat([texts, returned], dim=2))  # [b, T + t, H, d]

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
