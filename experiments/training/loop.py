"""`train`: stages, checkpoints, resume, loss curve, sample sheets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from safetensors.torch import load_file
from torch import Tensor

from experiments.device import device_type
from experiments.text import encode_prompts
from experiments.training import checkpoint, data
from experiments.training.check import learnt_captions
from experiments.training.checkpoint import Progress
from experiments.training.export import WEIGHTS_FILE, export
from experiments.training.recipe import (
    Ema,
    NetworkConfig,
    RecipeConfig,
    StageConfig,
    build_network,
    build_optimisers,
    draw_times,
    flow_loss,
    learning_rate,
    set_learning_rate,
)
from experiments.training.report import Report
from experiments.training.workers import Workers
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
    data: data.DataConfig = field(default_factory=data.DataConfig)


@dataclass
class Corpus:
    """What is learnt: n pictures [n, 3, h, w] in -1..1, n + 1 texts (the last is the empty prompt), prompts by role."""

    pictures: Tensor
    embeds: Tensor
    mask: Tensor
    prompts: dict[str, list[str]]

    def to(self, device: torch.device) -> Corpus:
        """The same on `device`, where batches are drawn."""
        return Corpus(self.pictures.to(device), self.embeds.to(device), self.mask.to(device), self.prompts)


def train(cfg: TrainConfig, out: Path) -> Path:
    """Train, and export the averaged weights; returns the folder that `PixArtTransformer2DModel` loads."""
    learnt = learnt_captions(cfg.start_from, cfg.network) if cfg.start_from else []
    items, pictures = data.load(cfg.data, learnt)
    return train_on(cfg, out, corpus_of(cfg, items, pictures))


def corpus_of(cfg: TrainConfig, items: list[data.Item], pictures: Tensor) -> Corpus:
    """Captions encoded once, pictures of the training items."""
    prompts = {role: [i.caption for i in items if i.role == role] for role in data.ROLES}
    embeds, mask = encode_prompts([*prompts["train"], ""], cfg.text_encoder, cfg.text_tokens)
    keep = torch.tensor([k for k, item in enumerate(items) if item.role == "train"])
    return Corpus(pictures[keep] * 2 - 1, embeds, mask, prompts)


def train_on(
    cfg: TrainConfig, out: Path, corpus: Corpus, stop: Callable[[Progress], bool] | None = None
) -> Path:
    """`train` on given pictures; `stop` ends it early, after a checkpoint (tests interrupt with it)."""
    device = torch.device(device_type("auto") if cfg.device == "auto" else cfg.device)
    parts = cfg.workers if device.type == "cpu" else 1
    workers = Workers(parts, cfg.threads)
    model = build_network(cfg.network, cfg.seed)
    if cfg.start_from:
        model.load_state_dict(load_file(Path(cfg.start_from) / "transformer" / WEIGHTS_FILE))
    model = model.to(device).train()
    ema = Ema(model, cfg.recipe)
    optimisers = build_optimisers(model, cfg.recipe, parts)
    if device.type != "cpu" if cfg.compile is None else cfg.compile:
        for block in model.transformer_blocks:
            block.compile(dynamic=False)  # one resolution and batch a stage
    corpus = corpus.to(device)

    def loss(*batch: Any) -> Tensor:
        # No cache of cast weights: it is shared by threads, and each weight is used once a step anyway.
        with torch.autocast(
            device.type, getattr(torch, cfg.dtype), cfg.dtype != "float32", cache_enabled=False
        ):
            return flow_loss(*batch)

    at = (
        checkpoint.load(out / "checkpoint", model, ema.model, optimisers) if cfg.resume else None
    ) or Progress()
    report = Report(cfg, out, corpus.prompts["train"])
    total = sum(work(stage, stage.samples) for stage in cfg.recipe.stages)
    saved = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns) as bar:
        for index, stage in enumerate(cfg.recipe.stages):
            if index < at.stage or cfg.export_only:
                continue
            if index > at.stage:
                at.stage, at.stage_step, at.stage_samples = index, 0, 0
            task = bar.add_task(f"{stage.resolution} px", total=stage.samples, completed=at.stage_samples)
            pictures = data.resize(corpus.pictures, stage.resolution)
            before = sum(work(s, s.samples) for s in cfg.recipe.stages[:index])
            while at.stage_samples < stage.samples:
                start = time.perf_counter()
                progress = (before + work(stage, at.stage_samples)) / total
                factor = stage.rate * learning_rate(progress, at.step, cfg.recipe)
                set_learning_rate(optimisers, factor, cfg.recipe)
                batch = draw_batch(cfg, at, stage, pictures, corpus)
                value = workers.gradients(loss, model, batch)
                workers.step(optimisers)
                at.step += 1
                at.stage_step += 1
                at.seen += stage.batch
                at.stage_samples += stage.batch
                ema.update(model, at.seen, stage.batch)
                report.step(at, stage, value, factor)
                at.seconds += time.perf_counter() - start  # after the row, which waits for the device
                told = f"{stage.resolution} px" + ("" if report.last is None else f", loss {report.last:.3f}")
                bar.update(task, completed=at.stage_samples, description=told)
                ended = stop is not None and stop(at)
                if ended or time.perf_counter() - saved > cfg.checkpoint_seconds:
                    checkpoint.save(out / "checkpoint", at, model, ema.model, optimisers)
                    saved = time.perf_counter()
                if ended:
                    return out / "checkpoint"
                if (
                    cfg.sheet_samples
                    and at.seen // cfg.sheet_samples > (at.seen - stage.batch) // cfg.sheet_samples
                ):
                    report.sheet(at, ema.model, corpus, stage.resolution)
    if not cfg.export_only:
        checkpoint.save(out / "checkpoint", at, model, ema.model, optimisers)
    report.close(at)
    facts = {"samples": at.seen, "steps": at.step, "train_seconds": round(at.seconds)}
    folder = export(ema.model, out / "model", asdict(cfg), facts, corpus.prompts)
    for name in ("loss.csv", "loss.png"):
        if (out / name).is_file():
            shutil.copy(out / name, folder / name)
    return folder


def work(stage: StageConfig, samples: int) -> int:
    """Image area processed: the time of a step is about proportional to it."""
    return samples * stage.resolution**2


def draw_batch(
    cfg: TrainConfig, at: Progress, stage: StageConfig, pictures: Tensor, corpus: Corpus
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, noise, t, embeds, mask of the next step: a function of (seed, stage, step) alone, so a resumed run repeats.

    The pictures of a stage come in shuffled rounds (each once per round), one shuffle per round number. All is on the
    device of `pictures`, the noise drawn there: a CPU would draw it more slowly than a GPU learns from it.
    """
    count, device = len(pictures), pictures.device
    places = torch.arange(at.stage_step * stage.batch, (at.stage_step + 1) * stage.batch)
    rounds = {
        int(r): torch.randperm(count, generator=_seeded(cfg, 1, at.stage, int(r))) for r in places // count
    }
    chosen = torch.stack([rounds[int(p) // count][int(p) % count] for p in places])
    chosen = chosen.to(device)
    generator = _seeded(cfg, 2, at.stage, at.stage_step, device=device)
    times = draw_times(stage, cfg.recipe, generator)
    x0 = pictures[chosen]
    noise = torch.randn(x0.shape, generator=generator, device=device)
    empty = torch.rand(stage.batch, generator=generator, device=device) < cfg.recipe.empty_prompts
    text = torch.where(empty, count, chosen)
    return x0, noise, times, corpus.embeds[text], corpus.mask[text]


def _seeded(cfg: TrainConfig, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for this purpose, whatever ran before it (the mixing keeps nearby keys apart)."""
    mixed = cfg.seed
    for part in key:
        mixed = (mixed * 6364136223846793005 + part * 1442695040888963407 + 1) % 2**63
    return torch.Generator(device).manual_seed(mixed)
