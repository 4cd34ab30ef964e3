"""What stale K, V do to self-attention: the method's own attention beside attention to K, V that are all fresh.

For every job the method's q, k, v and its attention are kept until all rows of that step and layer are in. Then each q
attends to all fresh k, v of that same step: what the method itself would have got without staleness, its history being
what it is. The K, V that it really saw are known as well, from the probe's origins and the K, V of earlier steps, and
attention to those must give what the method got: `unexplained` says how far off it is, and should be float noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments.staleness.probe import ABSENT, NEVER, Seen
from experiments.staleness.traced import Place
from experiments.staleness.watch import Means, relative
from pipefusion.core.attention import full
from pipefusion.core.shape import DiTShape

MEASURED = ("attention_error", "k_error", "v_error", "unexplained")
"""Relative: of the attention's output, of the K and V of stale tokens (none: missing), and of what is known of it."""
Site = tuple[int, int]
"""A layer, and the rank where each rank has heads of its own (tensor parallel), else -1."""


class Part(NamedTuple):
    """What one job handed to attention and got back, [b, T + t, H, d]; the first `prefix` tokens are the prompt's."""

    place: Place
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    prefix: int


class StaleErrors:
    """Watches a run of any method on any number of ranks, with what the probe saw of the same setting.

    Keeps the K, V of a step only as long as somebody will still see them: two steps, for the methods there are.
    Raises ValueError when two jobs have the same rows of a step and layer.
    """

    def __init__(self, shape: DiTShape, seen: Sequence[Seen]):
        self.shape = shape
        self.origins: Mapping[Place, tuple[int, ...]] = {one.place: one.origins for one in seen}
        self._needed: dict[tuple[int, int], int] = {}  # (layer, step of K, V) -> the last step that sees them
        for place, origins in self.origins.items():
            for origin in {*origins}:
                key = (place.layer, origin)
                self._needed[key] = max(place.step, self._needed.get(key, NEVER))
        self._pending: dict[tuple[Site, int], list[Part]] = {}
        self._kept: dict[Site, dict[int, tuple[Tensor, Tensor]]] = {}
        self._means = Means()

    def entered(self, place: Place, image: Tensor) -> None:
        """Nothing to learn from it."""

    def attended(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor, prefix: int) -> None:
        site = (place.layer, place.rank if k.shape[2] < self.shape.heads else -1)
        parts = self._pending.setdefault((site, place.step), [])
        parts.append(Part(place, q, k, v, out, prefix))
        if sum(len(part.place.rows) for part in parts) >= self.shape.token_rows:
            self._settle(site, place.step, self._pending.pop((site, place.step)))

    def _settle(self, site: Site, step: int, parts: list[Part]) -> None:
        """All rows of a step and layer are in."""
        parts.sort(key=lambda part: part.place.rows.start)
        if [row for part in parts for row in part.place.rows] != [*range(self.shape.token_rows)]:
            rows = ", ".join(str(part.place.rows) for part in parts)
            raise ValueError(f"step {step} layer {site[0]}: {rows} are not each row once")
        kept = self._kept.setdefault(site, {})
        kept[step] = (
            torch.cat([part.k[:, part.prefix :] for part in parts], dim=1),  # [b, p, H, d]
            torch.cat([part.v[:, part.prefix :] for part in parts], dim=1),
        )
        for part in parts:
            self._measure(part, *kept[step], kept)
        for old in [old for old in kept if self._needed.get((site[0], old), NEVER) <= step]:
            del kept[old]

    def _seen_by(self, place: Place, kept: Mapping[int, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The K, V of all image tokens [b, p, H, d] as this job saw them, if it did: of earlier steps, or zeros."""
        seen_k, seen_v = (fresh.clone() for fresh in kept[place.step])
        origins = self._origins_by_token(place)
        for origin in {*self.origins[place]} - {place.step, ABSENT}:
            tokens = origins == origin
            seen_k[:, tokens] = 0.0 if origin == NEVER else kept[origin][0][:, tokens]
            seen_v[:, tokens] = 0.0 if origin == NEVER else kept[origin][1][:, tokens]
        return seen_k, seen_v

    def _origins_by_token(self, place: Place) -> Tensor:
        """The step of each image token's K, V [p]."""
        return torch.tensor(self.origins[place]).repeat_interleave(self.shape.token_cols)

    def _measure(self, part: Part, fresh_k: Tensor, fresh_v: Tensor, kept: Mapping[int, Any]) -> None:
        got = part.out[:, part.prefix :]

        def attention(k: Tensor, v: Tensor) -> Tensor:
            prompt_k, prompt_v = part.k[:, : part.prefix], part.v[:, : part.prefix]
            whole = full(part.q, torch.cat([prompt_k, k], dim=1), torch.cat([prompt_v, v], dim=1))
            return whole[:, part.prefix :]

        found = {"attention_error": relative(got, attention(fresh_k, fresh_v))}
        origins = self._origins_by_token(part.place)
        attended = origins != ABSENT
        stale = attended & (origins != part.place.step)
        if stale.any():
            seen_k, seen_v = self._seen_by(part.place, kept)
            found["k_error"] = relative(seen_k[:, stale], fresh_k[:, stale])
            found["v_error"] = relative(seen_v[:, stale], fresh_v[:, stale])
            found["unexplained"] = relative(got, attention(seen_k[:, attended], seen_v[:, attended]))
        for name, values in found.items():
            self._means.add((*part.place[1:], name), values)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a step, layer and band that a job computed; errors are missing where there is nothing stale."""
        table: dict[tuple[Any, ...], dict[str, float]] = {}
        for key, value in self._means.items():
            table.setdefault(key[:3], {})[str(key[3])] = value
        for (step, rows, layer), found in sorted(table.items(), key=_by_place):
            place = {"step": step, "layer": layer, "row_start": rows.start, "row_stop": rows.stop}
            yield place | {name: found.get(name) for name in MEASURED}


def _by_place(item: tuple[tuple[Any, ...], Any]) -> tuple[int, int, int]:
    (step, rows, layer), _ = item
    return step, layer, rows.start
