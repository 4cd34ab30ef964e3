"""What a training run is asked for, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from experiments.emoji import resize
from experiments.recipes.choice import DataConfig
from experiments.recipes.network import NetworkConfig, RecipeConfig, StageConfig
from experiments.recipes.scenes import Scenes, ScenesConfig
from pipefusion.core.domain import Cores, Count, Domain, Guidance, Seed, Threads


@dataclass
class TrainConfig:
    """One training run. `out` of `train` holds its checkpoints, curves, sheets and the exported model."""

    name: str = "train"
    seed: Seed = 0
    device: str = "auto"  # auto: cuda when there is one, else cpu
    dtype: str = "bfloat16"  # of the matrix products (autocast); weights and optimisers stay float32
    threads: Cores = 0  # CPU threads, 0: torch's choice
    workers: Threads = 1  # on a CPU: parts of a batch computed at the same time, best one per core
    compile: bool | None = None  # torch.compile of the blocks; null: on a GPU, where it pays
    export_only: bool = False  # export what the checkpoint holds, whole training or not
    resume: bool = True  # go on from the checkpoint in the run directory, if there is one
    start_from: str = ""  # a model folder whose weights a new run begins with; empty: random ones
    checkpoint_seconds: Annotated[float, Domain(0, 1e6)] = 150.0
    log_steps: Count = 20
    sheet_samples: Annotated[int, Domain(0, 1 << 40)] = 8000  # a sample sheet every so many pictures, 0: none
    sheet_prompts: Count = 16
    guidance_scale: Guidance = 2.0  # of the sample sheets
    text_encoder: str = "minilm"
    text_tokens: Annotated[int, Domain(2, 4096)] = 12
    wandb_mode: str = "offline"  # offline | online | disabled
    notes: str = ""  # printed in the model card: what this run had that its configuration does not say
    network: NetworkConfig = field(default_factory=NetworkConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scenes: ScenesConfig = field(
        default_factory=ScenesConfig
    )  # of a video network, in place of whole pictures


@dataclass(frozen=True)
class Pictures:
    """Pictures [n, 3, h, w] in -1..1."""

    pictures: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> Pictures:
        """The same on a device."""
        return replace(self, pictures=self.pictures.to(device))

    def draw(self, chosen: Tensor, stage: StageConfig, generator: torch.Generator) -> Tensor:
        """These pictures [B] at a stage's resolution; nothing about them is random."""
        return resize(self.pictures[chosen], stage.resolution)


@dataclass
class Corpus:
    """What is learnt: n pictures or scenes, n + 1 texts (the last is the empty prompt), prompts by role."""

    samples: Pictures | Scenes
    embeds: Tensor
    mask: Tensor
    prompts: dict[str, list[str]]
