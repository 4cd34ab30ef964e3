"""Full-length K and V of a device's own layers, refreshed band by band (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric
from pipefusion.core.shape import DiTShape


class StaleKV:
    """One buffer a layer: [2, batch, T + p, heads, head_dim], K then V, starting as zeros.

    It lives for one image: 2 * p * hs * layers * batch * itemsize bytes on the device. In front of an MM-DiT's image
    tokens there is room for the T of the prompt, so that attention reads one tensor: they are written by each job
    anew, are no state, and are counted as buffer.
    """

    def __init__(
        self, fabric: Fabric, shape: DiTShape, layers: Iterable[int], batch: int, dtype: torch.dtype
    ):
        self.prefix = shape.joint_tokens
        size = (2, batch, self.prefix + shape.tokens, shape.heads, shape.head_dim)
        self.buffers = {layer: fabric.zeros("kv", *size, dtype=dtype).unbind() for layer in layers}
        prompt = 2 * batch * self.prefix * shape.hidden * dtype.itemsize
        fabric.ledger.move("kv", "buffer", prompt * len(self.buffers))

    def write(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> None:
        """Overwrite the K, V of these image tokens, in place, and those of the prompt, which come first in k, v."""
        band = slice(self.prefix + tokens.start, self.prefix + tokens.stop)
        for whole, new in zip(self.buffers[layer], (k, v), strict=True):
            if self.prefix:
                whole[:, : self.prefix].copy_(new[:, : self.prefix])
            whole[:, band].copy_(new[:, self.prefix :])

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of all tokens, each [batch, T + p, heads, head_dim]: fresh where written this step."""
        whole_k, whole_v = self.buffers[layer]
        return whole_k, whole_v
