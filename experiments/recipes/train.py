"""`measure=train`: stages, checkpoints, resume, loss curve, sample sheets."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress as Bar
from safetensors.torch import load_file
from torch import Tensor

from experiments.config import RunConfig
from experiments.emoji import ROLES, Item, check_packages, read_pictures, read_tables
from experiments.errors import ConfigError, check_known
from experiments.models.text import PACKAGES, encode_prompts
from experiments.recipes import checkpoint
from experiments.recipes.checkpoint import Progress
from experiments.recipes.choice import choose
from experiments.recipes.config import Corpus, Pictures, TrainConfig
from experiments.recipes.folder import WEIGHTS_FILE, export, learnt_captions
from experiments.recipes.network import (
    StageConfig,
    blocks,
    build_network,
    build_optimisers,
    draw_times,
    flow_loss,
    learning_rate,
    set_learning_rate,
    update_average,
)
from experiments.recipes.report import Report
from experiments.recipes.scenes import build_scenes, caption, check_scenes, list_scenes
from experiments.recipes.seeds import seeded
from experiments.recipes.workers import Workers
from experiments.runs.check import CHOICES, check_cuda
from experiments.runs.device import device_type


def check_train(cfg: RunConfig) -> None:
    """Pictures that are not whole patches, weights of another network, too few concepts. Raises ConfigError.

    Fetches the picture packages if they are not there.
    """
    options: TrainConfig = cfg.measure
    known = {
        "measure.dtype": ("float32", "bfloat16"),
        "measure.device": CHOICES["cluster.device"],
        "measure.wandb_mode": CHOICES["log.wandb.mode"],
        "measure.text_encoder": tuple(PACKAGES),
    }
    check_known(cfg, known)
    check_cuda(cfg, "measure.device")
    patch = options.network.patch
    for index, stage in enumerate(options.recipe.stages):
        if stage.resolution % patch:
            text = f"{stage.resolution} is not a multiple of {patch}; allowed: its multiples"
            raise ConfigError(f"measure.recipe.stages.{index}.resolution", text)
    learnt_captions(options.start_from, options.network)
    check_packages(options.data.packages, options.data.data_dir, "measure.data.data_dir")
    if options.network.frames:
        check_scenes(options.scenes, options.network, options.data.packages[0], options.data.data_dir)
    else:
        choose_items(options)


def choose_items(cfg: TrainConfig) -> list[Item]:
    """The pictures of a run and their roles. Raises ConfigError."""
    tables = read_tables(cfg.data.packages, cfg.data.data_dir)
    return choose(tables, cfg.data, learnt_captions(cfg.start_from, cfg.network))


def train(cfg: RunConfig, out: Path) -> str:
    """Train, export the averaged weights, print the folder that diffusers loads; the status."""
    options: TrainConfig = cfg.measure
    print(train_on(options, out, (read_scenes if options.network.frames else read_items)(options)))
    return "ok"


def read_items(cfg: TrainConfig) -> Corpus:
    """Pictures with their names."""
    items = choose_items(cfg)
    prompts = {role: [item.caption for item in items if item.role == role] for role in ROLES}
    learnt = [item for item in items if item.role == "train"]
    pictures = read_pictures(learnt, cfg.data.packages, cfg.data.data_dir)
    return Corpus(Pictures(pictures * 2 - 1), *encode(prompts, cfg), prompts)


def read_scenes(cfg: TrainConfig) -> Corpus:
    """Scenes with their captions."""
    scenes = list_scenes(cfg.scenes)
    prompts = {role: [caption(scene, cfg.scenes) for scene in scenes[role]] for role in ROLES}
    package, data_dir = cfg.data.packages[0], cfg.data.data_dir
    learnt = build_scenes(scenes["train"], cfg.scenes, cfg.network, package, data_dir)
    return Corpus(learnt, *encode(prompts, cfg), prompts)


def encode(prompts: dict[str, list[str]], cfg: TrainConfig) -> tuple[Tensor, Tensor]:
    """Tokens and mask of the prompts that are learnt, and of the empty one behind them."""
    return encode_prompts([*prompts["train"], ""], cfg.text_encoder, cfg.text_tokens)


def train_on(
    cfg: TrainConfig, out: Path, corpus: Corpus, stop: Callable[[Progress], bool] = lambda at: False
) -> Path:
    """`train` on given pictures; `stop` ends it early, after a checkpoint (tests interrupt with it)."""
    device = torch.device(device_type(cfg.device))
    parts = cfg.workers if device.type == "cpu" else 1
    workers = Workers(parts, cfg.threads)
    model = build_network(cfg.network, cfg.seed)
    if cfg.start_from:
        model.load_state_dict(load_file(Path(cfg.start_from) / WEIGHTS_FILE))
    model = model.to(device).train()
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = build_optimisers(model, cfg.recipe, getattr(torch, cfg.dtype), parts)
    if device.type != "cpu" if cfg.compile is None else cfg.compile:
        for block in blocks(model):
            block.compile(dynamic=False)  # one resolution and batch a stage
    on_device = {name: getattr(corpus, name).to(device) for name in ("samples", "embeds", "mask")}
    corpus = replace(corpus, **on_device)  # batches are drawn there

    def loss(*batch: Any) -> Tensor:
        # No cache of cast weights: it is shared by threads, and each weight is used once a step anyway.
        dtype = getattr(torch, cfg.dtype)
        with torch.autocast(device.type, dtype, cfg.dtype != "float32", cache_enabled=False):
            return flow_loss(*batch)

    path = out / "checkpoint" / "state.safetensors"
    at = (checkpoint.load(path, model, average, optimisers) if cfg.resume else None) or Progress()
    report = Report(cfg, out)
    stages = cfg.recipe.stages
    total = sum(work(cfg, stage, stage.samples) for stage in stages)
    saved = time.perf_counter()
    with Bar() as bar:
        for index, stage in enumerate(stages):
            if index < at.stage or cfg.export_only:
                continue
            if index > at.stage:
                at.stage, at.stage_step, at.stage_samples = index, 0, 0
            title = f"{stage.resolution} px"
            task = bar.add_task(title, total=stage.samples, completed=at.stage_samples)
            before = sum(work(cfg, s, s.samples) for s in stages[:index])
            while at.stage_samples < stage.samples:
                start = time.perf_counter()
                progress = (before + work(cfg, stage, at.stage_samples)) / total
                factor = stage.rate * learning_rate(progress, at.step, cfg.recipe)
                set_learning_rate(optimisers, factor)
                value = workers.gradients(loss, model, draw_batch(cfg, at, stage, corpus))
                workers.step(optimisers)
                at.step += 1
                at.stage_step += 1
                at.seen += stage.batch
                at.stage_samples += stage.batch
                update_average(average, model, at.seen, stage.batch, cfg.recipe)
                report.step(at, stage.resolution, value, factor)
                at.seconds += time.perf_counter() - start  # after the row, which waits for the device
                bar.update(task, completed=at.stage_samples, description=title + report.last)
                ended = stop(at)
                if ended or time.perf_counter() - saved > cfg.checkpoint_seconds:
                    checkpoint.save(path, at, model, average, optimisers)
                    saved = time.perf_counter()
                if ended:
                    return path
                every = cfg.sheet_samples
                if every and at.seen // every > (at.seen - stage.batch) // every:
                    report.sheet(at, average, corpus, stage)
    if not cfg.export_only:
        checkpoint.save(path, at, model, average, optimisers)
    report.close(at)
    facts = {"samples": at.seen, "steps": at.step, "train_seconds": round(at.seconds)}
    export(average, out / "model", asdict(cfg), facts, corpus.prompts)
    for name in ("loss.csv", "loss.png"):
        if (out / name).is_file():
            shutil.copy(out / name, out / "model")
    return out / "model"


def work(cfg: TrainConfig, stage: StageConfig, samples: int) -> int:
    """Pixels of latents processed: the time of a step is about proportional to them."""
    whole = max(1, cfg.network.frames // cfg.network.frame_factor)
    return samples * stage.resolution**2 * (stage.frames or whole)


def draw_batch(
    cfg: TrainConfig, at: Progress, stage: StageConfig, corpus: Corpus
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, noise, t, embeds, mask of the next step: a function of (seed, stage, step) alone, so a resumed run repeats.

    The samples of a stage come in shuffled rounds (each once per round), one shuffle per round number. All is on the
    device of the corpus, the noise drawn there: a CPU would draw it more slowly than a GPU learns from it.
    """
    count, device = len(corpus.samples), corpus.embeds.device
    places = range(at.stage_step * stage.batch, (at.stage_step + 1) * stage.batch)
    rounds = {
        r: torch.randperm(count, generator=seeded(cfg.seed, 1, at.stage, r))
        for r in {place // count for place in places}
    }
    chosen = torch.stack([rounds[place // count][place % count] for place in places]).to(device)
    generator = seeded(cfg.seed, 2, at.stage, at.stage_step, device=device)
    times = draw_times(stage, cfg.recipe, generator)
    x0 = corpus.samples.draw(chosen, stage, generator)
    noise = torch.randn(x0.shape, generator=generator, device=device)
    empty = torch.rand(stage.batch, generator=generator, device=device) < cfg.recipe.empty_prompts
    text = torch.where(empty, count, chosen)
    return x0, noise, times, corpus.embeds[text], corpus.mask[text]
