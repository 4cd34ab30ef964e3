"""Clips made of emoji: one or two sprites on white ground that move, turn, grow or stand still, with their captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from experiments.clips import pack
from experiments.emoji import PackageConfig, fetch, make_item, read_tables, to_tensor
from experiments.errors import ConfigError
from experiments.recipes.network import NetworkConfig, StageConfig
from pipefusion.core.domain import Domain, Grid, Natural, Part, Seed

SPRITES = [
    "green apple", "red apple", "lemon", "strawberry", "carrot", "broccoli", "watermelon", "doughnut",
    "hamburger", "mushroom", "frog face", "pig face", "panda face", "fox face", "tropical fish", "octopus",
    "lady beetle", "butterfly", "turtle", "penguin", "sunflower", "cactus", "soccer ball", "balloon",
    "rocket", "bus", "automobile", "tractor", "sailboat", "gem stone", "crown", "sun with face",
]  # fmt: skip
MOTIONS = {  # what becomes of a sprite's column, row, size (in octaves) and angle (in turns) from start to end
    "moves left": (-1.0, 0.0, 0.0, 0.0),
    "moves right": (1.0, 0.0, 0.0, 0.0),
    "falls": (0.0, 1.0, 0.0, 0.0),
    "rises": (0.0, -1.0, 0.0, 0.0),
    "grows": (0.0, 0.0, 1.0, 0.0),
    "shrinks": (0.0, 0.0, -1.0, 0.0),
    "turns": (0.0, 0.0, 0.0, 1.0),
    "stands still": (0.0, 0.0, 0.0, 0.0),
}
SIDE = 32
"""Pixels of a stored sprite's side."""


@dataclass
class ScenesConfig:
    """Which sprites and motions, how many scenes of two, and how much clips of one caption differ."""

    sprites: Grid[str] = field(default_factory=lambda: [*SPRITES])
    motions: Grid[str] = field(default_factory=lambda: [*MOTIONS])
    pairs: Natural = 112  # scenes of two sprites
    pairs_seed: Seed = 0
    size: Part = 0.5  # of a single sprite's side, in sides of the picture
    pair_size: Part = 0.42
    path: Annotated[float, Domain(0, 2)] = 0.5  # sides of the picture that a moving sprite passes
    jitter: Part = 0.12  # of positions and sizes


@dataclass(frozen=True)
class Actor:
    """A sprite and its motion, by their places in the tables."""

    sprite: int
    motion: int


Scene = tuple[Actor, ...]
"""One actor, or two: side by side unless one of them moves left or right, which puts the first above the second."""


@dataclass(frozen=True)
class Scenes:
    """Scenes whose clips are drawn when they are asked for.

    `sprites` [n, 4, s, s], colours in 0..1 times their opacity and then the opacity; `motions` [m, 4]; `actors`
    [scenes, 2, 2], sprite and motion, -1 where there is no second; `centres` [scenes, 2, 2] column and row in -1..1;
    `sizes` [scenes].
    """

    sprites: Tensor
    motions: Tensor
    actors: Tensor
    centres: Tensor
    sizes: Tensor
    frames: int
    frame_factor: int
    path: float
    jitter: float

    def __len__(self) -> int:
        return len(self.actors)

    def to(self, device: torch.device) -> Scenes:
        """The same with its tensors on a device."""
        names = ("sprites", "motions", "actors", "centres", "sizes")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def draw(self, chosen: Tensor, stage: StageConfig, generator: torch.Generator) -> Tensor:
        """Latents [B, 3 * frame_factor, F, r, r] in -1..1 of these scenes [B]; in a stage of few frames a window."""
        device, b = chosen.device, len(chosen)
        spread = torch.rand(b, 2, 3, generator=generator, device=device) * 2 - 1  # column, row, size
        whole = self.frames // self.frame_factor
        frames = stage.frames or whole
        first = torch.randint(whole - frames + 1, (b,), generator=generator, device=device)
        times = (
            first[:, None] * self.frame_factor + torch.arange(frames * self.frame_factor, device=device)
        ) / (self.frames - 1)
        clips = self.render(chosen, times, spread * self.jitter, stage.resolution)
        return pack(clips, self.frame_factor) * 2 - 1

    def render(self, chosen: Tensor, times: Tensor, spread: Tensor, resolution: int) -> Tensor:
        """Clips [B, 3, F, r, r] in 0..1 of scenes [B] at times [B, F] in 0..1; `spread` [B, 2, 3] moves and resizes."""
        actors = self.actors[chosen]  # [B, 2, 2]
        towards = self.motions[actors[..., 1].clamp(min=0)][:, :, None]  # [B, 2, 1, 4]
        time = times[:, None, :, None]  # [B, 1, F, 1]
        swing = 2 * time - 1
        centre = self.centres[chosen][:, :, None] + spread[:, :, None, :2]
        place = centre + self.path * swing * towards[..., :2]  # [B, 2, F, 2]
        size = self.sizes[chosen][:, None, None] * (1 + spread[:, :, None, 2])
        size = size * 2 ** (swing * towards[..., 2:3] * 0.8)[..., 0]  # [B, 2, F]
        angle = 2 * torch.pi * (time * towards[..., 3:])[..., 0]
        cos, sin = angle.cos() / size, angle.sin() / size
        turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # [B, 2, F, 2, 2]
        affine = torch.cat([turn, -turn @ place[..., None]], -1).flatten(0, 2)
        there = (actors[..., 0] >= 0).float()
        layers = self.sprites[actors[..., 0].clamp(min=0)] * there[..., None, None, None]
        layers = layers[:, :, None].expand(-1, -1, times.shape[1], -1, -1, -1).flatten(0, 2)
        grid = F.affine_grid(affine, [len(affine), 4, 2 * resolution, 2 * resolution], align_corners=False)
        drawn = F.avg_pool2d(F.grid_sample(layers, grid, align_corners=False), 2)
        drawn = drawn.unflatten(0, (len(chosen), 2, -1))  # [B, 2, F, 4, r, r]
        canvas = torch.ones_like(drawn[:, 0, :, :3])
        for layer in drawn.unbind(1):
            canvas = canvas * (1 - layer[:, :, 3:]) + layer[:, :, :3]
        return canvas.transpose(1, 2).clamp(0, 1)


def caption(scene: Scene, cfg: ScenesConfig) -> str:
    """As "a green apple falls, an octopus turns"."""
    clauses = []
    for actor in scene:
        sprite = cfg.sprites[actor.sprite]
        clauses.append(f"{'an' if sprite[0] in 'aeiou' else 'a'} {sprite} {cfg.motions[actor.motion]}")
    return ", ".join(clauses)


def list_scenes(cfg: ScenesConfig) -> dict[str, list[Scene]]:
    """Scenes by role. Each sprite's k-th motion, k going round, is held out: it is in no scene that is learnt."""
    motions = len(cfg.motions)
    whole = [Actor(sprite, motion) for sprite in range(len(cfg.sprites)) for motion in range(motions)]
    held_out = [actor for actor in whole if actor.motion == actor.sprite % motions]
    learnt = [actor for actor in whole if actor not in held_out]
    shuffled = torch.randperm(len(learnt) ** 2, generator=torch.Generator().manual_seed(cfg.pairs_seed))
    two: Iterator[Scene] = ((learnt[k // len(learnt)], learnt[k % len(learnt)]) for k in shuffled.tolist())
    pairs = [pair for pair in two if pair[0].sprite != pair[1].sprite and lanes(pair, cfg) is not None]
    singles: list[Scene] = [(actor,) for actor in learnt]
    return {"train": singles + pairs[: cfg.pairs], "held_out": [(actor,) for actor in held_out], "unseen": []}


def lanes(scene: Scene, cfg: ScenesConfig) -> Tensor | None:
    """Centres [2, 2] of a scene's sprites, column and row; None where one would cross the other's lane."""
    if len(scene) == 1:
        return torch.zeros(2, 2)
    towards = [MOTIONS[cfg.motions[actor.motion]] for actor in scene]
    across, along = (any(way[axis] for way in towards) for axis in (0, 1))
    if across and along:
        return None
    apart = torch.tensor([-0.5, 0.5])
    other = torch.zeros(2)
    return torch.stack([other, apart] if across else [apart, other], 1)


def check_scenes(cfg: ScenesConfig, network: NetworkConfig, package: PackageConfig, data_dir: str) -> None:
    """Sprites that the package does not draw, motions that do not exist, pictures left over. Raises ConfigError."""
    names = {str(row["name"]).lower() for row in read_tables([package], data_dir)[0]}
    for key, wanted, known in (("sprites", cfg.sprites, names), ("motions", cfg.motions, set(MOTIONS))):
        for index, name in enumerate(wanted):
            if name not in known:
                shown = ", ".join(MOTIONS) if key == "motions" else f"names in {package.name}"
                raise ConfigError(f"measure.scenes.{key}.{index}", f"{name!r} is unknown; allowed: {shown}")
    if network.frames % network.frame_factor:
        text = f"{network.frames} is not a multiple of frame_factor={network.frame_factor}"
        raise ConfigError("measure.network.frames", f"{text}; allowed: its multiples")


def build_scenes(
    scenes: Sequence[Scene], cfg: ScenesConfig, network: NetworkConfig, package: PackageConfig, data_dir: str
) -> Scenes:
    """Scenes with their sprites read."""
    nobody = Actor(-1, -1)
    actors = [[(a.sprite, a.motion) for a in (*scene, nobody)[:2]] for scene in scenes]
    centres = [lanes(scene, cfg) for scene in scenes]
    return Scenes(
        sprites=read_sprites(cfg.sprites, package, data_dir),
        motions=torch.tensor([MOTIONS[name] for name in cfg.motions]),
        actors=torch.tensor(actors),
        centres=torch.stack([centre for centre in centres if centre is not None]),
        sizes=torch.tensor([cfg.size if len(scene) == 1 else cfg.pair_size for scene in scenes]),
        frames=network.frames,
        frame_factor=network.frame_factor,
        path=cfg.path,
        jitter=cfg.jitter,
    )


def read_sprites(names: Sequence[str], package: PackageConfig, data_dir: str) -> Tensor:
    """[n, 4, s, s] float32 in 0..1: colours times opacity, and opacity."""
    rows = {str(row["name"]).lower(): row for row in read_tables([package], data_dir)[0]}
    folder = fetch(package, data_dir) / "img"
    images = [Image.open(folder / make_item(rows[name], package).file).convert("RGBA") for name in names]
    pictures = torch.stack([to_tensor(image) for image in images])
    colours, opacity = pictures.split([3, 1], 1)
    return F.interpolate(torch.cat([colours * opacity, opacity], 1), size=(SIDE, SIDE), mode="area")
