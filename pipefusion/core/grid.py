"""Token rows and columns of an image: the only place that knows how tokens lie, are cut, taken and joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strips:
    """Token rows that do not follow each other: a rank's shares of several patches, in the order of the patches."""

    parts: tuple[range, ...]

    def __len__(self) -> int:
        """Token rows in all."""
        return sum(map(len, self.parts))


Band = range | Strips
"""Token rows, ascending."""


def strips(parts: Iterable[range]) -> Band:
    """Ascending rows as a band: one range where they follow each other."""
    joined: list[range] = []
    for part in parts:
        if joined and joined[-1].stop == part.start:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else Strips(tuple(joined))


def ranges_in(band: Band) -> tuple[range, ...]:
    """The consecutive rows that a band is made of."""
    return (band,) if isinstance(band, range) else band.parts


def rows_in(band: Band) -> list[int]:
    """Every row of a band."""
    return [row for part in ranges_in(band) for row in part]


@dataclass(frozen=True)
class TokenGrid:
    """`rows` x `cols` tokens, each a square of `patch_size` latent pixels."""

    rows: int
    cols: int
    patch_size: int

    def tokens(self, band: Band) -> int:
        """Tokens of a band."""
        return len(band) * self.cols

    def take_tokens(self, table: Tensor, band: Band, dim: int = 0, offset: int = 0) -> Tensor:
        """A band of a tensor with a token along `dim`, of which the first `offset` are no image tokens."""
        taken = [
            table.narrow(dim, offset + part.start * self.cols, len(part) * self.cols)
            for part in ranges_in(band)
        ]
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim)

    def take_latent(self, latent: Tensor, band: Band) -> Tensor:
        """A band [B, C, h, W] of a latent [B, C, H, W]."""
        size = self.patch_size
        taken = [latent.narrow(2, part.start * size, len(part) * size) for part in ranges_in(band)]
        return taken[0] if len(taken) == 1 else torch.cat(taken, 2)

    def join_latents(self, bands: Sequence[Band], latents: Sequence[Tensor]) -> Tensor:
        """The latent [B, C, H, W] whose bands, which together are all rows once, are these."""
        placed = []
        for band, latent in zip(bands, latents, strict=True):
            parts = ranges_in(band)
            pieces = latent.split([len(part) * self.patch_size for part in parts], dim=2)
            placed += [(part.start, piece) for part, piece in zip(parts, pieces, strict=True)]
        return torch.cat([piece for _, piece in sorted(placed, key=lambda pair: pair[0])], dim=2)
