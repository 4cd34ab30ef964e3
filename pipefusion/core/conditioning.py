"""Prompts and guidance of a request, as the model takes them: whole, one branch, or the share of some of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Prompts as the model takes them: tensors by name, one row an image, as `DiTShape.prompt` lists them.

    With a guidance scale above 1 and `negative` tensors of the same names, guidance is classifier-free; `rescaled`,
    each token of the guided prediction is scaled to the norm that it has without guidance. An MM-DiT attends to all
    tokens of a prompt but those that `padding` [B, T] (bool), on both sides or on neither, says are none. Latents of
    reference pictures are the prompt's `references` [B, R, C, H, W] (`DiTShape.pictures`), and both branches have them;
    so is the latent of a picture that a video begins with, `first_frame` [B, C, 1, H, W].
    """

    prompt: Mapping[str, Tensor]
    guidance_scale: float = 1.0
    negative: Mapping[str, Tensor] | None = None
    rescaled: bool = False

    @property
    def guided(self) -> bool:
        return self.negative is not None and self.guidance_scale > 1.0

    @property
    def branches(self) -> int:
        """Copies of the image in one forward: 2 with classifier-free guidance, else 1."""
        return 2 if self.guided else 1

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, for who counts memory."""
        return [*self.prompt.values(), *(self.negative or {}).values()]

    def to(self, device: torch.device) -> Conditioning:
        """The same on another device."""
        prompt = {name: tensor.to(device) for name, tensor in self.prompt.items()}
        negative = {name: tensor.to(device) for name, tensor in (self.negative or {}).items()}
        return replace(self, prompt=prompt, negative=negative or None)

    def images(self, part: int, parts: int) -> Conditioning:
        """The prompts of one of `parts` equal runs of images. Raises ValueError where they do not divide."""
        if parts == 1:
            return self
        count = next(iter(self.prompt.values())).shape[0]
        if count % parts:
            raise ValueError(f"{count} images do not divide over data {parts}")
        size = count // parts
        own = [
            {name: tensor.narrow(0, part * size, size) for name, tensor in side.items()}
            for side in (self.prompt, self.negative or {})
        ]
        return replace(self, prompt=own[0], negative=own[1] or None)

    def branch(self, index: int) -> Conditioning:
        """One branch of classifier-free guidance alone: 0 the negative one, as diffusers stacks them, 1 the prompts."""
        assert self.negative is not None
        return Conditioning(self.prompt if index else {**self.prompt, **self.negative})

    def completed(self, latents: Tensor) -> Tensor:
        """Denoised latents [B, C, F, H, W] with the first frame that was given, where one was."""
        first = self.prompt.get("first_frame")
        return latents if first is None else torch.cat([first.to(latents), latents[:, :, 1:]], dim=2)

    def stacked(self, name: str) -> Tensor:
        """A tensor of all branches, unconditional first as in diffusers: [branches*B, ...]."""
        if not self.guided:
            return self.prompt[name]
        assert self.negative is not None
        return torch.cat([self.negative.get(name, self.prompt[name]), self.prompt[name]])
