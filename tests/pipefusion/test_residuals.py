"""What compressed residuals keep of K, V, and how many bytes they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipefusion.core.residuals import BITS, COMPRESS, Codec

HOWS = COMPRESS[1:]


def kv(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(3)).to(dtype)


def through(how: str, x: Tensor) -> Tensor:
    codec = Codec(how, tuple(x.shape), x.dtype)
    return codec.decode(codec.encode(x))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", HOWS)
def test_a_message_has_its_closed_form_and_comes_back_in_shape(how, dtype, device):
    x = kv(2, 1, 3, 11, 5, dtype=dtype).to(device)  # 330 numbers: no whole bytes of bits
    codec = Codec(how, tuple(x.shape), dtype)
    message = codec.encode(x)
    got = codec.decode(message)
    assert (message.dtype, message.shape) == (torch.uint8, (codec.nbytes,))
    assert (got.dtype, got.shape, got.device) == (dtype, x.shape, x.device)


@pytest.mark.parametrize(
    ("how", "nbytes"),
    [
        ("int1", 24 * 4 + 48),
        ("int2", 24 * 4 + 96),
        ("int4", 24 * 4 + 192),
        ("topk", 6 * 4 * (4 + 4)),
        ("lowrank", 6 * 3 * (16 + 4) * 4),
    ],
)
def test_bytes_of_six_heads_of_sixteen_tokens(how, nbytes):
    """384 numbers in float32, 4 channels a head."""
    assert Codec(how, (2, 1, 3, 16, 4), torch.float32).nbytes == nbytes


@pytest.mark.parametrize(("how", "distance"), [("int1", 2.0), ("int2", 1.25), ("int4", 0.42)])
def test_every_number_becomes_the_nearest_level_of_its_channel(how, distance):
    x = kv(2, 1, 2, 32, 3)
    step = distance * x.abs().mean(-2, keepdim=True)
    levels = torch.arange(2 ** BITS[how]) - (2 ** BITS[how] - 1) / 2
    best = (x[..., None] - levels * step[..., None]).abs().min(-1).values
    assert torch.allclose((x - through(how, x)).abs(), best, atol=1e-6)


def test_top_k_keeps_the_largest_of_each_head_as_they_are():
    x = kv(2, 1, 3, 16, 4)
    got = through("topk", x)
    kept = got != 0
    assert kept.flatten(-2).sum(-1).unique().tolist() == [4] and torch.equal(got[kept], x[kept])
    assert (
        x.where(kept, 9.0).abs().flatten(-2).min(-1).values >= x.where(~kept, 0).abs().flatten(-2).amax(-1)
    ).all()


def test_low_rank_is_exact_for_a_matrix_of_few_dimensions():
    x = kv(2, 1, 2, 20, 4) @ kv(2, 1, 2, 4, 16)
    assert torch.allclose(through("lowrank", x), x, atol=1e-4)
    assert not torch.allclose(through("lowrank", x + kv(2, 1, 2, 20, 16)), x, atol=1e-2)


@pytest.mark.parametrize("how", HOWS)
def test_nothing_changed_is_nothing_sent_and_feedback_makes_up_for_what_is_left_out(how):
    x, base = kv(2, 1, 2, 32, 16), torch.zeros(2, 1, 2, 32, 16)
    assert torch.equal(through(how, base), base)  # padded heads
    errors = []
    for _ in range(8):
        base = base + through(how, x - base)
        errors.append(float((x - base).norm() / x.norm()))
    assert errors[0] > 0.05 and errors[-1] < errors[0] / 3 and errors == sorted(errors, reverse=True)
