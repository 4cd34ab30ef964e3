"""High-water mark of live tensor bytes, counted storage by storage."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import Sampler
from pipefusion.core.sampler import scheduler_tensors


class PeakTracker(TorchDispatchMode):
    """Within the context, `peak_bytes` is the largest sum of the bytes of all storages alive at one time.

    Exact on any device, `meta` included; scratch memory inside a kernel is not a tensor and not seen. Every operation
    passes through Python, so nothing is timed under it. `held` are the tensors that live before it is entered,
    `ignored` those of the host (a scheduler's tables) that are no load of the device. With a `device_type`, tensors
    anywhere else are not counted: what is computed from the tables stays with the host.
    """

    def __init__(
        self, held: Iterable[Tensor] = (), ignored: Iterable[Tensor] = (), device_type: str | None = None
    ):
        super().__init__()
        self.device_type = device_type
        self.live_bytes = self.peak_bytes = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in ignored}
        for tensor in held:
            self._track(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._track(leaf)
        return out

    def _track(self, tensor: Tensor) -> None:
        if self.device_type not in (None, tensor.device.type):
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live_bytes -= size


def sampling_peak(
    sampler: Sampler, model: nn.Module, scheduler: Any, noise: Tensor, cond: Conditioning
) -> int:
    """Peak bytes of one call of a rank's sampler: parameters, inputs, buffers and activations."""
    held = [*model.parameters(), *model.buffers(), noise, *cond.tensors]
    with PeakTracker(held, scheduler_tensors(scheduler), noise.device.type) as tracker:
        sampler(noise, cond, scheduler)
    return tracker.peak_bytes
