"""Distances of tensors: exact where they are numbers, an error where there is no number."""

from __future__ import annotations

import pytest
import torch

from experiments.difference import NotFinite, largest_difference, norm_of_difference


def test_differences_are_relative_to_what_is_wanted() -> None:
    want = torch.tensor([[3.0, -4.0], [0.0, 2.0]])
    got = want + torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert largest_difference(got, want) == 0.25
    assert norm_of_difference(got, want).tolist() == pytest.approx([0.2, 0.0])
    assert float(norm_of_difference(got, want, 0)) == pytest.approx(29**-0.5)
    assert largest_difference(torch.zeros(2), torch.zeros(2)) == 0
    assert largest_difference(torch.ones(2), torch.zeros(2)) > 1e30


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("compare", [largest_difference, norm_of_difference])
def test_what_is_not_finite_is_not_compared(compare, bad: float) -> None:
    fine, broken = torch.ones(2, 2), torch.tensor([[1.0, bad], [1.0, 1.0]])
    with pytest.raises(NotFinite, match="the reference has NaN or infinite values"):
        compare(fine, broken)
    with pytest.raises(NotFinite, match="what is compared has NaN or infinite values"):
        compare(broken, fine)
    with pytest.raises(NotFinite):
        compare(broken, broken)  # equal to the bit, and equal to nothing


def test_another_size_is_as_far_as_can_be() -> None:
    assert largest_difference(torch.ones(2, 2), torch.ones(1, 2)) == float("inf")
