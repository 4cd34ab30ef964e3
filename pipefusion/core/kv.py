"""Full-length K and V of a device's own layers, refreshed band by band (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipefusion.core.fabric import Fabric


class StaleKV:
    """One buffer a layer: [2, batch, p, heads, head_dim], K then V, starting as zeros.

    It lives for one image: 2 * p * hs * layers * batch * itemsize bytes on the device.
    """

    def __init__(
        self,
        fabric: Fabric,
        layers: Iterable[int],
        batch: int,
        tokens: int,
        heads: int,
        head_dim: int,
        dtype: torch.dtype,
    ):
        self.buffers = {
            layer: fabric.zeros("kv", 2, batch, tokens, heads, head_dim, dtype=dtype).unbind()
            for layer in layers
        }

    def write(self, layer: int, tokens: slice, k: Tensor, v: Tensor) -> None:
        """Overwrite the K, V of these image tokens, in place."""
        whole_k, whole_v = self.buffers[layer]
        whole_k[:, tokens].copy_(k)
        whole_v[:, tokens].copy_(v)

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of all p image tokens, each [batch, p, heads, head_dim]: fresh where written this step."""
        whole_k, whole_v = self.buffers[layer]
        return whole_k, whole_v
