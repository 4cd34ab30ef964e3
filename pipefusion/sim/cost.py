"""From an operation on `meta` to seconds on a device: FLOPs by kind and bytes moved, through a roofline.

A matrix product is computed in tiles, as many at once as the device has multiprocessors: the edges cost what whole
tiles do, and of the last wave half is lost on average, whatever tiles the library picks. Attention computes with heads
that are filled up to a multiple of 32. Traffic of a kernel whose tensors fit into the cache is faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipefusion.sim.hardware import DeviceConfig

OpKind = Literal["matmul", "attention", "rest"]

MATMULS = {torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__}
ADDED_MATMULS = {torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm}
OTHER_PRODUCTS = {torch.einsum, torch.tensordot, torch.addmv, torch.mv, F.bilinear, F.conv1d}
OTHER_PRODUCTS |= {F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}
"""Arithmetic whose FLOPs are not worked out here: refused, where counting it as traffic would be wrong."""
FUSED_ATTENTION = {
    F.scaled_dot_product_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
}


TILE, LEAST_TILE = 128, 16
"""Most and fewest rows and columns of a matrix product that a multiprocessor computes at once."""
START = 256
"""Filling and storing a tile takes as long as so many more sums' terms: deep products reach more of the peak. Of 32
bits, whose arithmetic is many times slower, it does not count."""
HEAD = 32
"""Kernels of attention are compiled for head sizes that are multiples of it."""
CACHED = 2.0
"""How much faster the cache is than the memory."""


class Op(NamedTuple):
    """One kernel: its arithmetic (2 per multiply-add), its memory traffic, and the size of its numbers in bytes.

    `shape` of a matrix product: how many, rows, columns, and the depth of the sums; of attention: the head's size.
    """

    kind: OpKind
    flops: float
    bytes: float
    itemsize: int
    shape: tuple[int, ...] = ()


def count_op(func: Any, args: tuple[Any, ...], tensors: Iterable[Tensor], outputs: Iterable[Tensor]) -> Op:
    """The cost of one call. `tensors` are its tensor arguments, `outputs` the new tensors it makes."""
    inputs, made = list(tensors), list(outputs)
    moved = float(sum(map(touched_bytes, [*inputs, *made])))
    itemsize = max((tensor.dtype.itemsize for tensor in inputs), default=4)  # a log-sum-exp beside is float32
    if func in OTHER_PRODUCTS:
        raise TypeError(f"{func}: its FLOPs are not known")
    if func in (torch.conv2d, F.conv2d, F.conv3d):
        columns, *window = args[1].shape
        shape = (1, made[0].numel() // columns, columns, prod(window))
        return Op("matmul", 2.0 * prod(shape), moved, itemsize, shape)
    if func is F.linear or func in MATMULS | ADDED_MATMULS:
        factor = args[0] if func in MATMULS else args[1]
        many, columns = 1, made[0].shape[-1]
        if func is not F.linear and made[0].dim() > 2:
            many = prod(made[0].shape[:-2])
        shape = (many, made[0].numel() // (many * columns), columns, factor.shape[-1])
        return Op("matmul", 2.0 * prod(shape), moved, itemsize, shape)
    if func is F.multi_head_attention_forward:  # the projections; its scores are few beside them
        (ours, batch, width), theirs, out = inputs[0].shape, inputs[1].shape[0], made[0].shape[-1]
        return Op("matmul", 2.0 * batch * width * (width * (ours + 2 * theirs) + out * ours), moved, itemsize)
    if func in FUSED_ATTENTION:
        q, k, v = args[:3]  # [batch, heads, tokens, head_dim]
        flops = 2.0 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return Op("attention", flops, moved, itemsize, (q.shape[-1],))
    return Op("rest", 0.0, moved, itemsize)


def touched_bytes(tensor: Tensor) -> int:
    """Bytes read or written; a dimension that is only expanded is in memory once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size for size, stride in sizes if stride) * tensor.dtype.itemsize


def traffic_seconds(op: Op, device: DeviceConfig) -> float:
    """Time in which a kernel reads and writes its tensors."""
    seconds = op.bytes / (device.peak_bandwidth * device.bandwidth_efficiency)
    return seconds / CACHED if op.bytes <= device.cache_bytes else seconds


def kernel_seconds(op: Op, device: DeviceConfig) -> float:
    """Time of one kernel on the device."""
    traffic = traffic_seconds(op, device)
    if not op.flops:
        return device.unfused * (device.kernel_s + traffic)
    return device.kernel_s + max(arithmetic_seconds(op, device), traffic)


def arithmetic_seconds(op: Op, device: DeviceConfig) -> float:
    """Time in which a kernel that has arithmetic does it."""
    peak = device.peak_flops_16 if op.itemsize <= 2 else device.peak_flops_32
    reached = device.matmul_efficiency if op.kind == "matmul" else device.attention_efficiency
    return computed_flops(op, device.multiprocessors) / (peak * reached)


def computed_flops(op: Op, multiprocessors: int) -> float:
    """The arithmetic of a kernel with all that it computes for nothing; none on a device without multiprocessors."""
    if not (multiprocessors and op.shape):
        return op.flops
    if op.kind == "attention":
        (size,) = op.shape
        return op.flops * ceil(size / HEAD) * HEAD / size
    many, rows, columns, depth = op.shape
    height, width = tile(rows), tile(columns)
    tiles = many * ceil(rows / height) * ceil(columns / width)
    start = START if op.itemsize <= 2 else 0
    return 2.0 * (tiles + multiprocessors / 2) * height * width * (depth + start)


def tile(side: int) -> int:
    """Rows or columns of a tile: no more than the next power of two from a product's own."""
    return min(TILE, max(LEAST_TILE, 1 << (side - 1).bit_length()))


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations issued one after another, summed up so that charging them all at once gives the same times.

    `device_s` is their time on the device; `issue_s` how long after the host's start the device is done if it was idle
    all along: the largest over operations of the launches up to it plus the device time from it on.
    """

    ops: int = 0
    device_s: float = 0.0
    issue_s: float = 0.0
    matmul_flops: float = 0.0
    attention_flops: float = 0.0
    attention_bytes: float = 0.0
    bytes: float = 0.0

    def then(self, other: Segment, launch_s: float) -> Segment:
        """This segment and another one after it."""
        return Segment(
            self.ops + other.ops,
            self.device_s + other.device_s,
            max(self.issue_s + other.device_s, self.ops * launch_s + other.issue_s),
            self.matmul_flops + other.matmul_flops,
            self.attention_flops + other.attention_flops,
            self.attention_bytes + other.attention_bytes,
            self.bytes + other.bytes,
        )


EMPTY = Segment()


def as_segment(op: Op, device: DeviceConfig) -> Segment:
    """One operation as a segment."""
    seconds = kernel_seconds(op, device)
    matmul, attention = (op.flops if op.kind == kind else 0.0 for kind in ("matmul", "attention"))
    read = op.bytes if op.kind == "attention" else 0.0
    return Segment(1, seconds, device.launch_s + seconds, matmul, attention, read, op.bytes)
