"""A rank that computes nothing: operations are charged to it and tensors counted; and its device's time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import astuple
from functools import partial
from typing import Any

from torch import Tensor

from pipefusion.sim.cost import EMPTY, Segment
from pipefusion.sim.hardware import DeviceConfig


class DeviceClock:
    """Host and device time of a rank in seconds. An asynchronous device works behind its host.

    An operation starts when it has been issued and the one before it is done. Waiting for a communication holds up the
    device, not the host.
    """

    __slots__ = ("_asynchronous", "_launch_s", "device_s", "host_s")

    def __init__(self, device: DeviceConfig):
        self._asynchronous, self._launch_s = device.asynchronous, device.launch_s
        self.host_s = self.device_s = 0.0

    def read(self) -> float:
        """When all that was issued is done."""
        return self.host_s if self.host_s > self.device_s else self.device_s

    def wait_until(self, time_s: float) -> None:
        """Nothing further happens on the device before `time_s`."""
        if time_s > self.device_s:
            self.device_s = time_s
        if not self._asynchronous:
            self.host_s = self.device_s

    def delay(self, seconds: float) -> None:
        """What was issued takes so much longer."""
        self.device_s += seconds
        if not self._asynchronous:
            self.host_s = self.device_s

    def spend(self, seconds: float) -> None:
        """The host is busy for so long."""
        self.host_s += seconds
        if not self._asynchronous:
            self.host_s = self.device_s = max(self.host_s, self.device_s + seconds)

    def charge(self, *segments: Segment) -> None:
        """Issue and run these operations, one segment after another."""
        host, device = self.host_s, self.device_s
        for segment in segments:
            launches = segment.ops * self._launch_s
            if self._asynchronous:
                issued, behind = host + segment.issue_s, device + segment.device_s
                device = behind if behind > issued else issued
                host += launches
            else:
                host = device = max(host, device) + launches + segment.device_s
        self.host_s, self.device_s = host, device


class Meter:
    """The operations that one rank charges to its device, and the bytes of its live tensors.

    `take` gives the charges since it was last called, for a clock.
    """

    def __init__(self, device: DeviceConfig):
        self.device = device
        self.key = astuple(device)[:-2]  # all numbers: what segments were computed with
        self.matmul_flops = self.attention_flops = self.attention_bytes = self.bytes = 0.0
        self.ops, self.busy_s = 0, 0.0  # kernels, and the seconds of the device in them
        self.live_bytes = self.peak_bytes = self.mark_bytes = 0
        self.recorded: Segment | None = None
        self.charges: list[Segment] = []  # since the last `take`
        self._loose = EMPTY
        self._storages: dict[int, Any] = {}

    def charge(self, segment: Segment) -> None:
        """Count these operations; while something is being recorded they are charged as one, at its end."""
        self.matmul_flops += segment.matmul_flops
        self.attention_flops += segment.attention_flops
        self.attention_bytes += segment.attention_bytes
        self.bytes += segment.bytes
        self.ops += segment.ops
        self.busy_s += segment.device_s
        if self.recorded is None:
            self.charges.append(segment)
            return
        self.recorded = self.recorded.then(segment, self.device.launch_s)
        self._loose = self._loose.then(segment, self.device.launch_s)

    def take(self) -> list[Segment]:
        """What has been charged since the last time, in order."""
        if self._loose.ops:
            self.charges.append(self._loose)
            self._loose = EMPTY
        charges, self.charges = self.charges, []
        return charges

    def record(self) -> None:
        """Start a recording: what is charged, and in `mark_bytes` the most bytes live from here on."""
        self.recorded, self._loose, self.mark_bytes = EMPTY, EMPTY, self.live_bytes

    def stop(self) -> Segment:
        """End the recording; what was charged during it."""
        segment, self.recorded = self.recorded, None
        assert segment is not None
        if self._loose.ops:
            self.charges.append(self._loose)
            self._loose = EMPTY
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
