"""What changed since the last message, compressed (CompactFusion, arXiv 2507.17511, with its error feedback).

Sender and receiver hold the same base of X, K and V or hidden states. The sender compresses what X differs from it by,
and both add what comes out of that again: base <- base + D(C(X - base)). What a message leaves out is thus in the next
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = {"int1": 1, "int2": 2, "int4": 4}
COMPRESS = ("none", *BITS, "topk", "lowrank")
STEPS = {1: 2.0, 2: 1.25, 4: 0.42}
"""The step between levels that suits normally distributed numbers best, over their mean magnitude, by bits."""
KEPT, RANK, ITERATIONS = 16, 4, 2
"""Top-k keeps one number of 16. Rank of low-rank messages, and how often their subspace is improved."""


def kept(t: int, d: int) -> int:
    """Numbers that top-k keeps of a head's t x d."""
    return ceil(t * d / KEPT)


def rank(t: int, d: int) -> int:
    """Columns of the two factors of a head's [t, d]: no more than save bytes."""
    return max(1, min(RANK, t * d // (t + d)))


def message_parts(how: str, size: Sequence[int], width: int) -> tuple[int, int]:
    """Bytes of the two parts of a message about K, V of `size` [..., t, d], numbers of so many bytes.

    A number of `int` takes its bits, and a channel one scale; of `topk` its value and place, 4 bytes; a head of
    `lowrank` t + d numbers a rank. The part whose numbers are the wider comes first.
    """
    *heads, t, d = size
    count = prod(heads)
    if how in BITS:
        return count * d * width, ceil(count * t * d * BITS[how] / 8)
    if how == "topk":
        return count * kept(t, d) * 4, count * kept(t, d) * width
    return count * t * rank(t, d) * width, count * d * rank(t, d) * width


def message_bytes(how: str, size: Sequence[int], width: int) -> int:
    """Bytes of a message."""
    return sum(message_parts(how, size, width))


@dataclass(frozen=True)
class Codec:
    """C and D for matrices [t, d] of `size` [..., t, d], heads of K and V or hidden states; a message is bytes.

    `int1`, `int2`, `int4`: so many bits a number, levels at equal distances around zero, a scale a channel and matrix.
    `topk`: of a matrix's numbers the largest, with their places. `lowrank`: a matrix as a product.
    """

    how: str
    size: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of a message."""
        return sum(self.parts)

    @property
    def parts(self) -> tuple[int, int]:
        return message_parts(self.how, self.size, self.dtype.itemsize)

    def encode(self, x: Tensor) -> Tensor:
        """C: [..., t, d] -> bytes [nbytes]."""
        if self.how in BITS:
            first, second = quantized(x, BITS[self.how])
        elif self.how == "topk":
            numbers = x.flatten(-2)
            _, places = numbers.abs().topk(kept(*x.shape[-2:]))
            first, second = places.int(), numbers.gather(-1, places)
        else:
            first, second = factors(x, rank(*x.shape[-2:]))
        return torch.cat([part.contiguous().view(torch.uint8).flatten() for part in (first, second)])

    def decode(self, message: Tensor) -> Tensor:
        """D: bytes [nbytes] -> [..., t, d]."""
        *heads, t, d = self.size
        first, second = message.split(self.parts)
        if self.how in BITS:
            bits = BITS[self.how]
            codes = unpacked(second, bits)[: prod(self.size)].view(self.size).to(self.dtype)
            return (codes - (2**bits - 1) / 2) * first.view(self.dtype).view(*heads, 1, d)
        if self.how == "topk":
            places = first.view(torch.int32).view(*heads, kept(t, d)).long()
            zeros = torch.zeros(*heads, t * d, dtype=self.dtype, device=message.device)
            return zeros.scatter(-1, places, second.view(self.dtype).view(*heads, kept(t, d))).view(self.size)
        left, right = (part.view(self.dtype).view(*heads, -1, rank(t, d)) for part in (first, second))
        return left @ right.transpose(-1, -2)


def quantized(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The distance of a channel's levels [..., 1, d], and the number of each number's nearest level, packed."""
    step = x.abs().mean(-2, keepdim=True) * STEPS[bits]
    top = 2**bits - 1
    codes = (x / step.clamp_min(torch.finfo(x.dtype).tiny) + top / 2).round().clamp(0, top)
    return step, packed(codes.to(torch.uint8).flatten(), bits)


def packed(codes: Tensor, bits: int) -> Tensor:
    """Numbers of so many bits [n], 8 / bits in a byte, zeros behind the last."""
    per = 8 // bits
    each = F.pad(codes, (0, -codes.shape[0] % per)).view(-1, per)
    out = each[:, 0]
    for place in range(1, per):
        out = out | (each[:, place] << (bits * place))
    return out


def unpacked(packed: Tensor, bits: int) -> Tensor:
    """What `packed` has packed."""
    places = range(0, 8, bits)
    return torch.stack([(packed >> place) & (2**bits - 1) for place in places], dim=-1).flatten()


def factors(x: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Left [..., t, r], right [..., d, r], x nearly left @ right^T: subspace iteration from the first channels."""
    matrix = x.float()
    left = matrix[..., :columns]
    for _ in range(ITERATIONS):
        right = orthonormal(matrix.transpose(-1, -2) @ orthonormal(left))
        left = matrix @ right
    return left.to(x.dtype), right.to(x.dtype)


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis of columns [..., n, r], one after another; zeros in place of those that add nothing."""
    found: list[Tensor] = []
    for column in columns.unbind(-1):
        left = column
        for one in found:
            left = left - one * (one * left).sum(-1, keepdim=True)
        norm = left.norm(dim=-1, keepdim=True)
        scale = column.norm(dim=-1, keepdim=True)
        found.append(torch.where(norm > 1e-5 * scale, left / norm.clamp_min(1e-30), 0.0))
    return torch.stack(found, dim=-1)
