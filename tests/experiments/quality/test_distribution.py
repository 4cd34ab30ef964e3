"""Distances of distributions against closed forms, a second implementation, and what their intervals promise."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from experiments.quality.distribution import (
    Estimate,
    class_score,
    floor,
    frechet_distance,
    frechet_excess,
    frechet_resampled,
    kernel_distance,
)
from experiments.quality.networks import Network

NETWORK = Network("somenet", 6, "as it is", lambda pictures: (pictures, pictures))


def draw(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def second_frechet(made: Tensor, real: Tensor) -> float:
    """The formula as published, by a general matrix square root."""
    a, b = made.double().numpy(), real.double().numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s @ t)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(root)))


def frechet(made: Tensor, real: Tensor, **options: int) -> Estimate:
    return frechet_distance(made, real, NETWORK, **options)


def test_frechet_of_two_gaussians() -> None:
    d, shift, scale = 4, 0.5, 2.0
    found = frechet(draw(20_000, d, 0, shift, scale), draw(20_000, d, 1), resamples=2)
    exact = d * shift**2 + d * (scale - 1) ** 2
    assert found.value == pytest.approx(exact, rel=0.03)
    assert (found.n, found.n_reference, found.note) == (20_000, 20_000, None)


@pytest.mark.parametrize("n", [200, 20])
def test_frechet_against_a_second_implementation(n: int) -> None:
    mix = draw(30, 30, 5)
    made, real = draw(n, 30, 2, 0.2) @ mix, draw(150, 30, 3) @ mix
    found = frechet(made, real, resamples=2)
    assert found.value == pytest.approx(second_frechet(made, real), rel=1e-4)
    assert found.note == (None if n > 30 else "covariance of rank n - 1 < d = 30: made n = 20")
    assert frechet(real, real, resamples=2).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [60, 20])
def test_resampled_frechet_is_that_of_the_resample(n: int) -> None:
    made, real = draw(n, 24, 0, 0.3).double(), draw(100, 24, 1).double()
    found = frechet_resampled(made, real, seed=7, resamples=3)
    picks = torch.Generator().manual_seed(7)
    for value in found:
        again = made[torch.randint(n, (n,), generator=picks)]
        assert float(value) == pytest.approx(second_frechet(again, real), rel=1e-4)


def test_excess_is_the_difference_and_its_interval_that_of_pairs() -> None:
    real, serial = draw(400, 4, 1), draw(400, 4, 2, 0.5)
    made = serial + 0.05 * draw(400, 4, 3) + 0.02
    each = [frechet(x, real) for x in (made, serial)]
    found = frechet_excess(*each)
    assert found.value == pytest.approx(each[0].value - each[1].value, rel=1e-9)
    assert found.high - found.low < 0.3 * min(one.high - one.low for one in each)
    assert found.low < found.value < found.high
    none = frechet_excess(each[1], each[1])
    assert (none.low, none.value, none.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="399 pictures of 400 of serial's: pairs are needed"):
        frechet_excess(frechet(made[1:], real), each[1])
    with pytest.raises(ValueError, match="resamples of both are needed"):
        frechet_excess(frechet(made, real, resamples=2), each[1])


@pytest.mark.slow
def test_intervals_cover_the_distance_and_the_excess() -> None:
    d, shift, more = 3, 0.7, 0.05
    real, exact = draw(20_000, d, 99), d * shift**2
    covered = excess_covered = 0
    for seed in range(40):
        serial = draw(400, d, seed, shift)
        made = serial + more + 0.02 * draw(400, d, 1000 + seed)
        both = [frechet(x, real, resamples=60) for x in (made, serial)]
        assert 0 <= both[1].low < both[1].value < both[1].high
        covered += both[1].low <= exact <= both[1].high
        excess = frechet_excess(*both)
        excess_covered += excess.low <= d * (shift + more) ** 2 - exact <= excess.high
    assert min(covered, excess_covered) >= 34  # of 40, 95 % of which are 38; four standard deviations below


def test_kernel_distance_is_unbiased_and_grows_with_the_shift() -> None:
    values = [
        kernel_distance(draw(60, 6, k), draw(60, 6, 100 + k), NETWORK, subsets=20).value for k in range(30)
    ]
    spread = float(np.std(values))
    assert abs(np.mean(values)) < 3 * spread / 30**0.5
    assert min(values) < 0 < max(values)
    apart = [
        kernel_distance(draw(200, 6, 0, s), draw(200, 6, 1), NETWORK).value for s in (0.0, 0.3, 0.6, 1.2)
    ]
    assert apart == sorted(apart)
    assert apart[1] > 3 * spread


def test_kernel_interval_is_as_wide_as_the_value_scatters() -> None:
    runs = [kernel_distance(draw(200, 6, k, 0.3), draw(200, 6, 100 + k), NETWORK) for k in range(40)]
    scatter = float(np.std([run.value for run in runs]))
    width = float(np.mean([run.high - run.low for run in runs])) / (2 * 1.96)
    assert 0.6 * scatter < width < 1.7 * scatter
    assert runs[0].note == "50 subsets of 100"


def test_the_generator_of_the_process_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    a = kernel_distance(draw(20, 6, 0), draw(20, 6, 1), NETWORK, seed=5)
    class_score(draw(20, 6, 0), NETWORK)
    assert torch.equal(torch.rand(1), expected)
    assert a == kernel_distance(draw(20, 6, 0), draw(20, 6, 1), NETWORK, seed=5)
    assert a != kernel_distance(draw(20, 6, 0), draw(20, 6, 1), NETWORK, seed=6)


def test_class_score_of_sure_and_unsure_classes() -> None:
    sure = 50 * torch.eye(8).repeat(5, 1)
    assert class_score(sure, NETWORK).value == pytest.approx(8, rel=1e-6)
    assert class_score(torch.zeros(40, 8), NETWORK).value == pytest.approx(1, rel=1e-6)
    logits = 2 * draw(300, 8, 0)
    found = class_score(logits, NETWORK)
    values = set()
    for _ in range(20):
        torch.rand(
            1
        )  # moves the process's generator, by which torchmetrics would shuffle: another order of sums
        values.add(class_score(logits, NETWORK).value)
    assert values == {found.value}
    p = logits.double().softmax(1)
    assert found.value == pytest.approx(float((p * (p / p.mean(0)).log()).sum(1).mean().exp()), rel=1e-6)
    assert 1 < found.low < found.value < found.high < 8
    assert found.n_reference is None


def test_floor_is_the_distance_of_disjoint_parts() -> None:
    real = torch.arange(10.0)[:, None]

    def spy(a: Tensor, b: Tensor) -> Estimate:
        assert not {*a.flatten().tolist()} & {*b.flatten().tolist()}
        return Estimate("frechet", "somenet", "", 0.0, 0.0, 0.0, len(a), len(b))

    for n in (3, 5):
        found = floor(spy, real, n)
        assert (found.n, found.n_reference, found.note) == (n, n, "real against real")
    short = floor(spy, real, 40)
    assert (short.n, short.n_reference) == (5, 5)
    assert "5 against 5 of 10 real pictures, where 40 against 40 was asked" in str(short.note)


def test_floor_is_what_a_perfect_generator_gets() -> None:
    real, seeds = draw(400, 6, 0), range(1, 21)
    distance = partial(frechet_distance, network=NETWORK, resamples=2)
    floors = np.mean([floor(distance, real, 200, seed=k).value for k in seeds])
    perfect = np.mean([frechet(draw(200, 6, k), draw(200, 6, 100 + k), resamples=2).value for k in seeds])
    assert perfect == pytest.approx(floors, rel=0.25)
    assert frechet(draw(200, 6, 1, 0.5), draw(200, 6, 2), resamples=2).value > 3 * floors


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_too_few_pictures_and_other_features_are_refused(distance: Callable[..., Estimate]) -> None:
    with pytest.raises(ValueError, match="too few"):
        distance(draw(1, 6, 0), draw(9, 6, 1), NETWORK)
    with pytest.raises(ValueError, match="6 and 7 channels"):
        distance(draw(9, 6, 0), draw(9, 7, 1), NETWORK)
