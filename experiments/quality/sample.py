"""Pictures by the thousand: each depends on its prompt, its seed and the setting alone.

In `cluster=sim` the logical ranks of a setting share a process, and as many processes as there are cores sample
batches side by side. In `cluster=local` the ranks of a setting are processes of their own (`ranks.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from experiments.agent import status_of
from experiments.config import RunConfig
from experiments.device import choose_device
from experiments.inputs import as_inputs, make_inputs
from experiments.models import Model, open_model
from experiments.pictures import pixels_of
from experiments.quality.jobs import Failures, Job
from experiments.quality.pools import samplers
from experiments.quality.ranks import sample_on_ranks
from experiments.quality.settings import Setting
from experiments.quality.store import store_of
from experiments.quality.subjects import Prompts
from experiments.quality.texts import encode_all, stored, texts_path
from experiments.simulate import sample_once


def job_of(setting: Setting, count: int, cfg: RunConfig, model: Model, prompts: Prompts, out: Path) -> Job:
    """One setting's pictures, kept apart by dtype and seed."""
    folder = out / "pictures" / f"{cfg.model.dtype}_seed{cfg.seed}"
    store = store_of(folder, setting, cfg, prompts.texts, model)
    texts = texts_path(out, cfg, model)
    return Job(setting, store, count, prompts.texts, cfg.model.dtype, cfg.seed, texts)


def sample_all(jobs: Sequence[Job], cfg: RunConfig) -> Failures:
    """Sample what is missing, with a bar of remaining time. A setting that fails is given up, the others go on."""
    failures = encode_all([job for job in jobs if job.missing], cfg)
    jobs = [job for job in jobs if job not in failures]
    wanted = sum(job.pictures * job.setting.steps for job in jobs)
    missing = sum(len(numbers) * job.setting.steps for job in jobs for numbers in job.missing)
    left = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (cfg.log.progress and console.is_terminal)) as bar:
        # A picture costs about as much as it has steps.
        task = bar.add_task("steps of pictures", total=wanted, completed=wanted - missing)

        def done(setting: Setting, pictures: int) -> None:
            bar.update(task, advance=pictures * setting.steps, description=setting.key)

        sample = in_processes if cfg.cluster.world == "sim" else on_ranks
        return failures | sample(jobs, cfg, done)


def in_processes(jobs: Sequence[Job], cfg: RunConfig, done: Callable[[Setting, int], None]) -> Failures:
    """Every missing batch, over a pool of processes."""
    failures: Failures = {}
    with samplers(cfg) as pool:
        futures: dict[Future[None], tuple[Job, range]] = {
            pool.submit(sample_batch, job, cfg, numbers): (job, numbers)
            for job in jobs
            for numbers in job.missing
        }
        for future in as_completed(futures):
            job, numbers = futures[future]
            try:
                future.result()
            except BrokenProcessPool:
                failures.setdefault(job, ("failed", "a process that sampled was killed"))
            except Exception as error:
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                failures.setdefault(job, (status_of(text), text))
            else:
                done(job.setting, len(numbers))
    return failures


def on_ranks(jobs: Sequence[Job], cfg: RunConfig, done: Callable[[Setting, int], None]) -> Failures:
    """Setting after setting on ranks of its own."""
    failures: Failures = {}
    for job in jobs:
        todo = [(numbers, job.configure(cfg, numbers)) for numbers in job.missing]
        if todo:
            failure = sample_on_ranks(job.store, todo, job.texts, partial(done, job.setting))
            if failure is not None:
                failures[job] = failure
    return failures


def sample_batch(job: Job, cfg: RunConfig, numbers: range) -> None:
    """One batch with all its ranks in this process."""
    torch.set_num_threads(cfg.threads)
    start, run = time.perf_counter(), job.configure(cfg, numbers)
    model = open_model(run.model)
    latents = sample_in_process(run, model, job.texts)
    pictures = pixels_of(latents, run, model, choose_device(run.cluster.device))
    job.store.write(numbers, latents, pictures, time.perf_counter() - start)


def sample_in_process(run: RunConfig, model: Model, texts: Path | None) -> Tensor:
    """The latents [B, C, H, W] of one run, its ranks simulated."""
    assert run.guidance_scale is not None
    with torch.inference_mode():
        inputs = make_inputs(run, model, stored(texts) if texts else None)
        noise, cond = as_inputs(inputs, run.guidance_scale)
        return sample_once(run, model, noise, cond)
