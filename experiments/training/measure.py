"""Training and scoring as measures: what `experiments/measures.py` names of them."""

from __future__ import annotations

from pathlib import Path

from experiments.config import RunConfig
from experiments.training.check import check_score as check_score
from experiments.training.check import check_train as check_train
from experiments.training.loop import TrainConfig as TrainConfig
from experiments.training.loop import train
from experiments.training.score import ScoreConfig as ScoreConfig
from experiments.training.score import score


def measure_train(cfg: RunConfig, out: Path) -> str:
    """Train the small model; says where it is."""
    print(train(cfg.measure, out))
    return "ok"


def measure_score(cfg: RunConfig, out: Path) -> str:
    """Score the small model."""
    score(cfg.measure, out)
    return "ok"
