"""One set of pictures against another: Frechet distance, kernel distance and class score, with intervals and floors.

Values come from torchmetrics, fed with features that are computed already. (It is imported where it is used: that takes
more than a second, and every command reads the table of measures.) Only with the inception network are they called
FID, KID and IS; with any other the name of the network belongs to the number, and n to both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from experiments.difference import require_finite
from experiments.quality.networks import Network

LARGEST_SUBSET = 1000  # of KID, as published


@dataclass(frozen=True)
class Estimate:
    """One number about `n` pictures (against `n_reference` others), its 95 % interval, and what to know about it."""

    metric: str
    network: str
    preprocessing: str
    value: float
    low: float
    high: float
    n: int
    n_reference: int | None = None
    note: str | None = None
    # [b] values of resamples, where the difference of two estimates may be wanted; about their own mean, not `value`.
    spread: Tensor | None = field(default=None, repr=False, compare=False)


class Given(nn.Module):
    """The feature network of a metric whose pictures are features already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(
    made: Tensor, real: Tensor, network: Network, seed: int = 0, resamples: int = 50
) -> Estimate:
    """Frechet distance of two Gaussians fitted to features [n, d] and [m, d]; in squared units of the features.

    The interval is a bootstrap over the made pictures with the reference as it is. A resample has duplicates, so its
    covariance is off and its distance too large; therefore the spread of the resamples about their own mean is laid
    about the value. The value itself is biased upward too, the more the smaller n: compare at equal n and m only, and
    with the floor. Raises ValueError for fewer than two pictures on a side.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    check(made, real)
    metric = FrechetInceptionDistance(Given(made.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    value = float(metric.compute())
    spread = frechet_resampled(made.double(), real.double(), seed, resamples)
    low, high = centred(value, spread)
    low = max(low, min(0.0, value))  # no distance is less than 0, but for rounding
    found = Estimate("frechet", network.name, network.preprocessing, value, low, high, len(made), len(real))
    return replace(found, note=rank_note(made, real), spread=spread)


def frechet_excess(made: Estimate, serial: Estimate) -> Estimate:
    """How much further pictures are from real ones than serial's are: one Frechet distance less the other.

    Picture k of both is from the same prompt and noise, and a resample took both or neither, so that the interval is
    of the difference alone: what a draw of prompts does to both distances, most of their own intervals, is not in it.
    Raises ValueError for distances of which that is not true: unequal n, other resamples.
    """
    if made.n != serial.n:
        raise ValueError(f"{made.n} pictures of {serial.n} of serial's: pairs are needed")
    if made.spread is None or serial.spread is None or len(made.spread) != len(serial.spread):
        raise ValueError("resamples of both are needed, as many of one as of the other")
    value = made.value - serial.value
    low, high = centred(value, made.spread - serial.spread)
    note = "; ".join(filter(None, ["over serial's, pairs resampled together", made.note]))
    return replace(made, metric="frechet_excess", value=value, low=low, high=high, note=note, spread=None)


def rank_note(made: Tensor, real: Tensor) -> str | None:
    """Which covariances have directions that no picture went in."""
    flat = [f"{who} n = {len(x)}" for who, x in (("made", made), ("reference", real)) if len(x) <= x.shape[1]]
    return f"covariance of rank n - 1 < d = {made.shape[1]}: {', '.join(flat)}" if flat else None


def kernel_distance(
    made: Tensor, real: Tensor, network: Network, seed: int = 0, subsets: int = 50
) -> Estimate:
    """Squared maximum mean discrepancy of features [n, d] and [m, d], cubic polynomial kernel; unbiased at any n.

    The mean over random subsets of half the smaller side (at most 1000). The interval is 1.96 standard deviations of
    the subsets: a half without replacement scatters about the whole as much as the whole does about the truth. Where a
    subset is less than half of a side the interval is too wide rather than too narrow. Raises ValueError for fewer
    than four pictures on a side.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    check(made, real, at_least=4)
    size = min(len(made) // 2, len(real) // 2, LARGEST_SUBSET)
    with quiet():
        metric = KernelInceptionDistance(Given(made.shape[1]), subsets=subsets, subset_size=size)
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    with torch.random.fork_rng(devices=[]):  # it draws its subsets from the generator of the process
        torch.manual_seed(seed)
        value, deviation = (float(x) for x in metric.compute())
    half = 1.96 * deviation
    both, given = (value - half, value + half), (network.name, network.preprocessing)
    return Estimate("kid", *given, value, *both, len(made), len(real), f"{subsets} subsets of {size}")


def class_score(logits: Tensor, network: Network, seed: int = 0, resamples: int = 200) -> Estimate:
    """exp of the mean KL divergence of each picture's classes from the mean of all; logits [n, classes] -> 1..classes.

    The inception score when the network is inception's; in one split, so that it has the whole n. It knows nothing of
    the reference, and its classes are ImageNet's: of other pictures it says little. Interval as in `frechet_distance`
    (duplicates make it too small here). Raises ValueError for fewer than two pictures.
    """
    from torchmetrics.image.inception import InceptionScore

    check(logits, logits)
    with quiet(), torch.random.fork_rng(devices=[]):  # of one split it takes a deviation too, and it shuffles
        torch.manual_seed(seed)
        metric = InceptionScore(Given(logits.shape[1]), splits=1)
        metric.update(logits.double())
        value = float(metric.compute()[0])
    p = logits.double().softmax(1)
    entropies = (p * logits.double().log_softmax(1)).sum(1)
    spread = []
    for weights in resampled(len(p), seed, resamples):
        mean = weights @ p
        spread.append((weights @ entropies - torch.special.xlogy(mean, mean).sum()).exp())
    ends = centred(value, torch.stack(spread))
    return Estimate("inception_score", network.name, network.preprocessing, value, *ends, len(logits))


def floor(distance: Callable[[Tensor, Tensor], Estimate], real: Tensor, n: int, seed: int = 0) -> Estimate:
    """The distance of real pictures from real ones: two disjoint random parts of `n`.

    What a perfect generator would get. When there are fewer than 2 n real pictures the parts shrink, and the note says
    so: a Frechet floor is then higher than the one asked for.
    """
    size = min(n, len(real) // 2)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
    found = distance(real[order[:size]], real[order[size : 2 * size]])
    few = f"{size} against {size} of {len(real)} real pictures, where {n} against {n} was asked"
    notes = ("real against real", found.note, few if size < n else None)
    return replace(found, note="; ".join(filter(None, notes)))


def frechet_resampled(made: Tensor, real: Tensor, seed: int, resamples: int) -> Tensor:
    """Frechet distances [resamples] of resampled made pictures [n, d] from the reference [m, d], float64.

    With R the square root of the reference's covariance, tr sqrt(R S R) needs the eigenvalues of a symmetric matrix
    only. R S R is the covariance of made @ R, computed once for all resamples; when n < d the products of its rows
    have the same eigenvalues and are the smaller matrix.
    """
    centre = real.mean(0)
    values, vectors = torch.linalg.eigh((real - centre).T @ (real - centre) / (len(real) - 1))
    values = values.clamp(min=0)
    made = made - centre
    turned = made @ (vectors * values.sqrt()) @ vectors.T
    squares = made.square().sum(1)
    found = []
    for weights in resampled(len(made), seed, resamples):
        kept = weights > 0
        w, more = weights[kept], len(made) / (len(made) - 1)
        mean = w @ made[kept]
        rows = (turned[kept] - w @ turned[kept]) * (w * more).sqrt()[:, None]
        inner = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
        cross = torch.linalg.eigvalsh(inner).clamp(min=0).sqrt().sum()
        shift = mean.square().sum()
        found.append(shift + more * (w @ squares[kept] - shift) + values.sum() - 2 * cross)
    return torch.stack(found)


def resampled(n: int, seed: int, resamples: int) -> list[Tensor]:
    """For each bootstrap resample the share [n] of every picture in it, float64, adding up to 1."""
    draw = torch.Generator().manual_seed(seed)
    picks = [torch.randint(n, (n,), generator=draw) for _ in range(resamples)]
    return [torch.bincount(pick, minlength=n).double() / n for pick in picks]


def centred(value: float, spread: Tensor) -> tuple[float, float]:
    """95 % of resampled values [b] about their mean, laid about the value."""
    low, high = (spread - spread.mean()).quantile(torch.tensor([0.025, 0.975], dtype=spread.dtype))
    return value + float(low), value + float(high)


def check(made: Tensor, real: Tensor, at_least: int = 2) -> None:
    """Raises ValueError for too few pictures, features of two networks, or such as are not finite."""
    if min(len(made), len(real)) < at_least:
        raise ValueError(
            f"{len(made)} and {len(real)} pictures are too few; allowed: {at_least} or more of each"
        )
    if made.shape[1:] != real.shape[1:]:
        raise ValueError(f"features of {made.shape[1]} and {real.shape[1]} channels cannot be compared")
    for features in (made, real):
        require_finite(features, "the network's features")


def quiet() -> warnings.catch_warnings:
    """Without torchmetrics' warnings of memory that it needs for features, which are in memory already."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
