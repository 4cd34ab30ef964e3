"""What is charged and what is free, what a call returns the second time, and whose memory its result is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipefusion.core.memory import PeakTracker
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import Meter

DEVICE = DeviceConfig("toy", launch_s=1.0, kernel_s=1.0)


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def charged(call) -> int:
    """Kernels of a call, the same the first time and from memory."""
    meter, counts = Meter(DEVICE), []
    with torch.inference_mode(), MetaMode(lambda: meter):
        for _ in range(2):
            before = meter.ops
            call()
            counts.append(meter.ops - before)
    assert counts[0] == counts[1]
    return counts[0]


X, Y = empty(6, 4), empty(6, 4)
FREE = {
    "view": lambda: X.view(3, 8),
    "transpose": lambda: X.t(),
    "slice": lambda: X[2:, None, :1],
    "chunk": lambda: X.chunk(2),
    "property": lambda: X.shape,
    "contiguous already": lambda: X.contiguous(),
    "flatten of contiguous": lambda: X.flatten(),
    "same dtype": lambda: X.to(torch.float32),
    "dropout when not training": lambda: F.dropout(X, 0.1, training=False),
    "host": lambda: torch.ones(3) * torch.arange(3) + 1,
    "reserving memory": lambda: torch.empty_like(X),
}
ONE = {
    "add": lambda: X + Y,
    "in place": lambda: X.add_(Y),
    "augmented": lambda: augmented(),
    "fill": lambda: X.zero_(),
    "copy into a slice": lambda: X[:2].copy_(Y[:2]),
    "set item": lambda: X.__setitem__(slice(0, 2), 0.0),
    "contiguous of transposed": lambda: X.t().contiguous(),
    "flatten of transposed": lambda: X.t().flatten(),
    "other dtype": lambda: X.to(torch.float16),
    "layer norm": lambda: F.layer_norm(X, (4,)),
    "cat": lambda: torch.cat([X, Y]),
    "gathered by a list": lambda: X[[0, 2]],
    "gathered by a tensor": lambda: X[:, torch.tensor([0, 1])],
    "in place by option": lambda: F.relu(X, inplace=True),
    "host scalar": lambda: torch.tensor(2.0) * X,
}


def augmented() -> None:
    x = X
    x += Y


@pytest.mark.parametrize("name", FREE)
def test_free(name):
    assert charged(FREE[name]) == 0


@pytest.mark.parametrize("name", ONE)
def test_one_kernel(name):
    assert charged(ONE[name]) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.add(X, Y, out=empty(6, 4)),
        lambda: torch.einsum("ij,kj->ik", X, Y),
        lambda: F.conv_transpose2d(empty(1, 4, 8, 8), empty(4, 4, 2, 2), stride=2),
    ],
)
def test_what_has_no_known_cost_is_refused(call):
    with pytest.raises(TypeError, match="not known"):
        charged(call)


def kinds(value: torch.Tensor | tuple[torch.Tensor, ...]) -> list[tuple]:
    tensors = [value] if isinstance(value, torch.Tensor) else value
    return [(each.shape, each.stride(), each.dtype, each.device) for each in tensors]


def test_results_are_like_those_of_the_call_itself():
    meter = Meter(DEVICE)
    calls = [
        lambda: X.t() * 2,  # keeps its argument's strides
        lambda: X.to(torch.float16),
        lambda: torch.stack([X, Y]).movedim(0, 1).contiguous(),
        lambda: torch.arange(3, device="meta") + 1,
        lambda: torch.arange(3, device="meta") + 1.0,  # promotes otherwise
        lambda: torch.topk(X, 2),
    ]
    wanted = [kinds(call()) for call in calls]
    with torch.inference_mode(), MetaMode(lambda: meter):
        for _ in range(2):
            assert [kinds(call()) for call in calls] == wanted
        x = empty(2)
        assert x.add_(1) is x and x.add_(1) is x


def test_bytes_live_are_counted_like_the_tracker_counts_them():
    def program():
        a = torch.zeros(1000, device="meta")
        b = a + 1
        c = b.view(10, 100)[2:]
        del a, b
        d = c * 2
        e = d.chunk(2, dim=1)[0].contiguous()
        del c, d
        f = torch.cat([e, e])
        del e
        f.mul_(2)

    with PeakTracker() as tracker:
        program()
    meter = Meter(DEVICE)
    with torch.inference_mode(), MetaMode(lambda: meter):
        for _ in range(2):
            meter.peak_bytes = 0
            program()
            assert (meter.peak_bytes, meter.live_bytes) == (tracker.peak_bytes, 0)
    assert tracker.peak_bytes > 0


def test_a_tensor_belongs_to_the_rank_that_made_it():
    meters, current = [Meter(DEVICE), Meter(DEVICE)], 0
    with torch.inference_mode(), MetaMode(lambda: meters[current]):
        mine = X + 1
        current = 1
        theirs = X + 1
        assert [meter.live_bytes for meter in meters] == [96, 96]
        del mine  # while the other one runs
        assert [meter.live_bytes for meter in meters] == [0, 96]
        del theirs
    assert [meter.live_bytes for meter in meters] == [0, 0]


def test_held_tensors_count_once_however_many_views_there_are():
    meter, base = Meter(DEVICE), empty(10, 10)
    meter.hold([base, base[2:], base.t()])
    assert meter.live_bytes == 400
