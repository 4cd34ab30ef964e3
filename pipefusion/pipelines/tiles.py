"""A VAE's tiles dealt to ranks: each decodes its own, and the VAE's own tiled decode puts all together.

Which tiles there are, of rows, columns and frames, how much of their neighbours they see and how they blend is the
stock VAE's to say. Its `decode` is run with a decoder in place of its own that only keeps what it is asked for, and
once more with one that answers what the ranks have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.core.dit import clone_modules
from pipefusion.core.latents import gather
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric

TILED = (
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderKLWan",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLHunyuanVideo15",
)
"""VAEs whose decoder is called for each tile and returns its pixels alone."""
DIMENSIONS = 5  # of a video's pixels, the most


class Asked(nn.Module):
    """Keeps what a decoder is asked for, tile by tile, and answers pixels without rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.tiles: list[list[tuple[Tensor, dict[str, Any]]]] = []
        self._cache: Any = None

    def forward(self, latent: Tensor, **options: Any) -> Tensor:
        cache = options.get("feat_cache")  # Wan's, of which a tile's frames are decoded one after the other
        if cache is None or cache is not self._cache:
            self.tiles.append([])
        self._cache = cache
        self.tiles[-1].append((latent, options))
        return latent[..., :0, :0]


class Answers(nn.Module):
    """A decoder that has been asked all before."""

    def __init__(self, pixels: Iterable[Tensor]):
        super().__init__()
        self._pixels = iter(pixels)

    def forward(self, latent: Tensor, **options: Any) -> Tensor:
        return next(self._pixels)


def decode_tiles(vae: Any, latent: Tensor, fabric: LocalFabric) -> Tensor:
    """Pixels of a latent on every rank, as `vae.decode` has them with tiling as it is set on this VAE.

    What is sent is in the fabric's ledger: tiles whole, with what they share with their neighbours. Raises ValueError
    for a VAE that is not in `TILED`.
    """
    name = type(vae).__name__
    if name not in TILED:
        raise ValueError(f"{name} is decoded by one rank; allowed: {', '.join(TILED)}")
    twin: Any = clone_modules(vae)
    asked = Asked()
    twin.decoder = asked
    twin.decode(latent)
    mesh = fabric.mesh
    made = [
        vae.decoder(part, **options) if index % mesh.size == fabric.rank else None
        for index, tile in enumerate(asked.tiles)
        for part, options in tile
    ]
    owners = [index % mesh.size for index, tile in enumerate(asked.tiles) for _ in tile]
    twin.decoder = Answers(exchanged(made, owners, latent.dtype, fabric))
    pixels: Tensor = twin.decode(latent, return_dict=False)[0]
    return pixels


def exchanged(
    made: Sequence[Tensor | None], owners: Sequence[int], dtype: torch.dtype, fabric: LocalFabric
) -> list[Tensor]:
    """All tensors, of which each rank has those that it owns."""
    sizes = torch.zeros(len(made), DIMENSIONS, dtype=torch.int64, device=fabric.device)
    for row, tensor in zip(sizes, made, strict=True):
        if tensor is not None:
            row[: tensor.ndim] = torch.tensor(tensor.shape)
    shapes = [[n for n in row if n] for row in everyone(sizes, fabric).sum(0).tolist()]
    counts = [0] * fabric.mesh.size
    for owner, shape in zip(owners, shapes, strict=True):
        counts[owner] += prod(shape)
    own = fabric.empty("comm", max(counts), dtype=dtype)
    parts = [tensor.flatten() for tensor in made if tensor is not None]
    if parts:
        own[: counts[fabric.rank]] = torch.cat(parts)
    rows, used = everyone(own, fabric), [0] * fabric.mesh.size
    found = []
    for owner, shape in zip(owners, shapes, strict=True):
        found.append(rows[owner, used[owner] : used[owner] + prod(shape)].view(shape))
        used[owner] += prod(shape)
    return found


def everyone(tensor: Tensor, fabric: LocalFabric) -> Tensor:
    """The tensors of all ranks [ranks, ...], in their order."""
    rows = tensor[None]
    for axis in reversed(fabric.mesh.axes):  # the last varies fastest
        rows = gather(fabric, rows, axis, Where()).flatten(0, 1)
    return rows
