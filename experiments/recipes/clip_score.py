"""Does a prompt bring back its own sprite and its own motion? The nearest real clip of all sprites and motions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.clips import unpack
from experiments.emoji import stored_packages
from experiments.recipes.network import NetworkConfig, StageConfig
from experiments.recipes.sampling import save_films
from experiments.recipes.scenes import Actor, Scenes, ScenesConfig, build_scenes, caption, list_scenes
from experiments.recipes.seeds import seeded
from experiments.spaced import spaced

ROLES = {"train": "sheet.png", "held_out": "held_out.png"}
VARIANTS = 3
"""Real clips of a sprite and motion: sizes and places differ a little."""


def score_clips(
    limit: int,
    shown: int,
    data_dir: str,
    facts: Mapping[str, Any],
    draw: Callable[[Sequence[str]], Tensor],
    out: Path,
) -> dict[str, Any]:
    """How often the nearest real clip has the right sprite, motion and both, of `limit` prompts of a role, 0: all.

    `draw` makes latents in 0..1 of captions. Writes a sheet of each role, with `shown` clips above the nearest ones.
    """
    cfg, network = ScenesConfig(**facts["scenes"]), NetworkConfig(**facts["network"])
    single = {
        role: [scene for scene in scenes if len(scene) == 1] for role, scenes in list_scenes(cfg).items()
    }
    pool = [scene for role in ROLES for scene in single[role]]
    scenes = build_scenes(pool, cfg, network, stored_packages(facts["data"])[0], data_dir)
    real = real_clips(scenes, facts["resolution"])  # [VARIANTS * pool, 3, F, h, w]
    asked = {role: spaced(single[role], limit or len(single[role])) for role in ROLES}
    both = [scene for chosen in asked.values() for scene in chosen]
    made = unpack(draw([caption(scene, cfg) for scene in both]), network.frame_factor)
    nearest = torch.cdist(made.flatten(1), real.flatten(1)).argmin(1)
    result: dict[str, Any] = {"among": len(pool), "variants": VARIANTS}
    first = 0
    for role, chosen in asked.items():
        rows = range(first, first := first + len(chosen))
        found = [pool[int(nearest[row]) % len(pool)][0] for row in rows]
        result[role] = {"clips": len(chosen)} | shares([scene[0] for scene in chosen], found)
        films = [(caption(both[row], cfg), made[row], real[nearest[row]]) for row in spaced(rows, shown)]
        save_films(films, out / ROLES[role])
    return result


def real_clips(scenes: Scenes, resolution: int) -> Tensor:
    """Clips [VARIANTS * scenes, 3, F, r, r] in 0..1, variant after variant, each from a seed of its own."""
    whole, every = StageConfig(resolution, len(scenes), 1), torch.arange(len(scenes))
    drawn = [scenes.draw(every, whole, seeded(k)) for k in range(VARIANTS)]
    return unpack(torch.cat(drawn), scenes.frame_factor) / 2 + 0.5


def shares(asked: Sequence[Actor], found: Sequence[Actor]) -> dict[str, float]:
    """How often the sprite, the motion, and both are those asked for."""
    sprite = [a.sprite == b.sprite for a, b in zip(asked, found, strict=True)]
    motion = [a.motion == b.motion for a, b in zip(asked, found, strict=True)]
    both = [s and m for s, m in zip(sprite, motion, strict=True)]
    named = {"sprite": sprite, "motion": motion, "both": both}
    return {name: round(sum(right) / len(asked), 4) for name, right in named.items()}
