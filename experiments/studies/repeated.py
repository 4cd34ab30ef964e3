"""A VAE whose bytes are counted on `meta`, without doing again what holds the same: tiles, frames and blended lines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pipefusion.core.memory import PeakTracker


def shorten(vae: Any, tracker: PeakTracker) -> None:
    """Have a VAE on `meta` decode a tile or frame of each shape once, and blend a line of each edge; bytes stay."""
    vae.decoder = Repeated(vae.decoder, tracker)
    for name in ("blend_v", "blend_h", "blend_t"):
        if hasattr(vae, name):
            setattr(vae, name, partial(blend_line, getattr(vae, name)))


def blend_line(blend: Callable[..., Tensor], one: Tensor, other: Tensor, extent: int) -> Tensor:
    """What `blend` gives; it goes line by line, and none is longer than the first."""
    return blend(one, other, min(extent, 1))


class Repeated(nn.Module):
    """Stands for a decoder that runs once for each shape, and gives to the byte what it would.

    What it keeps between the frames of a video, in place (`feat_cache`) or in what it returns, is made anew as well.
    """

    def __init__(self, decoder: nn.Module, tracker: PeakTracker):
        super().__init__()
        self._decoder, self._tracker = decoder, tracker
        self._known: dict[str, tuple[int, Any, Any]] = {}

    def forward(self, *given: Any, **options: Any) -> Any:
        tracker = self._tracker
        cache: Any = options.get("feat_cache")
        key = repr(tree_map(lambda leaf: leaf.shape if isinstance(leaf, Tensor) else leaf, (given, options)))
        if key in self._known:
            more_bytes, result, kept = self._known[key]
            tracker.peak_bytes = max(tracker.peak_bytes, tracker.live_bytes + more_bytes)
            for index, one in enumerate(kept or ()):
                cache[index] = None
                cache[index] = tree_map(filled, one)
            return tree_map(filled, result)
        live_bytes, peak_bytes = tracker.live_bytes, tracker.peak_bytes
        tracker.peak_bytes = live_bytes
        made = self._decoder(*given, **options)
        self._known[key] = tracker.peak_bytes - live_bytes, tree_map(outline, made), tree_map(outline, cache)
        tracker.peak_bytes = max(peak_bytes, tracker.peak_bytes)
        return made


def outline(leaf: Any) -> Any:
    """What makes a tensor like this one; anything else as it is."""
    if not isinstance(leaf, Tensor):
        return leaf
    return partial(torch.empty, leaf.shape, dtype=leaf.dtype, device=leaf.device)


def filled(leaf: Any) -> Any:
    """What an outline makes."""
    return leaf() if isinstance(leaf, partial) else leaf
