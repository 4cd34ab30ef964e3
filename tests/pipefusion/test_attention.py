"""Partial attention and its merging, against softmax written out."""

import pytest
import torch

from pipefusion.core.attention import full, merge, pick_kernel, run_kernel, with_logsumexp


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(3)


def test_full_attention_is_softmax():
    q, k, v = draw(2, 5, 3, 8), draw(2, 7, 3, 8) + 1, draw(2, 7, 3, 8)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / 8**0.5
    want = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)
    torch.testing.assert_close(full(q, k, v), want)


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_merging_two_parts_gives_the_whole(cut):
    q, k, v = draw(2, 5, 3, 8), draw(2, 7, 3, 8), draw(2, 7, 3, 8)
    first = with_logsumexp(q, k[:, :cut], v[:, :cut])
    second = with_logsumexp(q, k[:, cut:], v[:, cut:])
    out, lse = merge(*first, *second)
    torch.testing.assert_close(out, full(q, k, v))
    torch.testing.assert_close(lse, with_logsumexp(q, k, v)[1])


def test_merging_keeps_its_head_when_scores_are_far_apart():
    q = torch.ones(1, 1, 1, 4)
    near = with_logsumexp(q, 200 * torch.ones(1, 1, 1, 4), torch.full((1, 1, 1, 4), 2.0))
    far = with_logsumexp(q, -200 * torch.ones(1, 1, 1, 4), torch.full((1, 1, 1, 4), 5.0))
    for pair in ((near, far), (far, near)):
        out, lse = merge(*pair[0], *pair[1])
        torch.testing.assert_close(out, torch.full((1, 1, 1, 4), 2.0))
        torch.testing.assert_close(lse, near[1])


@pytest.mark.parametrize(
    ("capability", "dtype", "kernel"),
    [
        ((8, 0), torch.bfloat16, "flash"),
        ((9, 0), torch.float16, "flash"),
        ((7, 5), torch.float16, "efficient"),  # T4
        ((8, 0), torch.float32, "efficient"),
    ],
)
def test_flash_attention_is_for_16_bits_and_newer_gpus(monkeypatch, capability, dtype, kernel):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_kernel(torch.device("cuda", 0), dtype) == kernel
    assert pick_kernel(torch.device("cpu"), dtype) == "cpu"


@pytest.mark.parametrize("kernel", ["flash", "efficient"])
@pytest.mark.parametrize("size", [4, 12, 64])
def test_kernels_of_cuda_are_called_as_they_are_declared(kernel, size):
    """Both are known on `meta`, which checks the arguments."""
    q, k = (torch.empty(2, 3, tokens, size, dtype=torch.float16, device="meta") for tokens in (9, 20))
    out, lse = run_kernel(kernel, q, k, k)
    assert out.shape == q.shape and out.dtype == q.dtype
    assert lse.shape[:2] == (2, 3) and lse.shape[2] >= 9 and lse.dtype == torch.float32


@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_a_head_size_that_is_no_multiple_of_8_is_padded_exactly(monkeypatch, kernel):
    given = []

    def stand_in(q, k, v, *rest, scale):
        given.append(q.shape[-1])
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)

    monkeypatch.setattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention", stand_in)
    q, k, v = draw(2, 3, 5, 12), draw(2, 3, 7, 12) + 1, draw(2, 3, 7, 12)
    for got, want in zip(run_kernel(kernel, q, k, v), run_kernel("cpu", q, k, v), strict=True):
        torch.testing.assert_close(got, want)
    assert given == [16]


def test_a_masked_key_is_none() -> None:
    q, k, v = torch.randn(3, 2, 6, 4, 8)
    kept = torch.tensor([True, False, True, True, False, True])
    mask = torch.zeros(2, 1, 1, 6).masked_fill(~kept, float("-inf"))
    want = with_logsumexp(q, k[:, kept], v[:, kept])
    for found, expected in zip(with_logsumexp(q, k, v, mask), want, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(full(q, k, v, mask), want[0])
