"""Sampling on real ranks (`cluster=local`): the processes of a setting stay up for all of its batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.agent import start_ranks
from experiments.config import RunConfig
from experiments.errors import RunFailed
from experiments.inputs import make_inputs, read_inputs, write_inputs
from experiments.methods import METHODS, parallel_of
from experiments.models import open_model, scheduler_of
from experiments.pictures import pixels_of
from experiments.quality.store import write_pictures
from experiments.quality.texts import stored, texts_path
from experiments.rank import in_group, open_fabric, patient_barrier
from experiments.session import Session


def sample_on_ranks(todo: Mapping[Path, RunConfig], session: Session) -> None:
    """Sample the batches of one setting, each into its file. Raises RunFailed, and KeyboardInterrupt."""
    if not todo:
        return
    first = next(iter(todo.values()))
    model = session.model(first.model)
    texts, folder = texts_path(session.folder, first, model), model.folder
    if folder is not None:  # a hub id is looked up once, not by every rank
        first = replace(first, model=replace(first.model, weights=str(folder)))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            start_ranks(partial(sample_rank, todo, texts), Path(scratch), first, parallel_of(first).mesh())
        except RunFailed as failure:
            if failure.status == "interrupted":
                raise KeyboardInterrupt from None
            raise


def sample_rank(todo: Mapping[Path, RunConfig], texts: Path | None, run_dir: str, run: RunConfig) -> None:
    """What each rank runs: its part of the model once, then batch after batch; rank 0 encodes, decodes and writes."""

    def program(device: Any) -> None:
        model = open_model(run.model)
        dit = model.view()
        fabric = open_fabric(run, dit, device)
        sampler = METHODS[run.method.name].build(dit, fabric, run.method)
        scheduler = scheduler_of(model, run.scheduler, run.steps)
        dit.load(model.tensors(), device)
        path, encode = Path(run_dir) / "inputs.safetensors", stored(texts) if texts else None
        wait_for_all = patient_barrier()
        assert run.guidance_scale is not None
        for file, asked in todo.items():
            start = time.perf_counter()
            one = replace(run, prompt=asked.prompt, seed=asked.seed)
            if fabric.rank == 0:
                write_inputs(path, make_inputs(one, model, encode))
            wait_for_all()
            fabric.clear()
            latents = sampler(*read_inputs(path, run.guidance_scale, device), scheduler)
            fabric.close()
            if fabric.rank == 0:
                assert latents is not None
                latents = latents.cpu()
                pictures = pixels_of(latents, one, model, device)
                write_pictures(file, latents, pictures, asked.prompt, start, device)
        wait_for_all()

    in_group(run, program)
