"""Which settings need no pictures of their own: claimed by the methods' semantics, used where a measurement agrees."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.difference import largest_difference
from experiments.models import Model, open_model
from experiments.progress import await_all
from experiments.quality.evaluate import kept
from experiments.quality.jobs import Job
from experiments.quality.sample import job_of, sample_in_process
from experiments.quality.settings import Equality, Planned
from experiments.quality.subjects import Prompts
from experiments.quality.texts import encode_all


def measure_equality(
    planned: Sequence[Planned],
    cfg: RunConfig,
    model: Model,
    prompts: Prompts,
    out: Path,
    pool: ProcessPoolExecutor,
) -> None:
    """Fill in `equality` of every setting that has another to stand in for it. Ranks are simulated.

    One that fails here has nothing to stand in for it: it is sampled itself, and the record says how that ended.
    """
    claims = [one for one in planned if one.setting.stand_in != one.setting]
    count = cfg.measure.equal_pictures
    if not count:
        return
    exact = replace(cfg, model=replace(cfg.model, dtype="float32"))
    sides = dict.fromkeys(side for one in claims for side in (one.setting, one.setting.stand_in))
    jobs = {side: job_of(side, count, exact, model, prompts, out / "equal") for side in sides}
    encode_all(jobs.values(), exact)
    asked = {side: pool.submit(latents_of, job, exact) for side, job in jobs.items()}
    await_all(asked.values(), "settings that may be equal", cfg.log.progress)
    for one in claims:
        if asked[one.setting].exception() or asked[one.setting.stand_in].exception():
            continue
        ours, others = asked[one.setting].result(), asked[one.setting.stand_in].result()
        one.equality = Equality(largest_difference(ours, others), count)


def latents_of(job: Job, cfg: RunConfig) -> Tensor:
    """Latents [n, C, h, w] of a job in float32 as they come, kept beside where its pictures would be."""
    torch.set_num_threads(cfg.threads)

    def make() -> dict[str, Tensor]:
        run = job.configure(cfg, range(job.pictures))
        return {"latents": sample_in_process(run, open_model(run.model), job.texts)}

    job.store.folder.mkdir(parents=True, exist_ok=True)
    return kept(job.store.folder / "latents.safetensors", f"{job.store.stamp}|{job.pictures}", make)[
        "latents"
    ]
