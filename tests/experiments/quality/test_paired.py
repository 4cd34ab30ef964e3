"""Distances of pairs against their closed forms."""

import math

import pytest
import torch
from torch import Tensor

from experiments.quality.paired import feature_distance, latent_error, mean_interval, psnr, ssim


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2


def test_latent_error() -> None:
    reference = torch.tensor([[3.0, 4.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    ours = reference + torch.tensor([0.0, 0.5]).reshape(1, 1, 1, 2)
    assert latent_error(ours, reference).tolist() == pytest.approx([0.1, 0.5])
    assert latent_error(reference, reference).tolist() == [0, 0]


def test_psnr(pictures: Tensor) -> None:
    assert psnr(pictures, pictures).tolist() == [math.inf] * 3
    shifts = torch.tensor([0.1, 0.01, 0.2])
    found = psnr(pictures + shifts[:, None, None, None], pictures)
    assert found.tolist() == pytest.approx([20.0, 40.0, -20 * math.log10(0.2)], abs=1e-3)
    assert psnr(pictures * 0 + 1.5, pictures * 0 + 1).tolist() == [math.inf] * 3  # both are white


def test_ssim(pictures: Tensor) -> None:
    assert ssim(pictures, pictures).tolist() == pytest.approx([1.0] * 3)
    # Of two flat pictures only the term of the means is left.
    a, b, c1 = 0.3, 0.6, 0.01**2
    flat = torch.ones(1, 3, 24, 24)
    assert ssim(a * flat, b * flat).tolist() == pytest.approx(
        [(2 * a * b + c1) / (a * a + b * b + c1)], rel=1e-3
    )
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    noise[0] = 0
    found = ssim(pictures + 0.1 * noise, pictures)
    assert found.shape == (3,)
    assert found[0] == pytest.approx(1.0)
    assert found[1:].max() < 0.95


def test_feature_distance(pictures: Tensor) -> None:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    found = torch.stack([feature_distance(pictures + s * noise, pictures) for s in (0.0, 0.02, 0.2)])
    assert found[0].tolist() == [0, 0, 0]
    assert (found.diff(dim=0) > 0).all()
    assert found.max() < 4
    swapped = feature_distance(pictures, pictures + 0.02 * noise)
    torch.testing.assert_close(swapped, found[1], rtol=1e-4, atol=1e-6)


def test_feature_distance_does_not_depend_on_the_batch(pictures: Tensor) -> None:
    ours = pictures.flip(3)
    one_by_one = [feature_distance(ours[k : k + 1], pictures[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(torch.cat(one_by_one), feature_distance(ours, pictures), rtol=1e-4, atol=1e-6)


def test_mean_interval_covers() -> None:
    draw, covered = torch.Generator().manual_seed(0), 0
    for seed in range(100):
        values = torch.rand(40, generator=draw) ** 2
        low, high = mean_interval(values, seed)
        assert low < values.mean() < high
        covered += low <= 1 / 3 <= high
    assert 86 <= covered <= 99
    same = torch.rand(9)
    assert mean_interval(same, 1) == mean_interval(same, 1) != mean_interval(same, 2)


def test_what_is_not_a_number_has_no_mean() -> None:
    with pytest.raises(ValueError, match="NaN"):
        mean_interval(torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="the reference has NaN or infinite values"):
        latent_error(torch.ones(2, 3), torch.full((2, 3), torch.inf))


def test_mean_interval_of_equal_pictures() -> None:
    assert mean_interval(torch.full((5,), math.inf)) == (math.inf, math.inf)
    assert mean_interval(torch.tensor([math.inf] + [30.0] * 9)) == (30.0, math.inf)
    with pytest.raises(ValueError, match="no pictures"):
        mean_interval(torch.empty(0))
