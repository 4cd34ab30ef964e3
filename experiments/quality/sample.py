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

from experiments.config import RunConfig
from experiments.difference import largest_difference
from experiments.errors import RunFailed, first_line
from experiments.journal import CELLS, Journal, Row
from experiments.models.inputs import as_inputs, make_inputs
from experiments.pictures import decode_pixels
from experiments.pool import Bar
from experiments.quality.ranks import sample_on_ranks
from experiments.quality.settings import SampleConfig, in_float32, stand_in
from experiments.quality.store import PICTURES, batches, shared, there, write_pictures
from experiments.quality.texts import encode_all, stored, texts_path
from experiments.runner import make_cell, measure_all
from experiments.runs.agent import failure_status
from experiments.runs.device import choose_device
from experiments.session import Session
from experiments.study import Cell, Study, by_itself

EQUAL = 1e-4
"""Largest difference, over the largest latent, that the order of sums makes in some tens of steps of float32."""


def batch_file(cfg: RunConfig, session: Session) -> Path:
    """The file of one batch, after the key of its cell."""
    return shared(session, SAMPLE.name) / f"{make_cell(SAMPLE, cfg, session).key}.safetensors"


def sample(cell: Cell, session: Session) -> list[Row]:
    """Sample a batch, its ranks in this process. No rows."""
    cfg, start = cell.cfg, time.perf_counter()
    model, device = session.model(cfg.model), choose_device(cfg.cluster.device)
    latents = sample_in_process(cfg, session, device)
    pictures = None if cfg.measure.exact else decode_pixels(latents, cfg, model, device)
    write_pictures(batch_file(cfg, session), latents, pictures, cfg.prompt, start, device)
    return []


def sample_in_process(run: RunConfig, session: Session, device: torch.device) -> Tensor:
    """The latents [B, C, H, W] of one run, its ranks simulated."""
    assert run.guidance_scale is not None
    model = session.model(run.model)
    texts = texts_path(run, session)
    with torch.inference_mode():
        inputs = make_inputs(run, model, stored(texts) if texts else None)
        return session.simulate(run, *as_inputs(inputs, run.guidance_scale), device=device)[0]


SAMPLE = Study(PICTURES, sample, (), group=by_itself)


def picture_files(
    cfg: RunConfig, own: SampleConfig, drawn: int, session: Session, count: int | None = None
) -> tuple[Path, ...]:
    """The files of the first `count` (None: all) of the `drawn` pictures of a setting, which may not be there."""
    return tuple(batch_file(one, session) for one in batches(cfg, own, drawn, count))


def sample_all(
    wanted: Iterable[tuple[RunConfig, int]], own: SampleConfig, cfg: RunConfig, session: Session
) -> None:
    """Sample so many pictures of each setting, as far as they are missing; what fails is a line in the journal."""
    settings = [
        {path: one for one in batches(setting, own, count) if not (path := batch_file(one, session)).exists()}
        for setting, count in wanted
    ]
    todo = {path: one for runs in settings for path, one in runs.items()}
    bar = Bar(partial(there, [*todo]), len(todo), "batches of pictures", cfg.log.progress)
    gpus = torch.cuda.device_count() if own.device == "cuda" else 0
    try:
        encode_all([*todo.values()], cfg, session, gpus)
    except Exception as error:  # whatever a foreign folder, or too little memory, has to say
        text = f"the prompts were not encoded: {type(error).__name__}: {first_line(error)}"
        give_up(todo, RunFailed(failure_status(text), text), session)
        return
    if own.exact or cfg.cluster.world == "sim":
        measure_all(
            SAMPLE, [make_cell(SAMPLE, one, session) for one in todo.values()], cfg, session, bar, gpus
        )
        return
    with bar.polled():
        for runs in settings:
            left = {path: one for path, one in runs.items() if not path.exists()}
            try:
                sample_on_ranks(left, session)
            except RunFailed as failure:
                give_up(left, failure, session)


def give_up(paths: Iterable[Path], failure: RunFailed, session: Session) -> None:
    """Write down why batches are not there."""
    for path in paths:
        row = {"status": failure.status, "reason": failure.reason}
        Journal(session.folder / CELLS).append(path.stem, [row])


def require(paths: Iterable[Path], session: Session) -> None:
    """Raises RunFailed with the reason why a file that a cell makes is not there."""
    for path in paths:
        if not path.exists():
            rows = Journal(session.folder / CELLS).read().get(path.stem)
            if not rows:
                raise RunFailed("failed", "the process that was at its pictures was killed")
            raise RunFailed(rows[0]["status"], rows[0]["reason"])


def find_source(
    cfg: RunConfig, own: SampleConfig, count: int, session: Session
) -> tuple[RunConfig, float | None]:
    """The setting whose pictures these are: its stand-in where both are measured to be the same; and their difference.

    The largest difference of the latents of `count` pictures, over the largest latent, in float32. One that could not
    be compared has nothing to stand in for it.
    """
    other = stand_in(cfg)
    if not count or other == cfg:
        return cfg, None
    both = [picture_files(in_float32(one), exactly(own, count), count, session)[0] for one in (cfg, other)]
    if not all(path.exists() for path in both):
        return cfg, None
    ours, theirs = (load_file(path)["latents"] for path in both)
    error = largest_difference(ours, theirs)
    return (other if error <= EQUAL else cfg), error


def exactly(own: SampleConfig, count: int) -> SampleConfig:
    """How the few pictures are sampled that settings are compared on."""
    return replace(own, exact=True, batch=count)
