"""From stored pictures to numbers: metrics of settings, and floors, which are of pictures that ought not to differ.

Settings that have their pictures from one setting are measured by one process, which computes what they share once.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file
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
from experiments.quality.look import look
from experiments.quality.networks import open_network
from experiments.quality.paired import feature_distance, latent_error, mean_interval, psnr, ssim
from experiments.quality.settings import Eyes, SettingConfig
from experiments.quality.store import Pictures
from experiments.quality.text_score import open_scorer

PAIRED: dict[str, str | None] = {
    "latent_error": None,
    "psnr_db": None,
    "ssim": None,
    "feature_distance": "efficientnet_lite0",
}
"""Metrics of a picture against serial's, and the network of those that have one."""


def seen_rows(
    own: SettingConfig, mine: Pictures, serial: Pictures | None, real: Path, texts: list[str]
) -> list[Row]:
    """Class score, distances to real pictures and to as many of serial's (None: they are serial's), text fit."""
    n, eyes, network = own.pictures, own.eyes, open_network(own.eyes.network)
    seen = look(mine, n, eyes)
    rows = [estimate_row(class_score(seen["logits"], network), None)]
    for against, reference in (("real", real), ("serial", serial)):
        if reference is not None:
            rows.append(estimate_row(frechet(mine, reference, n, eyes, own.resamples), against))
            rows.append(estimate_row(kernel(mine, reference, n, eyes), against))
    if serial is not None and serial != mine:
        both = (frechet(one, real, n, eyes, own.resamples) for one in (mine, serial))
        rows.append(estimate_row(frechet_excess(*both), "real"))
    rows.append(mean_row("text_score", "prompt", open_scorer(eyes.clip).name, seen["scores"]))
    if own.captions is not None:
        right = torch.tensor([own.captions.index(text) for text in texts[:n]])
        nearest = similarity(seen["features"], picture_features(real, n, eyes)).argmax(1)
        more = {"preprocessing": network.preprocessing, "n_reference": len(own.captions)}
        rows.append(mean_row("nearest_top1", "real", network.name, (nearest == right).double()) | more)
    return rows


def paired_rows(values: dict[str, Tensor]) -> list[Row]:
    """Mean and interval of each paired metric, with the value of each picture."""
    rows = []
    for metric, network in PAIRED.items():
        found = values[metric]
        equal = int(found.isinf().sum())
        note = f"{equal} of {len(found)} pictures equal" if equal else None
        more = {"n_reference": len(found), "values": found.tolist(), "note": note}
        rows.append(mean_row(metric, "serial", network, found) | more)
    return rows


def real_floor(own: SettingConfig, real: Path) -> list[Row]:
    """Real pictures against other real ones, at the number of pictures of a setting."""
    network, found = open_network(own.eyes.network), load_file(real)["features"]
    distances = (partial(frechet_distance, resamples=own.resamples), kernel_distance)
    each = (floor(partial(one, network=network), found, own.pictures) for one in distances)
    return [estimate_row(one, "real") for one in each]


@lru_cache(maxsize=4)
def compare(mine: Pictures, serial: Pictures, count: int) -> dict[str, Tensor]:
    """The paired metrics of the first `count` pictures, each [n]."""
    parts = [
        (latent_error(ours, theirs), psnr(made, wanted), ssim(made, wanted), feature_distance(made, wanted))
        for (ours, made), (theirs, wanted) in zip(mine.read(count), serial.read(count), strict=True)
    ]
    return dict(zip(PAIRED, map(torch.cat, zip(*parts, strict=True)), strict=True))


@lru_cache(maxsize=8)
def frechet(mine: Pictures, reference: Pictures | Path, count: int, eyes: Eyes, resamples: int) -> Estimate:
    """Frechet distance of the first `count` pictures to as many of a setting's, or to all real ones."""
    made, real = (picture_features(one, count, eyes) for one in (mine, reference))
    return frechet_distance(made, real, open_network(eyes.network), resamples=resamples)


@lru_cache(maxsize=8)
def kernel(mine: Pictures, reference: Pictures | Path, count: int, eyes: Eyes) -> Estimate:
    """Kernel distance of the same."""
    made, real = (picture_features(one, count, eyes) for one in (mine, reference))
    return kernel_distance(made, real, open_network(eyes.network))


def picture_features(source: Pictures | Path, count: int, eyes: Eyes) -> Tensor:
    """Features [n, d] of the first `count` pictures, or of all real ones whose file it is."""
    seen = look(source, count, eyes) if isinstance(source, Pictures) else load_file(source)
    return seen["features"]


def estimate_row(estimate: Estimate, against: str | None) -> Row:
    """An estimate as columns."""
    return {name: value for name, value in vars(estimate).items() if name != "spread"} | {"against": against}


def mean_row(metric: str, against: str, network: str | None, values: Tensor) -> Row:
    """A mean over pictures as the same columns."""
    low, high = mean_interval(values)
    found = {"value": float(values.double().mean()), "low": low, "high": high, "n": len(values)}
    return {"metric": metric, "against": against, "network": network} | found
