"""Picture by picture: how far a method's output is from serial's, from the same noise and prompt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.difference import norm_of_difference
from experiments.features import activations

DEPTHS = (0, 2, 4, 10, 15)  # the last block of each resolution: 112, 56, 28, 14, 7 px
BATCH = 16


def latent_error(ours: Tensor, reference: Tensor) -> Tensor:
    """Norm of the difference over the norm of the reference, no unit; both [n, ...] -> [n]. Raises NotFinite."""
    return norm_of_difference(ours.double(), reference.double())


def psnr(ours: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, inf where equal; pictures [n, 3, h, w], clamped to 0..1 -> [n]."""
    ours, reference = ours.double().clamp(0, 1), reference.double().clamp(0, 1)
    return -10 * (ours - reference).square().flatten(1).mean(1).log10()


def ssim(ours: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity (Gaussian window of 11 px), 1 where equal; pictures as in `psnr`, at least 6 px -> [n]."""
    # Here and not above: importing torchmetrics takes more than a second, and every command reads this package.
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(
        ours.float().clamp(0, 1), reference.float().clamp(0, 1), data_range=1.0, reduction="none"
    )
    assert isinstance(found, Tensor)
    return found.reshape(len(ours))


def feature_distance(ours: Tensor, reference: Tensor) -> Tensor:
    """Distance of activations inside EfficientNet-Lite0, 0 where equal; pictures as in `psnr` -> [n] in 0..4.

    At each of five depths the channels of every place are scaled to length 1; the squared distance of the two is
    averaged over places, then over depths. It is built as LPIPS is, but on another network and not fitted to what
    people say, so its numbers compare with each other only.
    """
    found = []
    for a, b in zip(ours.split(BATCH), reference.split(BATCH), strict=True):
        pairs = zip(activations(a.clamp(0, 1), DEPTHS), activations(b.clamp(0, 1), DEPTHS), strict=True)
        apart = [
            (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean((1, 2)) for x, y in pairs
        ]
        found.append(torch.stack(apart).mean(0))
    return torch.cat(found)


def mean_interval(values: Tensor, seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of values [n] over pictures (percentiles of resampled means).

    An end is infinite if infinite values (a PSNR of equal pictures) are frequent enough. Raises ValueError when there
    is nothing to average, or NaN.
    """
    if not len(values) or bool(values.isnan().any()):
        raise ValueError("no pictures to average over, or NaN among their values")
    values, draw = values.double(), torch.Generator().manual_seed(seed)
    means = values[torch.randint(len(values), (resamples, len(values)), generator=draw)].mean(1).sort().values
    # Order statistics and no interpolation, which would make inf - inf of two infinite neighbours.
    cut = int(0.025 * resamples)
    return float(means[cut]), float(means[resamples - 1 - cut])
