"""Which settings need no pictures of their own: claimed by the methods' semantics, used where a measurement agrees."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.models import open_model
from experiments.quality.sample import sample_in_process
from experiments.quality.settings import Equality, Planned, Setting


def measure_equality(
    planned: Sequence[Planned], cfg: RunConfig, prompts: Sequence[str], pool: ProcessPoolExecutor
) -> None:
    """Fill in `equality` of every setting that has another to stand in for it. Ranks are simulated."""
    claims = [one for one in planned if one.setting.stand_in != one.setting]
    count = cfg.measure.equal_pictures
    texts = tuple(prompts[k % len(prompts)] for k in range(count))
    sides = dict.fromkeys(side for one in claims for side in (one.setting, one.setting.stand_in))
    asked = {side: pool.submit(latents_of, side, cfg, texts) for side in sides}
    for one in claims:
        ours, others = asked[one.setting].result(), asked[one.setting.stand_in].result()
        one.equality = Equality(float((ours - others).abs().max() / others.abs().max()), count)


def latents_of(setting: Setting, cfg: RunConfig, prompts: Sequence[str]) -> Tensor:
    """Latents [n, C, h, w] of the first pictures, in float32."""
    torch.set_num_threads(cfg.threads)
    run = setting.configure(cfg)
    model = replace(run.model, dtype="float32")
    seeds = [cfg.seed + k for k in range(len(prompts))]
    run = replace(run, model=model, prompt=list(prompts), seed=seeds, prompt_file=None, images_per_prompt=1)
    return sample_in_process(run, open_model(model))
