"""What stale K, V do to self-attention: the method's own attention beside attention to K, V that are all fresh.

For every job the method's q, k, v and its attention are kept until all rows of that step and layer are in. Then each q
attends to all fresh k, v of that same step: what the method itself would have got without staleness, its history being
what it is. The K, V that it really saw are known as well, from the probe's origins and the K, V of earlier steps, and
attention to those must give what the method got: `unexplained` says how far off it is, and should be float noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experiments.journal import Row
from experiments.staleness.probe import ABSENT, NEVER, Seen
from experiments.staleness.traced import Place
from experiments.staleness.watch import Attention, relative, row_columns
from pipefusion.core.grid import rows_in
from pipefusion.core.linear import kernel
from pipefusion.core.mesh import Mesh
from pipefusion.core.shape import DiTShape

MEASURED = ("attention_error", "k_error", "v_error", "unexplained")
"""Relative: of the attention's output, of the K and V of stale tokens (none: missing), and of what is known of it."""
Site = tuple[int, ...]
"""A layer, and the images, guidance branch and heads of the ranks whose rows make up the image."""
Kept = Mapping[int, tuple[Tensor, Tensor]]
"""K and V [b, p, H, d] of the image by step."""


class StaleErrors:
    """Of a run of any method on a mesh, with what the probe saw of the same run.

    Keeps the K, V of a step only as long as somebody will still see them: two steps, for the methods there are.
    Raises ValueError when two jobs have the same rows of a step and layer.
    """

    def __init__(self, shape: DiTShape, mesh: Mesh, seen: Sequence[Seen]):
        self.shape, self.mesh = shape, mesh
        self.origins: Mapping[Place, tuple[int, ...]] = {one.place: one.origins for one in seen}
        self._needed: dict[tuple[int, int], int] = {}  # (layer, step of K, V) -> the last step that sees them
        for place, origins in self.origins.items():
            for origin in {*origins}:
                key = (place.layer, origin)
                self._needed[key] = max(place.step, self._needed.get(key, NEVER))
        self._pending: dict[tuple[Site, int], list[Attention]] = {}
        self._kept: dict[Site, dict[int, tuple[Tensor, Tensor]]] = {}
        self._rows: list[Row] = []

    def watch(self, seen: Attention) -> None:
        """Keep it until all rows of its step and layer are in."""
        rank, step, _, layer = seen.place
        site = (layer, *(self.mesh.axis(name, rank).index for name in ("data", "cfg", "tensor")))
        parts = self._pending.setdefault((site, step), [])
        parts.append(seen)
        if sum(len(part.place.rows) for part in parts) >= self.shape.lines:
            self._settle(site, step, self._pending.pop((site, step)))

    def _settle(self, site: Site, step: int, parts: list[Attention]) -> None:
        """All rows of a step and layer are in."""
        rows = torch.tensor([row for part in parts for row in rows_in(part.place.rows)])
        if sorted(rows.tolist()) != [*range(self.shape.lines)]:
            text = ", ".join(str(part.place.rows) for part in parts)
            raise ValueError(f"step {step} layer {site[0]}: {text} are not each row once")

        def joined(tensors: list[Tensor]) -> Tensor:
            """The image's, [b, p, H, d], of the parts'."""
            by_row = torch.cat(tensors, dim=1).unflatten(1, (-1, self.shape.grid.width))
            return by_row[:, rows.argsort()].flatten(1, 2)

        kept = self._kept.setdefault(site, {})
        kept[step] = (
            joined([part.k[:, part.prefix :] for part in parts]),
            joined([part.v[:, part.prefix :] for part in parts]),
        )
        by_rank: dict[int, list[Attention]] = {}
        for part in parts:
            by_rank.setdefault(part.place.rank, []).append(part)
        for rank, own in by_rank.items():
            group = [by_rank[other] for other in self.mesh.axis("ulysses", rank).ranks]
            for part, *sharing in zip(own, *group, strict=True):  # the prompt of one job
                self._measure(part, sharing, kept)
        for old in [old for old in kept if self._needed.get((site[0], old), NEVER) <= step]:
            del kept[old]

    def _measure(self, part: Attention, sharing: Sequence[Attention], kept: Kept) -> None:
        """Measure a job of one of the ranks that share its prompt."""
        step, prefix, got = part.place.step, part.prefix, part.out[:, part.prefix :]
        fresh = kept[step]
        prompt_k = torch.cat([each.k[:, : each.prefix] for each in sharing], dim=1)
        prompt_v = torch.cat([each.v[:, : each.prefix] for each in sharing], dim=1)

        def attention(k: Tensor, v: Tensor) -> Tensor:
            whole_k, whole_v = torch.cat([prompt_k, k], dim=1), torch.cat([prompt_v, v], dim=1)
            return kernel(self.shape)(part.q[:, prefix:], whole_k, whole_v)

        found = {"attention_error": relative(got, attention(*fresh))}
        origins = torch.tensor(self.origins[part.place]).repeat_interleave(self.shape.grid.width)  # [p]
        attended = origins != ABSENT
        stale = attended & (origins != step)
        if stale.any():
            seen = [seen_as(origins, step, {at: kv[i] for at, kv in kept.items()}) for i in (0, 1)]
            for name, x, y in zip(("k_error", "v_error"), seen, fresh, strict=True):
                found[name] = relative(x[:, stale], y[:, stale])
            found["unexplained"] = relative(got, attention(*(x[:, attended] for x in seen)))
        place = {"rank": part.place.rank, "step": step, "layer": part.place.layer}
        self._rows.append(place | row_columns(part.place.rows) | dict.fromkeys(MEASURED) | found)

    @property
    def rows(self) -> list[Row]:
        """One row a job and layer, in the order of steps; errors are missing where there is nothing stale."""
        return sorted(self._rows, key=lambda row: (row["step"], row["layer"], row["row_start"]))


def seen_as(origins: Tensor, step: int, kept: Mapping[int, Tensor]) -> Tensor:
    """K or V of all image tokens [b, p, H, d] as a job saw them, by the step that each is of [p]; zeros if of none."""
    seen = kept[step].clone()
    for origin in {*origins.tolist()} - {step, ABSENT}:
        tokens = origins == origin
        seen[:, tokens] = 0.0 if origin == NEVER else kept[origin][:, tokens]
    return seen
