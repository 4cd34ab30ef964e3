"""Token rows, columns and frames: the only place that knows how tokens lie, are cut, taken and joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strips:
    """Lines that do not follow each other: a rank's shares of several patches, in the order of the patches."""

    parts: tuple[range, ...]

    def __len__(self) -> int:
        """Lines in all."""
        return sum(map(len, self.parts))


Band = range | Strips
"""Lines of a grid, ascending: token rows, or frames."""


def strips(parts: Iterable[range]) -> Band:
    """Ascending lines as a band: one range where they follow each other."""
    joined: list[range] = []
    for part in parts:
        if joined and joined[-1].stop == part.start:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else Strips(tuple(joined))


def ranges_in(band: Band) -> tuple[range, ...]:
    """The consecutive lines that a band is made of."""
    return (band,) if isinstance(band, range) else band.parts


def rows_in(band: Band) -> list[int]:
    """Every line of a band."""
    return [row for part in ranges_in(band) for row in part]


@dataclass(frozen=True)
class TokenGrid:
    """`rows` x `cols` tokens, each a square of `patch_size` latent pixels; in a video so many in each of `frames`.

    Tokens of `references`, other pictures of the same size, lie in its lines as those of further frames would: a line
    is then a row of the picture and of each of them. Its latents are the picture's alone.

    What is cut into bands are its `lines`: token rows (of all frames), or with `axis` frames whole frames. Tokens lie
    line after line, so that a band of either axis is one piece of every tensor of tokens, K and V among them. A
    transformer sees no difference: its attention has no order but what positions say.
    """

    rows: int
    cols: int
    patch_size: int
    frames: int | None = None
    axis: str = "rows"
    references: int = 0

    @property
    def lines(self) -> int:
        """What can be cut apart."""
        return self.rows if self.axis == "rows" else self.frames or 1

    @property
    def planes(self) -> int:
        """Frames, reference pictures included."""
        return (self.frames or 1) + self.references

    @property
    def width(self) -> int:
        """Tokens of a line."""
        return self.cols * (self.rows if self.axis == "frames" else self.planes)

    @property
    def dim(self) -> int:
        """The dimension of a latent [B, C, H, W] or [B, C, F, H, W] that is cut."""
        return 3 if self.frames and self.axis == "rows" else 2

    @property
    def thickness(self) -> int:
        """Latent rows, or frames, of a line."""
        return self.patch_size if self.axis == "rows" else 1

    def tokens(self, band: Band) -> int:
        """Tokens of a band."""
        return len(band) * self.width

    def take_tokens(self, table: Tensor, band: Band, dim: int = 0, offset: int = 0) -> Tensor:
        """A band of a tensor with a token along `dim`, of which the first `offset` are no image tokens."""
        taken = [
            table.narrow(dim, offset + part.start * self.width, len(part) * self.width)
            for part in ranges_in(band)
        ]
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim)

    def in_first_frame(self, band: Band, device: torch.device) -> Tensor:
        """Which tokens of a band [t] (bool) are of the first frame."""
        places = self.take_tokens(torch.arange(self.lines * self.width, device=device), band)
        return places < self.width if self.axis == "frames" else places % self.width < self.cols

    def take_latent(self, latent: Tensor, band: Band) -> Tensor:
        """A band [B, C, h, W] of a latent [B, C, H, W], or of a video's; a view of it where that is one piece."""
        size = self.thickness
        taken = [latent.narrow(self.dim, part.start * size, len(part) * size) for part in ranges_in(band)]
        return taken[0] if len(taken) == 1 else torch.cat(taken, self.dim)

    def split_latent(self, latent: Tensor, bands: Sequence[Band]) -> list[Tensor]:
        """The latents of bands, of one in which they follow each other."""
        return [*latent.split([len(band) * self.thickness for band in bands], dim=self.dim)]

    def join_latents(self, bands: Sequence[Band], latents: Sequence[Tensor]) -> Tensor:
        """The latent [B, C, H, W] whose bands, which together are all lines once, are these."""
        placed = []
        for band, latent in zip(bands, latents, strict=True):
            parts = ranges_in(band)
            pieces = self.split_latent(latent, parts)
            placed += [(part.start, piece) for part, piece in zip(parts, pieces, strict=True)]
        return torch.cat([piece for _, piece in sorted(placed, key=lambda pair: pair[0])], dim=self.dim)

    def in_line(self, frames: Tensor) -> Tensor:
        """Tokens of a band by frame, row and column [b, F, h, w, ...] line after line: [b, t, ...]."""
        return (frames.transpose(1, 2) if self.axis == "rows" else frames).flatten(1, 3)

    def in_frames(self, tokens: Tensor) -> Tensor:
        """Tokens of a band [b, t, ...] by frame, row and column: [b, F, h, w, ...]."""
        if self.axis == "rows":
            return tokens.unflatten(1, (-1, self.planes, self.cols)).transpose(1, 2)
        return tokens.unflatten(1, (-1, self.rows, self.cols))

    def without_references(self, tokens: Tensor) -> Tensor:
        """Of a band's tokens [b, t, ...] those of the picture itself."""
        return self.in_frames(tokens)[:, 0].flatten(1, 2) if self.references else tokens
