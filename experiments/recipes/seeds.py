"""Random numbers that are a function of a seed and of what they are for."""

from __future__ import annotations

import torch


def seeded(seed: int, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for this purpose, whatever ran before it (the mixing keeps nearby keys apart)."""
    for part in key:
        seed = (seed * 6364136223846793005 + part * 1442695040888963407 + 1) % 2**63
    return torch.Generator(device).manual_seed(seed)
