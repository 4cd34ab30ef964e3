"""Sampling on real ranks (`cluster=local`): the processes of a setting stay up for all of its batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
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
from experiments.quality.store import write_pictures
from experiments.quality.texts import stored, texts_path
from experiments.rank import in_group, open_fabric, patient_barrier, read_inputs
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
    batches = [{"path": str(path), "prompts": run.prompt, "seeds": run.seed} for path, run in todo.items()]
    config = as_dict(first) | {"batches": batches, "texts": texts and str(texts)}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            start_ranks(sample_rank, Path(scratch), config, parallel_of(first).mesh())
        except RunFailed as failure:
            if failure.status == "interrupted":
                raise KeyboardInterrupt from None
            raise


def sample_rank(run_dir: str, config: dict[str, Any]) -> None:
    """What each rank runs: its part of the model once, then batch after batch; rank 0 encodes, decodes and writes."""
    batches, texts = (config.pop(name) for name in ("batches", "texts"))

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
                write_pictures(Path(batch["path"]), latents, pictures, batch["prompts"], start, device)
        wait_for_all()

    in_group(config, program)
