"""Sampling on real ranks (`cluster=local`): the processes of a setting stay up for all of its batches."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.agent import RunFailed, start_ranks
from experiments.config import RunConfig, as_dict
from experiments.inputs import make_inputs, write_inputs
from experiments.methods import METHODS, parallel_of
from experiments.models import open_model, scheduler_of
from experiments.pictures import pixels_of
from experiments.quality.store import Store
from experiments.quality.texts import stored
from experiments.rank import in_group, open_fabric, patient_barrier, read_inputs

Todo = Sequence[tuple[range, RunConfig]]


def sample_on_ranks(
    store: Store, todo: Todo, texts: Path | None, done: Callable[[int], None]
) -> tuple[str, str] | None:
    """Sample these batches, prompts from `texts` if there is such a file; status and reason if that failed.

    Raises KeyboardInterrupt.
    """
    first = todo[0][1]
    batches = [
        {"start": numbers.start, "stop": numbers.stop, "prompts": run.prompt, "seeds": run.seed}
        for numbers, run in todo
    ]
    kept = {"folder": str(store.folder), "stamp": store.stamp, "batch": store.batch}
    folder = open_model(first.model).folder
    if folder is not None:  # a hub id is looked up once, not by every rank
        first = replace(first, model=replace(first.model, weights=str(folder)))
    config = as_dict(first) | {"batches": batches, "store": kept, "texts": texts and str(texts)}
    with tempfile.TemporaryDirectory() as scratch, watched(store, todo, done):
        try:
            start_ranks(sample_rank, Path(scratch), config, parallel_of(first).mesh())
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


def sample_rank(run_dir: str, config: dict[str, Any]) -> None:
    """What each rank runs: its part of the model once, then batch after batch; rank 0 encodes, decodes and writes."""
    batches, kept, texts = (config.pop(name) for name in ("batches", "store", "texts"))
    store = Store(Path(kept["folder"]), kept["stamp"], kept["batch"])

    def program(device: Any) -> None:
        run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), config))
        assert isinstance(run, RunConfig)
        model, module = open_model(run.model), METHODS[config["method"]["name"]]
        method = module.Config(**config["method"])
        dit = model.view()
        fabric = open_fabric(config, dit, device)
        sampler = module.build(dit, fabric, method)
        scheduler = scheduler_of(model, run.scheduler, run.steps)
        dit.load(model.tensors(), device)
        path, encode = Path(run_dir) / "inputs.safetensors", stored(Path(texts)) if texts else None
        wait_for_all = patient_barrier()
        for batch in batches:
            start = time.perf_counter()
            one = replace(run, prompt=batch["prompts"], seed=batch["seeds"])
            if fabric.rank == 0:
                write_inputs(path, make_inputs(one, model, encode))
            wait_for_all()
            fabric.clear()
            latents = sampler(*read_inputs(path, config["guidance_scale"], device), scheduler)
            fabric.close()
            if fabric.rank == 0:
                assert latents is not None
                latents = latents.cpu()
                pictures = pixels_of(latents, one, model, device)
                numbers = range(batch["start"], batch["stop"])
                store.write(numbers, latents, pictures, time.perf_counter() - start)
        wait_for_all()

    in_group(config, program)
