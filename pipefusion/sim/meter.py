"""The clock and the memory of one rank that computes nothing: operations are charged to it, tensors counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import astuple
from functools import partial
from typing import Any

from torch import Tensor

from pipefusion.sim.cost import EMPTY, Segment
from pipefusion.sim.hardware import DeviceConfig


class Meter:
    """Host and device time of a rank in seconds, and the bytes of its live tensors. Implements `Clock`.

    An asynchronous device works behind its host: an operation starts when it has been issued and the one before it is
    done. Waiting for a communication holds up the device, not the host.
    """

    def __init__(self, device: DeviceConfig):
        self.device = device
        self.key = astuple(device)[:-2]  # all numbers: what segments were computed with
        self.host_s = self.device_s = 0.0
        self.matmul_flops = self.attention_flops = self.bytes = 0.0
        self.ops, self.busy_s = 0, 0.0  # kernels, and the seconds of the device in them
        self.live_bytes = self.peak_bytes = self.mark_bytes = 0
        self.recorded: Segment | None = None
        self._storages: dict[int, Any] = {}

    def read(self) -> float:
        return max(self.host_s, self.device_s)

    def wait_until(self, time_s: float) -> None:
        self.device_s = max(self.device_s, time_s)
        if not self.device.asynchronous:
            self.host_s = self.device_s

    def spend(self, seconds: float) -> None:
        self.host_s += seconds
        if not self.device.asynchronous:
            self.host_s = self.device_s = max(self.host_s, self.device_s + seconds)

    def resume(self) -> None:
        return None

    def pause(self) -> None:
        return None

    def charge(self, segment: Segment) -> None:
        """Issue and run these operations; while something is being recorded, add them to it."""
        launches = segment.ops * self.device.launch_s
        if self.device.asynchronous:
            self.device_s = max(self.device_s + segment.device_s, self.host_s + segment.issue_s)
            self.host_s += launches
        else:
            self.host_s = self.device_s = self.read() + launches + segment.device_s
        self.matmul_flops += segment.matmul_flops
        self.attention_flops += segment.attention_flops
        self.bytes += segment.bytes
        self.ops += segment.ops
        self.busy_s += segment.device_s
        if self.recorded is not None:
            self.recorded = self.recorded.then(segment, self.device.launch_s)

    def record(self) -> None:
        """Start a recording: what is charged, and in `mark_bytes` the most bytes live from here on."""
        self.recorded, self.mark_bytes = EMPTY, self.live_bytes

    def stop(self) -> Segment:
        """End the recording; what was charged during it."""
        segment, self.recorded = self.recorded, None
        assert segment is not None
        return segment

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that live from the start: parameters, inputs."""
        for tensor in tensors:
            self.allocate(tensor)

    def allocate(self, tensor: Tensor) -> None:
        """Count the storage of a tensor until it is freed; once, however many tensors share it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        self._storages[key] = weakref.ref(storage, partial(self._release, key, size))
        self.add_bytes(size)

    def storages(self) -> set[int]:
        """What is live now, by storage."""
        return set(self._storages)

    def _release(self, key: int, size: int, _: Any) -> None:
        self._storages.pop(key, None)
        self.live_bytes -= size

    def add_bytes(self, size: int) -> None:
        """Count bytes (or, negative, no longer count them) that no tensor stands for."""
        self.live_bytes += size
        self.touch_bytes(self.live_bytes)

    def touch_bytes(self, level: int) -> None:
        """So many bytes were live at one time."""
        if level > self.peak_bytes:
            self.peak_bytes = level
        if level > self.mark_bytes:
            self.mark_bytes = level
