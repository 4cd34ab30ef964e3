"""FLOPs against torch's own counter and hand-computed ones, bytes and seconds against hand-computed ones."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from pipefusion.core.attention import with_logsumexp
from pipefusion.sim.cost import (
    CACHED,
    START,
    TILE,
    Op,
    as_segment,
    computed_flops,
    kernel_seconds,
    touched_bytes,
    traffic_seconds,
)
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import DeviceClock, Meter

DEVICE = DeviceConfig(
    "toy",
    peak_flops_16=8e9,
    peak_flops_32=1e9,
    peak_bandwidth=4e9,
    matmul_efficiency=0.5,
    attention_efficiency=0.25,
    bandwidth_efficiency=0.5,
    kernel_s=3e-6,
    launch_s=7e-6,
)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def watched(call) -> list[Op]:
    """The operations that a call is charged."""
    found: list[Op] = []
    meter = Meter(DEVICE)
    with torch.inference_mode(), MetaMode(lambda: meter, watch=found.append):
        call()
    return found


PRODUCTS = {
    "linear": (lambda: F.linear(empty(2, 5, 7), empty(11, 7), empty(11)), 2 * 2 * 5 * 7 * 11),
    "matmul": (lambda: empty(5, 7) @ empty(7, 11), 2 * 5 * 7 * 11),
    "added": (lambda: torch.addmm(empty(11), empty(5, 7), empty(7, 11)), 2 * 5 * 7 * 11),
    "batched": (lambda: torch.bmm(empty(3, 5, 7), empty(3, 7, 11)), 2 * 3 * 5 * 7 * 11),
    "conv": (
        lambda: F.conv2d(empty(2, 3, 8, 8), empty(13, 3, 4, 4), empty(13), stride=4),
        2 * 2 * 2 * 2 * 13 * 3 * 4 * 4,
    ),
    "depthwise": (
        lambda: F.conv2d(empty(2, 6, 8, 8), empty(6, 1, 3, 3), padding=1, groups=6),
        2 * 2 * 8 * 8 * 6 * 3 * 3,
    ),
    "video": (
        lambda: F.conv3d(empty(2, 3, 5, 8, 8), empty(13, 3, 3, 3, 3)),
        2 * 2 * 3 * 6 * 6 * 13 * 3 * 3 * 3 * 3,
    ),
    "attention": (
        lambda: F.scaled_dot_product_attention(empty(2, 3, 5, 8), empty(2, 3, 9, 8), empty(2, 3, 9, 8)),
        4 * 2 * 3 * 5 * 9 * 8,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_flops_are_those_by_hand_and_by_torchs_counter(name):
    call, by_hand = PRODUCTS[name]
    (op,) = watched(call)
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    assert op.flops == by_hand == counter.get_total_flops()
    assert op.kind == ("attention" if name == "attention" else "matmul")


def test_attention_with_logsumexp_costs_what_attention_does():
    """torch's counter does not know the CPU kernel that it is written with."""
    q, k = empty(2, 5, 3, 8), empty(2, 9, 3, 8)
    attention = [op for op in watched(lambda: with_logsumexp(q, k, k)) if op.kind == "attention"]
    assert [op.flops for op in attention] == [4 * 2 * 3 * 5 * 9 * 8]


def test_bytes_are_arguments_and_results_once_each():
    a, b = empty(6, 4), empty(4, dtype=torch.float16)
    (op,) = watched(lambda: a + b)
    assert (op.kind, op.flops, op.bytes) == ("rest", 0, 6 * 4 * 4 + 4 * 2 + 6 * 4 * 4)
    (op,) = watched(lambda: a[:2].copy_(a[2:4]))  # only the part that is seen
    assert op.bytes == 2 * 2 * 4 * 4
    assert touched_bytes(empty(1, 4).expand(1000, 4)) == 16


@pytest.mark.parametrize(
    ("op", "seconds"),
    [
        (Op("matmul", 4e3, 1, 4), 3e-6 + 4e3 / 0.5e9),
        (Op("matmul", 4e3, 1, 2), 3e-6 + 4e3 / 4e9),
        (Op("attention", 4e3, 1, 2), 3e-6 + 4e3 / 2e9),
        (Op("matmul", 1, 4e3, 2), 3e-6 + 4e3 / 2e9),
        (Op("rest", 0, 4e3, 4), 3e-6 + 4e3 / 2e9),
    ],
)
def test_seconds_are_the_longer_of_arithmetic_and_traffic(op, seconds):
    assert kernel_seconds(op, DEVICE) == pytest.approx(seconds, rel=1e-12)


def test_only_an_asynchronous_host_runs_ahead():
    op = Op("rest", 0, 200e-6 * 2e9, 4)  # far longer than it takes to issue it
    for asynchronous, host, read in ((True, 3 * 7e-6, 7e-6 + 3 * 203e-6), (False, 3 * 210e-6, 3 * 210e-6)):
        device = DeviceConfig(**{**vars(DEVICE), "asynchronous": asynchronous})
        clock = DeviceClock(device)
        for _ in range(3):
            clock.charge(as_segment(op, device))
        assert (clock.host_s, clock.read()) == pytest.approx((host, read), rel=1e-12)


def test_the_edges_and_the_last_wave_of_a_product_cost_what_whole_tiles_do():
    tile = 2 * TILE * TILE * (64 + START)
    for rows, columns, tiles in ((TILE, TILE, 1), (TILE + 1, TILE, 2), (3 * TILE, 2 * TILE, 6)):
        op = Op("matmul", 2.0 * rows * columns * 64, 0.0, 2, (1, rows, columns, 64))
        assert computed_flops(op, 10) == (tiles + 10 / 2) * tile
        assert computed_flops(op, 0) == op.flops  # no multiprocessors, no tiles
    one, many = (Op("matmul", 1.0, 0.0, 2, (count, TILE, TILE, 64)) for count in (1, 7))
    assert computed_flops(many, 10) - computed_flops(one, 10) == 6 * tile


@pytest.mark.parametrize(
    ("rows", "columns", "tile"), [(2, 1, (16, 16)), (33, 32, (64, 32)), (96, 500, (128, 128))]
)
def test_a_tile_is_no_larger_than_its_product_needs(rows, columns, tile):
    tiles, (height, width) = ceil(columns / tile[1]) * ceil(rows / tile[0]), tile
    for itemsize, start in ((2, START), (4, 0)):
        op = Op("matmul", 1.0, 0.0, itemsize, (1, rows, columns, 64))
        assert computed_flops(op, 10) == 2 * (tiles + 10 / 2) * height * width * (64 + start)


@pytest.mark.parametrize(("size", "filled"), [(64, 64), (72, 96), (88, 96), (128, 128)])
def test_attention_fills_heads_up(size, filled):
    op = Op("attention", 4e3 * size, 0.0, 2, (size,))
    assert computed_flops(op, 10) == pytest.approx(4e3 * filled)


def test_tensors_that_fit_into_the_cache_are_read_faster():
    device = replace(DEVICE, cache_bytes=1000)
    assert traffic_seconds(Op("rest", 0.0, 1000.0, 2), device) == 1000 / 2e9 / CACHED
    assert traffic_seconds(Op("rest", 0.0, 1001.0, 2), device) == 1001 / 2e9


def test_a_compiler_leaves_a_share_of_element_wise_work():
    device = replace(DEVICE, unfused=0.25)
    rest, product = Op("rest", 0.0, 4e3, 2), Op("matmul", 4e3, 1.0, 2)
    assert kernel_seconds(rest, device) == kernel_seconds(rest, DEVICE) / 4
    assert kernel_seconds(product, device) == kernel_seconds(product, DEVICE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("linear", (1, 10, 11, 7)), ("batched", (3, 5, 11, 7)), ("conv", (1, 8, 13, 48)), ("attention", (8,))],
)
def test_the_shape_of_an_operation(name, shape):
    (op,) = watched(PRODUCTS[name][0])
    assert op.shape == shape
