"""Sampling on real ranks (`cluster=local`): the processes of a setting stay up for all of its batches."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from experiments.quality.store import Store
from experiments.quality.texts import stored
from experiments.rank import in_group, open_fabric, patient_barrier

Todo = Sequence[tuple[range, RunConfig]]


def sample_on_ranks(
    store: Store, todo: Todo, texts: Path | None, done: Callable[[int], None]
) -> tuple[str, str] | None:
    """Sample these batches, prompts from `texts` if there is such a file; status and reason if that failed.

    Raises KeyboardInterrupt.
    """
    first = todo[0][1]
    folder = open_model(first.model).folder
    if folder is not None:  # a hub id is looked up once, not by every rank
        first = replace(first, model=replace(first.model, weights=str(folder)))
    with tempfile.TemporaryDirectory() as scratch, watched(store, todo, done):
        try:
            start_ranks(
                partial(sample_rank, store, todo, texts), Path(scratch), first, parallel_of(first).mesh()
            )
        except RunFailed as failure:
            if failure.status == "interrupted":
                raise KeyboardInterrupt from None
            return failure.status, failure.reason
    return None


@contextmanager
def watched(store: Store, todo: Todo, done: Callable[[int], None]) -> Iterator[None]:
    """Tell of each batch that appears in the store until the block ends."""
    over, left = threading.Event(), [numbers for numbers, _ in todo]

    def look() -> None:
        for numbers in [*left]:
            if store.has(numbers):
                left.remove(numbers)
                done(len(numbers))

    def poll() -> None:
        while not over.wait(0.5):
            look()

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()


def sample_rank(store: Store, todo: Todo, texts: Path | None, run_dir: str, run: RunConfig) -> None:
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
        for numbers, asked in todo:
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
                store.write(numbers, latents, pictures, time.perf_counter() - start)
        wait_for_all()

    in_group(run, program)
