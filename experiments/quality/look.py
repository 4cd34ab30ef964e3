"""What networks see in pictures: features, classes and text scores of every batch, once for all metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.journal import Row
from experiments.methods import METHODS
from experiments.pool import Bar
from experiments.quality.networks import open_network
from experiments.quality.sample import SAMPLE, path_of
from experiments.quality.settings import LookConfig, RealConfig
from experiments.quality.store import Pictures, batches, there
from experiments.quality.subjects import open_real
from experiments.quality.text_score import open_scorer
from experiments.session import Session
from experiments.study import Cell, Study, cell_of, measure_all
from pipefusion.core.parallel import Parallel


@dataclass(frozen=True)
class Look:
    """Features [n, d], class logits [n, classes] and text scores [n] of pictures."""

    features: Tensor
    logits: Tensor
    scores: Tensor


def look(cell: Cell, session: Session) -> list[Row]:
    """Look at a batch, or at the real pictures of a size. No rows."""
    own = cell.cfg.measure
    tensors, facts = (
        real_features(cell, session) if isinstance(own, RealConfig) else (seen_in(cell, session), {})
    )
    path = path_of(LOOK, cell.cfg, session)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, facts)
    return []


def seen_in(cell: Cell, session: Session) -> dict[str, Tensor]:
    """Features, class logits and text scores of one batch."""
    own: LookConfig = cell.cfg.measure
    net, scorer = open_network(own.network), open_scorer(own.clip)
    file = path_of(SAMPLE, replace(cell.cfg, measure=own.sample), session)
    pictures, texts = load_file(file)["pictures"].float() / 255, cell.cfg.prompt
    features, logits = net.run(pictures)
    if scorer.score_features is not None and net.name == "efficientnet_lite0":
        scores = scorer.score_features(features, texts)  # one pass of the network is enough
    else:
        scores = scorer.score(pictures, texts)
    return {"features": features, "logits": logits, "scores": scores}


def real_features(cell: Cell, session: Session) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Features [m, d] of real pictures at the size of the model's, and their captions where these are known."""
    own: RealConfig = cell.cfg.measure
    model = session.model(cell.cfg.model)
    real = open_real(own.real, own.data_dir, model)
    net = open_network(own.look.network)
    parts = [net.features(part) for part in real.read((model.height, model.width), own.look.sample.batch)]
    return {"features": torch.cat(parts)}, {"captions": json.dumps(real.captions)}


LOOK = Study("looks", look, ())


def look_all(runs: Iterable[RunConfig], cfg: RunConfig, session: Session) -> None:
    """Look at batches and at real pictures, as far as nobody has."""
    cells = {cell.key: cell for cell in (cell_of(LOOK, one, session) for one in runs)}
    todo = {path_of(LOOK, cell.cfg, session): cell for cell in cells.values()}
    todo = {path: cell for path, cell in todo.items() if not path.exists()}
    bar = Bar(partial(there, [*todo]), len(todo), "batches looked at", cfg.log.progress)
    measure_all(LOOK, [*todo.values()], cfg, session, bar)


def looked(cfg: RunConfig, own: LookConfig, drawn: int, count: int) -> list[RunConfig]:
    """The batches that the first `count` of the `drawn` pictures of a setting are in."""
    return [replace(one, measure=own) for one in batches(cfg, own.sample, drawn, count)]


def real_run(cfg: RunConfig, real: RealConfig) -> RunConfig:
    """What the features of real pictures depend on: the size, and nothing else of a run."""
    plain = replace(cfg, method=METHODS["serial"].Config(), devices=1, parallel=Parallel(), steps=1)
    plain = replace(plain, guidance_scale=1.0, scheduler="shipped", seed=0, prompt="", measure=real)
    return replace(plain, model=replace(cfg.model, dtype="float32"))


def look_at(pictures: Pictures, count: int) -> Look:
    """What was seen in the first `count`. Raises OSError where that is not there."""
    parts = [load_file(path) for path in pictures.looks]
    found = {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}
    return Look(**found)


def features_of(source: Pictures | Path, count: int | None) -> Tensor:
    """Features [n, d] of pictures, or of the real ones whose file it is."""
    return (
        look_at(source, count or 0).features
        if isinstance(source, Pictures)
        else load_file(source)["features"]
    )


def captions_of(path: Path) -> list[str] | None:
    """The captions of real pictures, where they are known."""
    with safe_open(path, framework="pt") as file:
        captions: list[str] | None = json.loads(file.metadata()["captions"])
    return captions
