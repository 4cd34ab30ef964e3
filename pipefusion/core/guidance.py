"""Classifier-free guidance on one rank: the images and branches it computes, and how predictions become one."""

from __future__ import annotations

import torch
from torch import Tensor

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where
from pipefusion.core.shape import DiTShape


class Guidance:
    """Both branches on one rank (stacked, unconditional first), or one on each of the two ranks of the axis `cfg`.

    `cond` are the prompts of this rank's images and branches: what the model is to see here. Raises ValueError where
    there are no two branches to share, or images that do not divide over the axis `data`.
    """

    def __init__(self, fabric: Fabric, cond: Conditioning, shape: DiTShape):
        data, cfg = fabric.axis("data"), fabric.axis("cfg")
        self.fabric, self.data = fabric, data
        self.scales = [shape.scale(cond.guidance_scale, expert) for expert in range(shape.transformers)]
        self.guided, self.shared = cond.guided, cfg.size > 1
        self.rescaled, self.patch_size = cond.rescaled, shape.patch_size
        if self.shared and not cond.guided:
            raise ValueError("cfg 2 needs classifier-free guidance: a scale above 1 and a negative prompt")
        cond = cond.images(data.index, data.size)
        self.cond = cond.branch(cfg.index) if self.shared else cond
        self._memory: Tensor | None = None

    @property
    def branches(self) -> int:
        """Copies of an image in one forward of this rank."""
        return self.cond.branches

    def parts(self, images: int) -> list[Conditioning]:
        """Inputs of each image and branch of this rank's batch, in the order in which they are stacked."""
        branches = [self.cond.branch(0), self.cond.branch(1)] if self.cond.guided else [self.cond]
        return [branch.images(image, images) for branch in branches for image in range(images)]

    def own_images(self, noise: Tensor) -> Tensor:
        """This rank's images [B/data, C, H, W] of a request [B, C, H, W]."""
        size = noise.shape[0] // self.data.size
        return noise.narrow(0, self.data.index * size, size)

    def expand(self, latent: Tensor) -> Tensor:
        """The latent once per branch of this rank: [B, ...] -> [branches*B, ...]."""
        return torch.cat([latent] * self.branches) if self.branches > 1 else latent

    def reserve(self, pixels: int, dtype: torch.dtype) -> None:
        """Make room for the predictions of both branches, each of at most so many elements."""
        if self.shared:
            self._memory = self.fabric.empty("comm", 2 * pixels, dtype=dtype)

    def combine(self, prediction: Tensor, expert: int, at: Where) -> Tensor:
        """An expert's guided prediction: [branches*B, ...] -> [B, ...], on every rank of the axis `cfg` alike."""
        if not self.guided:
            return prediction
        if self.shared:
            assert self._memory is not None
            both = self._memory[: 2 * prediction.numel()].view(2, *prediction.shape)
            self.fabric.all_gather(both, prediction.contiguous(), axis="cfg", at=at)
            negative, positive = both
        else:
            negative, positive = prediction.chunk(2)
        guided = negative + self.scales[expert] * (positive - negative)
        return rescaled(guided, positive, self.patch_size) if self.rescaled else guided


def rescaled(guided: Tensor, positive: Tensor, patch: int) -> Tensor:
    """The guided prediction [B, C, h, W], each token (patch x patch, all channels) at its norm without guidance."""
    sizes = (-1, patch)
    new, old = (x.unflatten(3, sizes).unflatten(2, sizes) for x in (guided, positive))  # [B, C, h, p, w, p]
    scale, target = (torch.linalg.vector_norm(x, dim=(1, 3, 5), keepdim=True) for x in (new, old))
    return (new * (target / scale)).flatten(4, 5).flatten(2, 3)
