"""What networks see in pictures: features, classes and text scores, kept for each batch, once for all metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.config import RunConfig
from experiments.models.contents import hash_json
from experiments.pool import Bar, run_all, worker_count
from experiments.quality.networks import open_network
from experiments.quality.settings import Eyes
from experiments.quality.store import LOOKS, Pictures, shared, there
from experiments.quality.subjects import open_real
from experiments.quality.text_score import open_scorer
from experiments.session import Session
from experiments.tensors import read_facts, write_tensors


def look(pictures: Pictures, count: int, eyes: Eyes) -> dict[str, Tensor]:
    """What is seen in the first `count`: looked at now, as far as nobody has.

    `features` [n, d], class `logits` [n, classes] and text `scores` [n].
    """
    parts = [kept(seen_path(path, eyes), partial(see, path, eyes)) for path in pictures.files]
    return {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}


def look_all(files: Iterable[Path], eyes: Eyes, cfg: RunConfig) -> None:
    """Look at batches side by side. What fails here fails again where it is asked for, and is recorded there."""
    jobs = {path: (file, eyes, cfg.threads) for file in files if not (path := seen_path(file, eyes)).exists()}
    bar = Bar(partial(there, [*jobs]), len(jobs), "batches looked at", cfg.log.progress)
    with suppress(Exception):
        run_all(look_at, [*jobs.values()], worker_count(cfg), bar, __name__)


def look_at(file: Path, eyes: Eyes, threads: int) -> None:
    """Look at one batch."""
    torch.set_num_threads(threads)
    kept(seen_path(file, eyes), partial(see, file, eyes))


def see(file: Path, eyes: Eyes) -> dict[str, Tensor]:
    """Features, class logits and text scores of the pictures of a file."""
    net, scorer = open_network(eyes.network), open_scorer(eyes.clip)
    pictures, texts = load_file(file)["pictures"].float() / 255, json.loads(read_facts(file)["prompts"])
    features, logits = net.run(pictures)
    if scorer.score_features is not None and net.name == "efficientnet_lite0":
        scores = scorer.score_features(features, texts)  # one pass of the network is enough
    else:
        scores = scorer.score(pictures, texts)
    return {"features": features, "logits": logits, "scores": scores}


def real_features(cfg: RunConfig, session: Session) -> Path:
    """The file of the features [m, d] of real pictures at the size of a setting's."""
    own, model = cfg.measure, session.model(cfg.model)
    size = (model.height, model.width)
    name = f"real-{hash_json([own.digest, asdict(own.eyes), size])}.safetensors"

    def make() -> dict[str, Tensor]:
        real, net = open_real(own.real, own.data_dir, model), open_network(own.eyes.network)
        return {"features": torch.cat([net.features(part) for part in real.read(size, own.sample.batch)])}

    path = shared(session, LOOKS) / name
    kept(path, make)
    return path


def seen_path(file: Path, eyes: Eyes) -> Path:
    """Where what is seen in a batch is kept: beside the folder of pictures, by the same code."""
    name = f"{hash_json([file.stem, asdict(eyes)])}.safetensors"
    return file.parents[2] / LOOKS / file.parent.name / name


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, made and written where it is not there."""
    if not path.exists():
        write_tensors(path, make())
    return load_file(path)
