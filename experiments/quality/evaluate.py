"""What is computed of stored pictures, one setting at a time: features once for all metrics, and kept beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from analysis.files import replacing
from experiments.features import similarity
from experiments.quality.distribution import (
    Estimate,
    class_score,
    frechet_distance,
    kernel_distance,
)
from experiments.quality.networks import Network, open_network
from experiments.quality.paired import (
    feature_distance,
    latent_error,
    mean_interval,
    psnr,
    ssim,
)
from experiments.quality.store import Store
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
Row = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """Features [n, d], class logits [n, classes] and text scores [n] of a setting's pictures."""

    features: Tensor
    logits: Tensor
    scores: Tensor


def look(store: Store, prompts: Sequence[str], network: str, clip: str | None, threads: int = 1) -> Look:
    """Look at a setting's pictures, one for each of `prompts`, or read what an earlier look has left."""
    torch.set_num_threads(threads)
    net, scorer = open_network(network), open_scorer(clip)

    def make() -> dict[str, Tensor]:
        parts, first = [], 0
        for _, pictures in store.read(len(prompts)):
            texts = list(prompts[first : first + len(pictures)])
            features, logits = net.run(pictures)
            if scorer.score_features is not None and net.name == "efficientnet_lite0":
                scores = scorer.score_features(features, texts)  # one pass of the network is enough
            else:
                scores = scorer.score(pictures, texts)
            parts.append((features, logits, scores))
            first += len(pictures)
        features, logits, scores = (torch.cat(part) for part in zip(*parts, strict=True))
        return {"features": features, "logits": logits, "scores": scores}

    networks = [net.name, net.weights, scorer.name, scorer.weights]
    stamp = "|".join([store.stamp, str(len(prompts)), *networks])
    return Look(**kept(store.folder / f"look_{len(prompts)}.safetensors", stamp, make))


def compare(
    store: Store, reference: Store, pictures: int, threads: int = 1, name: str = "paired"
) -> dict[str, Tensor]:
    """The paired metrics of every picture, each [n]; kept as `look` keeps its own, under `name`."""
    torch.set_num_threads(threads)

    def make() -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {name: [] for name in PAIRED}
        for (ours, made), (theirs, wanted) in zip(
            store.read(pictures), reference.read(pictures), strict=True
        ):
            found["latent_error"].append(latent_error(ours, theirs))
            found["psnr_db"].append(psnr(made, wanted))
            found["ssim"].append(ssim(made, wanted))
            found["feature_distance"].append(feature_distance(made, wanted))
        return {name: torch.cat(parts) for name, parts in found.items()}

    stamp = "|".join([store.stamp, reference.stamp, str(pictures)])
    return kept(store.folder / f"{name}_{pictures}.safetensors", stamp, make)


def kept(path: Path, stamp: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file with this stamp, or made and written."""
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("stamp") == stamp:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    tensors = {name: tensor.contiguous() for name, tensor in make().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"stamp": stamp})
    return tensors


def paired_rows(values: dict[str, Tensor]) -> list[Row]:
    """Mean and interval of each paired metric."""
    rows = []
    for metric, network in PAIRED.items():
        mean = mean_interval(values[metric])
        equal = int(values[metric].isinf().sum())
        rows.append(
            row(metric, "serial", network, None, mean.value, mean.low, mean.high, mean.n, mean.n)
            | {"note": f"{equal} of {mean.n} pictures equal" if equal else None}
        )
    return rows


def frechet_to(made: Tensor, reference: Tensor, network: str, resamples: int, threads: int = 1) -> Estimate:
    """Frechet distance of features [n, d] to others [m, d]."""
    torch.set_num_threads(threads)
    return frechet_distance(made, reference, open_network(network), resamples=resamples)


def kernel_to(made: Tensor, reference: Tensor, network: str, threads: int = 1) -> Estimate:
    """Kernel distance of features [n, d] to others [m, d]."""
    torch.set_num_threads(threads)
    return kernel_distance(made, reference, open_network(network))


def classes_of(logits: Tensor, network: str, threads: int = 1) -> Estimate:
    """Class score of logits [n, classes]."""
    torch.set_num_threads(threads)
    return class_score(logits, open_network(network))


def estimate_row(estimate: Estimate, against: str | None) -> Row:
    """An estimate as a row of the record."""
    return row(
        NAMES[estimate.metric],
        against,
        estimate.network,
        estimate.preprocessing,
        estimate.value,
        estimate.low,
        estimate.high,
        estimate.n,
        estimate.n_reference or None,
    ) | {"note": estimate.note or None}


def text_rows(seen: Look, scorer: str) -> list[Row]:
    """How well pictures fit their prompts."""
    mean = mean_interval(seen.scores)
    return [row("text_score", "prompt", scorer, None, mean.value, mean.low, mean.high, mean.n, None)]


def nearest_rows(seen: Look, real: Tensor, right: Sequence[int], network: Network) -> list[Row]:
    """Share of pictures whose nearest real picture (cosine) is `right`, the real picture of their own prompt."""
    nearest = similarity(seen.features, real).argmax(1)
    mean = mean_interval((nearest == torch.tensor(right)).double())
    name, way = network.name, network.preprocessing
    return [row("nearest_top1", "real", name, way, mean.value, mean.low, mean.high, mean.n, len(real))]


def row(
    metric: str,
    against: str | None,
    network: str | None,
    preprocessing: str | None,
    value: float,
    low: float,
    high: float,
    n: int,
    n_reference: int | None,
) -> Row:
    """A row of the record's `metrics`, all but its setting."""
    return {
        "metric": metric,
        "against": against,
        "network": network,
        "preprocessing": preprocessing,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "n_reference": n_reference,
    }
