"""From stored pictures to numbers: metrics of settings, and floors, which are of pictures that ought not to differ.

Settings that have their pictures from one setting are measured by one process, which computes what they share once.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.features import similarity
from experiments.journal import Row
from experiments.quality.distribution import (
    Estimate,
    class_score,
    floor,
    frechet_distance,
    frechet_excess,
    kernel_distance,
)
from experiments.quality.look import captions_of, features_of, look_at
from experiments.quality.networks import open_network
from experiments.quality.paired import feature_distance, latent_error, mean_interval, psnr, ssim
from experiments.quality.settings import SettingConfig
from experiments.quality.store import Pictures
from experiments.quality.text_score import open_scorer

PAIRED: dict[str, str | None] = {
    "latent_error": None,
    "psnr_db": None,
    "ssim": None,
    "feature_distance": "efficientnet_lite0",
}
"""Metrics of a picture against serial's, and the network of those that have one."""
NAMES = {
    "frechet_distance": "frechet",
    "frechet_excess": "frechet_excess",
    "kernel_distance": "kid",
    "class_score": "inception_score",
}


def seen_rows(
    own: SettingConfig, mine: Pictures, serial: Pictures | None, real: Path, texts: list[str]
) -> list[Row]:
    """Class score, distances to real pictures and to as many of serial's (None: they are serial's), text fit."""
    look, network = own.real.look, open_network(own.real.look.network)
    seen, n = look_at(mine, own.pictures), own.pictures
    rows = [estimate_row(class_score(seen.logits, network), None)]
    for against, reference in (("real", real), ("serial", serial)):
        if reference is not None:
            given = (mine, n, reference, n if against == "serial" else None, look.network)
            rows.append(estimate_row(frechet(*given, own.resamples), against))
            rows.append(estimate_row(kernel(*given), against))
    if serial is not None and serial != mine:
        both = (frechet(one, n, real, None, look.network, own.resamples) for one in (mine, serial))
        rows.append(estimate_row(frechet_excess(*both), "real"))
    rows.append(mean_row("text_score", "prompt", open_scorer(look.clip).name, seen.scores))
    captions = captions_of(real)
    if captions is not None:
        right = torch.tensor([captions.index(text) for text in texts[:n]])
        nearest = similarity(seen.features, features_of(real, None)).argmax(1)
        more = {"preprocessing": network.preprocessing, "n_reference": len(captions)}
        rows.append(mean_row("nearest_top1", "real", network.name, (nearest == right).double()) | more)
    return rows


def paired_rows(values: dict[str, Tensor]) -> list[Row]:
    """Mean and interval of each paired metric, with the value of each picture."""
    rows = []
    for metric, network in PAIRED.items():
        found = values[metric]
        equal = int(found.isinf().sum())
        row = mean_row(metric, "serial", network, found) | {
            "n_reference": len(found),
            "values": found.tolist(),
        }
        rows.append(row | {"note": f"{equal} of {len(found)} pictures equal" if equal else None})
    return rows


def real_floor(own: SettingConfig, real: Path) -> list[Row]:
    """Real pictures against other real ones, at the number of pictures of a setting."""
    network, found = open_network(own.real.look.network), features_of(real, None)
    distances = (partial(frechet_distance, resamples=own.resamples), kernel_distance)
    each = (floor(partial(one, network=network), found, own.pictures) for one in distances)
    return [estimate_row(one, "real") for one in each]


def seeds_floor(own: SettingConfig, serial: Pictures, other: Pictures) -> list[Row]:
    """Serial against serial from other noise."""
    n, network = own.pictures, own.real.look.network
    found = (frechet(other, n, serial, n, network, own.resamples), kernel(other, n, serial, n, network))
    return [estimate_row(one, "serial") for one in found]


@lru_cache(maxsize=4)
def compare(mine: Pictures, serial: Pictures, count: int) -> dict[str, Tensor]:
    """The paired metrics of the first `count` pictures, each [n]."""
    found: dict[str, list[Tensor]] = {name: [] for name in PAIRED}
    for (ours, made), (theirs, wanted) in zip(mine.read(count), serial.read(count), strict=True):
        found["latent_error"].append(latent_error(ours, theirs))
        found["psnr_db"].append(psnr(made, wanted))
        found["ssim"].append(ssim(made, wanted))
        found["feature_distance"].append(feature_distance(made, wanted))
    return {name: torch.cat(parts) for name, parts in found.items()}


@lru_cache(maxsize=8)
def frechet(
    mine: Pictures, count: int, reference: Pictures | Path, like: int | None, network: str, resamples: int
) -> Estimate:
    """Frechet distance of the first `count` pictures to `like` of a setting's, or to all real ones."""
    given = features_of(mine, count), features_of(reference, like)
    return frechet_distance(*given, open_network(network), resamples=resamples)


@lru_cache(maxsize=8)
def kernel(
    mine: Pictures, count: int, reference: Pictures | Path, like: int | None, network: str
) -> Estimate:
    """Kernel distance of the same."""
    return kernel_distance(features_of(mine, count), features_of(reference, like), open_network(network))


def estimate_row(estimate: Estimate, against: str | None) -> Row:
    """An estimate as columns."""
    return {
        "metric": NAMES[estimate.metric],
        "against": against,
        "network": estimate.network,
        "preprocessing": estimate.preprocessing,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "n_reference": estimate.n_reference or None,
        "note": estimate.note or None,
    }


def mean_row(metric: str, against: str, network: str | None, values: Tensor) -> dict[str, Any]:
    """A mean over pictures as the same columns."""
    mean = mean_interval(values)
    parts = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
    return {"metric": metric, "against": against, "network": network} | parts
