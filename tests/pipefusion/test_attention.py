"""Partial attention and its merging, against softmax written out."""

import pytest
import torch

from pipefusion.core.attention import full, merge, with_logsumexp


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
