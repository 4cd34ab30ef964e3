"""Sampling: the pictures of settings that are not there yet, and which settings need none of their own.

In `cluster=sim` the logical ranks of a batch share a process, and processes sample side by side. In `cluster=local`
the ranks of a setting are processes of their own, which stay up for all of its batches (`ranks.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.agent import RunFailed, status_of
from experiments.config import RunConfig
from experiments.difference import largest_difference
from experiments.errors import first_line
from experiments.inputs import make_inputs
from experiments.journal import Journal, Row
from experiments.models import Model
from experiments.pictures import pixels_of
from experiments.pool import Bar
from experiments.quality.ranks import sample_on_ranks
from experiments.quality.settings import SampleConfig, in_float32, stand_in
from experiments.quality.store import batches, there, write_pictures
from experiments.quality.texts import encode_all, stored, texts_path
from experiments.rank import as_inputs, choose_device
from experiments.session import Session
from experiments.simulate import sample_once
from experiments.study import CELLS, Cell, Study, cell_of, measure_all

EQUAL = 1e-4
"""Largest difference, over the largest latent, that the order of sums makes in some tens of steps of float32."""


def path_of(study: Study, cfg: RunConfig, session: Session) -> Path:
    """The file of one batch, after the key of its cell."""
    return session.out / study.name / f"{cell_of(study, cfg, session).key}.safetensors"


def sample(cell: Cell, session: Session) -> list[Row]:
    """Sample the pictures of a cell that are not there: one batch, or on ranks all of a setting. No rows."""
    cfg, own = cell.cfg, cell.cfg.measure
    model = session.model(cfg.model)
    texts = texts_path(session.out, cfg, model)
    todo = {path_of(SAMPLE, one, session): one for one in parts(cfg)}
    todo = {path: one for path, one in todo.items() if not path.exists()}
    if cfg.cluster.world == "local" and not own.exact:
        if todo:
            sample_on_ranks(todo, texts)
        return []
    for path, one in todo.items():
        start, latents = time.perf_counter(), sample_in_process(one, model, texts)
        device = choose_device(cfg.cluster.device)
        pictures = None if own.exact else pixels_of(latents, one, model, device)
        write_pictures(path, latents, pictures, time.perf_counter() - start, device)
    return []


def parts(cfg: RunConfig) -> list[RunConfig]:
    """The batches of a cell, which may be one."""
    return batches(replace(cfg, seed=cfg.seed[0]), cfg.measure, len(cfg.prompt))


def sample_in_process(run: RunConfig, model: Model, texts: Path | None) -> Tensor:
    """The latents [B, C, H, W] of one run, its ranks simulated."""
    assert run.guidance_scale is not None
    with torch.inference_mode():
        inputs = make_inputs(run, model, stored(texts) if texts else None)
        noise, cond = as_inputs(inputs, run.guidance_scale)
        return sample_once(run, model, noise, cond)


SAMPLE = Study("pictures", sample, ())


def pictures_of(
    cfg: RunConfig, own: SampleConfig, drawn: int, session: Session, count: int | None = None
) -> tuple[Path, ...]:
    """The files of the first `count` (None: all) of the `drawn` pictures of a setting, which may not be there."""
    return tuple(path_of(SAMPLE, one, session) for one in batches(cfg, own, drawn, count))


def sample_all(
    wanted: Iterable[tuple[RunConfig, int]], own: SampleConfig, cfg: RunConfig, session: Session
) -> None:
    """Sample so many pictures of each setting, as far as they are missing; one that fails is a line in the journal."""
    alone = cfg.cluster.world == "local" and not own.exact
    runs = [
        replace(one, measure=own)
        for setting, count in wanted
        for one in batches(setting, replace(own, batch=count) if alone else own, count)
    ]
    cells = {cell.key: cell for cell in (cell_of(SAMPLE, one, session) for one in runs)}
    missing = {
        cell.key: [path for one in parts(cell.cfg) if not (path := path_of(SAMPLE, one, session)).exists()]
        for cell in cells.values()
    }
    todo = [cell for cell in cells.values() if missing[cell.key]]
    files = [path for cell in todo for path in missing[cell.key]]
    bar = Bar(partial(there, files), len(files), "batches of pictures", cfg.log.progress)
    gpus = torch.cuda.device_count() if own.device == "cuda" else 0
    try:
        encode_all([cell.cfg for cell in todo], cfg, session, gpus)
    except Exception as error:  # whatever a foreign folder, or too little memory, has to say
        text = f"the prompts were not encoded: {type(error).__name__}: {first_line(error)}"
        for cell in todo:
            outcome = {"status": status_of(text), "reason": text}
            Journal(session.out / CELLS).append(cell.key, [cell.place | outcome])
    else:
        measure_all(replace(SAMPLE, alone=alone), todo, cfg, session, bar, 0 if alone else gpus)
    journal = Journal(session.out / CELLS)
    for key, rows in (journal.read() if alone else {}).items():
        for path in missing.get(key, []):  # a setting that failed has not these batches
            if not path.exists():
                journal.append(path.stem, rows)


def require(paths: Iterable[Path], session: Session) -> None:
    """Raises RunFailed with the reason why a file that a cell makes is not there."""
    for path in paths:
        if not path.exists():
            rows = Journal(session.out / CELLS).read().get(path.stem)
            if not rows:
                raise RunFailed("failed", "the process that was at its pictures was killed")
            raise RunFailed(rows[0]["status"], rows[0]["reason"])


def source_of(
    cfg: RunConfig, own: SampleConfig, count: int, session: Session
) -> tuple[RunConfig, float | None]:
    """The setting whose pictures these are: its stand-in where both are measured to be the same; and their difference.

    The largest difference of the latents of `count` pictures, over the largest latent, in float32. One that could not
    be compared has nothing to stand in for it.
    """
    other = stand_in(cfg)
    if not count or other == cfg:
        return cfg, None
    both = [pictures_of(in_float32(one), exactly(own, count), count, session)[0] for one in (cfg, other)]
    if not all(path.exists() for path in both):
        return cfg, None
    ours, theirs = (load_file(path)["latents"] for path in both)
    error = largest_difference(ours, theirs)
    return (other if error <= EQUAL else cfg), error


def exactly(own: SampleConfig, count: int) -> SampleConfig:
    """How the few pictures are sampled that settings are compared on."""
    return replace(own, exact=True, batch=count)
