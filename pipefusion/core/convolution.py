"""A convolution over rows that lie in several patches or on several ranks: the halo, a row beyond each end of a band.

Its state is the first and the last row of every rank's share of a patch. Ranks that share a patch gather each other's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pipefusion.core.grid import ranges_in
from pipefusion.core.layout import Job
from pipefusion.core.ledger import Where
from pipefusion.core.run import Run
from pipefusion.core.states import States


class Convolve(Protocol):
    """A convolution that looks one row beyond a band on either side, as a method does it.

    `rows` [b, C, h, W] are those of a band; what comes back are as many rows of what `conv` makes of the whole image.
    """

    def __call__(self, layer: int, conv: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor: ...


def alone(layer: int, conv: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """The convolution as the model has it: nothing lies beyond the rows."""
    return conv(rows)


def beyond(edges: Tensor, patch: int, lane: int, side: int) -> Tensor:
    """The first row (side 0) or the last one of a share of a patch, [b, C, 1, W], of [patches, b, lanes, 2, C, W]."""
    return edges[patch, :, lane, side].unsqueeze(2)


def convolution(run: Run, states: States) -> Callable[[Job], Convolve]:
    """What the convolutions do in a job; `states` says how old the rows of other patches are."""
    layout, fabric, shape = run.layout, run.fabric, run.shape
    lanes = layout.lanes
    if not shape.convolved or len(layout.units) * lanes == 1:
        return lambda job: alone
    row = (shape.convolved // fabric.axis("tensor").size, layout.grid.width)  # C, W
    see_for = states(run, (run.batch, lanes, 2, *row), run.dtype)
    most, count, rooms = max(len(job.patches) for job in run.jobs), 1, {}
    for axis in ("ulysses", "ring"):
        if fabric.axis(axis).size > 1:
            count *= fabric.axis(axis).size
            rooms[axis] = run.scratch("comm", count, most, 2, run.batch, *row)
    places = {unit: (m, lane) for m, each in enumerate(layout.units) for lane, unit in enumerate(each)}
    starts = {unit.start: place for unit, place in places.items()}
    stops = {unit.stop: place for unit, place in places.items()}

    def gathered(own: Tensor, at: Where) -> Tensor:
        """Edges of this rank [patches, 2, b, C, W] -> of all that share the patches [patches, b, lanes, 2, C, W]."""
        patches = len(own)
        for axis, room in rooms.items():
            arrived = room.view(fabric.axis(axis).size, *own.shape)
            fabric.all_gather(arrived, own, axis=axis, at=at)
            own = arrived
        own = own.reshape(lanes, patches, 2, -1, *row).permute(1, 3, 0, 2, 4, 5)
        return own.clone(memory_format=torch.contiguous_format)  # the room is for the next layer

    def convolve_for(job: Job) -> Convolve:
        see, parts = see_for(job), ranges_in(job.rows)
        shares = [len(layout.shares[m]) for m in job.patches]
        sizes = [len(part) for part in parts]

        def convolve(layer: int, conv: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
            ends = [share[:, :, row] for share in rows.split(shares, dim=2) for row in (0, -1)]
            own = gathered(torch.stack(ends).unflatten(0, (-1, 2)), job.where(layer))

            def between(edges: Tensor) -> Tensor:
                """The rows of each part between those next to it, one part below the other, convolved at once."""
                pieces: list[Tensor] = []
                inside: list[int] = []
                for part, mine in zip(parts, rows.split(sizes, dim=2), strict=True):
                    if part.start in stops:
                        pieces.append(beyond(edges, *stops[part.start], 1))
                    inside.append(len(pieces))
                    pieces.append(mine)
                    if part.stop in starts:
                        pieces.append(beyond(edges, *starts[part.stop], 0))
                if len(pieces) == 1:
                    return conv(rows)
                out = conv(torch.cat(pieces, dim=2)).split([piece.shape[2] for piece in pieces], dim=2)
                return torch.cat([out[index] for index in inside], dim=2)

            return see(layer, own, between)

        return convolve

    return convolve_for
