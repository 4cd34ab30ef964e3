"""The networks whose features pictures are compared in, each with its name, and its preprocessing in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from experiments.errors import ConfigError, first_line
from experiments.features import PREPROCESSING, WIDTH, features_and_logits
from experiments.tensors import network_sha256

KEY = "measure.network"
ALLOWED = "efficientnet_lite0, inception, inception:FILE (its weights)"


@dataclass(frozen=True)
class Network:
    """A feature network.

    `run` takes pictures [n, 3, h, w], float in 0..1, and gives features [n, dim] and class logits [n, classes], both
    float32, from one pass. It cuts them into batches of its own, so that the caller's are not seen in the result.
    """

    name: str
    dim: int
    preprocessing: str
    run: Callable[[Tensor], tuple[Tensor, Tensor]]
    weights: str = ""  # SHA-256, of what was given or downloaded

    def features(self, pictures: Tensor) -> Tensor:
        """Pictures [n, 3, h, w] in 0..1 -> [n, dim] float32."""
        return self.run(pictures)[0]


@lru_cache
def open_network(text: str = "efficientnet_lite0") -> Network:
    """The network of `measure.network`: a name, for inception with the file of its weights behind a colon.

    Raises ConfigError when it is unknown or cannot be had here.
    """
    name, _, file = text.partition(":")
    if text == "efficientnet_lite0":
        return Network(text, WIDTH, PREPROCESSING, features_and_logits)
    if name == "inception":
        return inception(file or None)
    raise ConfigError(KEY, f"{text} is unknown; allowed: {ALLOWED}")


def inception(file: str | None, batch: int = 32) -> Network:
    """The network of FID as published, from torch-fidelity: 2048-d, logits without their bias.

    Weights from `file`, or from torch-fidelity's own download. Raises ConfigError when either cannot be had.
    """
    asked = "inception" if file is None else f"inception:{file}"
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit this torch
        text = f"{asked} needs the extra metrics-inception ({first_line(error)}); allowed: pip install -e"
        raise ConfigError(KEY, f"{text} '.[metrics-inception]', or one of {ALLOWED}") from None
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], file)
    except Exception as error:  # whatever a download, a file system or a foreign file has to say
        text = f"{asked} has no weights ({first_line(error)}); allowed: {ALLOWED}"
        raise ConfigError(KEY, text) from None
    network.eval()

    @torch.no_grad()
    def run(pictures: Tensor) -> tuple[Tensor, Tensor]:
        parts = [network(to_bytes(part)) for part in pictures.split(batch)]
        pooled, logits = (torch.cat(found).float() for found in zip(*parts, strict=True))
        return pooled, logits

    return Network(
        "inception",
        2048,
        "8 bits, bilinear as in TensorFlow 1 to 299 x 299 px, (x - 128) / 128",
        run,
        network_sha256(network),
    )


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 -> uint8, as a file of them would hold."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
