"""What networks see in pictures: features, classes and text scores, kept for each batch, once for all metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.contents import sha256_of_json
from experiments.pool import Bar, run_all, worker_count
from experiments.quality.networks import open_network
from experiments.quality.settings import Eyes
from experiments.quality.store import Pictures, there
from experiments.quality.subjects import open_real
from experiments.quality.text_score import open_scorer
from experiments.session import Session


@dataclass(frozen=True)
class Look:
    """Features [n, d], class logits [n, classes] and text scores [n] of pictures."""

    features: Tensor
    logits: Tensor
    scores: Tensor


def look(pictures: Pictures, count: int, eyes: Eyes) -> Look:
    """What is seen in the first `count`: looked at now, as far as nobody has."""
    parts = [kept(seen_path(path, eyes), partial(see, path, eyes)) for path in pictures.files]
    return Look(**{name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]})


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
    with safe_open(file, framework="pt") as stored:
        pictures, texts = (
            stored.get_tensor("pictures").float() / 255,
            json.loads(stored.metadata()["prompts"]),
        )
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
    path = (
        session.folder / "looks" / f"real-{sha256_of_json([own.digest, asdict(own.eyes), size])}.safetensors"
    )

    def make() -> dict[str, Tensor]:
        real, net = open_real(own.real, own.data_dir, model), open_network(own.eyes.network)
        return {"features": torch.cat([net.features(part) for part in real.read(size, own.sample.batch)])}

    kept(path, make)
    return path


def seen_path(file: Path, eyes: Eyes) -> Path:
    """Where what is seen in a batch is kept."""
    return file.parents[1] / "looks" / f"{sha256_of_json([file.stem, asdict(eyes)])}.safetensors"


def kept(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, made and written where it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary)
    return load_file(path)
