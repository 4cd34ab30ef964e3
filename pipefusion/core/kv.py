"""Full-length K and V of a device's own layers, refreshed band by band (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric
from pipefusion.core.shape import DiTShape


class StaleKV:
    """One buffer a layer: [2, batch, T + p, heads, head_dim], K then V, starting as zeros.

    It lives for one image: 2 * p * hs * layers * batch * itemsize bytes on the device. Where a layer of an MM-DiT
    attends to the prompt as well there is room for its T tokens in front of the image's, so that attention reads one
    tensor: they are written by each job anew, are no state, and are counted as buffer.
    """

    def __init__(
        self, fabric: Fabric, shape: DiTShape, layers: Iterable[int], batch: int, dtype: torch.dtype
    ):
        self.shape = shape
        self.buffers = {}
        for layer in layers:
            size = (2, batch, shape.prefix(layer) + shape.tokens, shape.heads, shape.head_dim)
            self.buffers[layer] = fabric.zeros("kv", *size, dtype=dtype).unbind()
            prompt = 2 * batch * shape.prefix(layer) * shape.hidden * dtype.itemsize
            fabric.ledger.move("kv", "buffer", prompt)

    def write(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> None:
        """Overwrite the K, V of these image tokens, in place, and those of the prompt, which come first in k, v."""
        prefix = self.shape.prefix(layer)
        band = slice(prefix + tokens.start, prefix + tokens.stop)
        for whole, new in zip(self.buffers[layer], (k, v), strict=True):
            if prefix:
                whole[:, :prefix].copy_(new[:, :prefix])
            whole[:, band].copy_(new[:, prefix:])

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of all tokens, each [batch, T + p, heads, head_dim]: fresh where written this step."""
        whole_k, whole_v = self.buffers[layer]
        return whole_k, whole_v
