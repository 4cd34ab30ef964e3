"""Sampling on real ranks (`cluster=local`): the processes of a setting stay up for all of its batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from experiments.config import RunConfig
from experiments.errors import RunFailed
from experiments.methods import parallel_degrees
from experiments.models.inputs import make_inputs, read_inputs
from experiments.models.model import open_model
from experiments.models.scheduler import build_scheduler
from experiments.pictures import decode_pixels
from experiments.quality.store import write_pictures
from experiments.quality.texts import stored, texts_path
from experiments.runs.agent import start_ranks
from experiments.runs.rank import in_group, open_fabric, patient_barrier
from experiments.session import Session, build
from experiments.tensors import write_tensors
from pipefusion.pipelines.generation import everywhere

Asked = tuple[list[str], list[int], Path | None]
"""Of a batch: prompts, seeds, and the file of the encoded prompts."""


def sample_on_ranks(todo: Mapping[Path, RunConfig], session: Session) -> None:
    """Sample the batches of one setting, each into its file. Raises RunFailed, and KeyboardInterrupt."""
    if not todo:
        return
    first = next(iter(todo.values()))
    folder = session.model(first.model).folder
    if folder is not None:  # a hub id is looked up once, not by every rank
        first = replace(first, model=replace(first.model, weights=str(folder)))
    asked = {file: (one.prompt, one.seed, texts_path(one, session)) for file, one in todo.items()}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            start_ranks(partial(sample_rank, asked), Path(scratch), first, parallel_degrees(first).mesh())
        except RunFailed as failure:
            if failure.status == "interrupted":
                raise KeyboardInterrupt from None
            raise


def sample_rank(asked: Mapping[Path, Asked], run_dir: str, run: RunConfig) -> None:
    """What each rank runs: its part of the model once, then batch after batch; rank 0 encodes, decodes and writes."""

    def program(device: torch.device) -> None:
        model = open_model(run.model)
        view = model.view()
        fabric = open_fabric(run, view, device)
        _, sampler = build(run, view, fabric, model.tensors())
        scheduler = build_scheduler(model, run.scheduler, run.steps)
        sharing = fabric if run.model.share_decoding else None
        path, wait_for_all = Path(run_dir) / "inputs.safetensors", patient_barrier()
        assert run.guidance_scale is not None
        for file, (prompts, seeds, texts) in asked.items():
            start, one = time.perf_counter(), replace(run, prompt=prompts, seed=seeds)
            if fabric.rank == 0:
                write_tensors(path, make_inputs(one, model, stored(texts) if texts else None))
            wait_for_all()
            fabric.clear()
            noise, cond = read_inputs(path, run.guidance_scale, device)
            latents = sampler(noise, cond, scheduler)
            fabric.close()
            if sharing is not None:
                latents = everywhere(torch.empty_like(noise) if latents is None else latents, sharing)
            if latents is not None:
                latents = latents.cpu()
                pictures = decode_pixels(latents, one, model, device, sharing)
                if fabric.rank == 0:
                    write_pictures(file, latents, pictures, prompts, start, device)
        wait_for_all()

    in_group(run, program)
