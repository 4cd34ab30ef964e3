"""Guided predictions, token by token."""

from __future__ import annotations

import torch
from diffusers import QwenImagePipeline

from pipefusion.core.guidance import rescaled


def test_a_token_keeps_the_norm_that_it_has_without_guidance() -> None:
    """Of Qwen-Image's own tokens, in any band of rows alike."""
    guided, positive = torch.randn(2, 3, 4, 8, 6)
    found = rescaled(guided, positive, 2)
    norm, target = (QwenImagePipeline._pack_latents(x, 3, 4, 8, 6).norm(dim=-1) for x in (found, positive))
    torch.testing.assert_close(norm, target)
    tokens, before = (QwenImagePipeline._pack_latents(x, 3, 4, 8, 6) for x in (found, guided))
    torch.testing.assert_close(torch.cosine_similarity(tokens, before, dim=-1), torch.ones(3, 12))
    bands = [rescaled(new, old, 2) for new, old in zip(guided.split(2, 2), positive.split(2, 2), strict=True)]
    torch.testing.assert_close(torch.cat(bands, 2), found)
