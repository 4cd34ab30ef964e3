"""The one table of what a command can measure. A new measure is its module, its YAML in conf/measure, and its row here.

Rows name what they need, and `load` imports it when it is chosen: a command that is refused imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.utils import get_object

from experiments import records


@dataclass(frozen=True)
class Measure:
    """Paths of the dataclass of its keys, of what runs it, and of what checks it.

    `run(cfg, out)` measures into directory `out` and returns a status. `check(cfg)` raises ConfigError for what is
    wrong, before anything is started, and returns what a sweep skips. `writes` names the files and folders of its
    directory that are its own: no others may lie there before. With `told`, sinks get its tables afterwards.
    """

    config: str
    run: str
    check: str
    writes: tuple[str, ...] = ()
    told: bool = True


def load(path: str) -> Any:
    """What a dotted path names, its module being imported now."""
    return get_object(path)


def row(module: str, config: str, name: str, *writes: str, told: bool = True, check: str = "") -> Measure:
    """The row of a module of experiments/ with `config`, a function `name` and its `check_name`."""
    at = f"experiments.{module}"
    return Measure(f"{at}.{config}", f"{at}.{name}", f"{at}.{check or f'check_{name}'}", writes, told)


MEASURES: dict[str, Measure] = {
    "latency": Measure(
        "experiments.config.LatencyConfig", "experiments.job.run", "experiments.check.check_run", records.FILES
    ),
    "accounting": row("accounting", "AccountingConfig", "accounting", "accounting.json", "accounting.csv"),
    "bench": row("bench", "BenchConfig", "bench", "bench.json", "seconds.json", "ready.json", "logs"),
    "calibrate": row(
        "calibrate", "CalibrateConfig", "calibrate",
        "measured.json", "device.yaml", "link.yaml", "cluster.yaml", "logs",
    ),
    "conformance": row("conformance.report", "ConformanceConfig", "conformance", "conformance.json"),
    "fit": row("fit", "FitConfig", "fit"),
    "gpu_check": row(
        "gpu_check.measure", "GpuCheckConfig", "gpu_check", "gpu_check.json", "gpu_check.md", "failed", told=False
    ),
    "loading": row("loading", "LoadingConfig", "loading", "loading.json", "loading.csv"),
    "params": row("params", "ParamsConfig", "params", "params.json", "params.csv"),
    "perturb": row("perturb", "PerturbConfig", "perturb", "perturb.json"),
    "plan": row("choose", "PlanConfig", "choose", "plan.json", "plan.csv", check="check_plan"),
    "predict": row("predict", "PredictConfig", "predict", "predictions.json"),
    "quality": row(
        "quality.measure", "QualityConfig", "quality",
        "quality.json", "paired.parquet", "grid.json", "images", "pictures", "equal", "texts", "real",
    ),
    "scaling": row("scaling", "ScalingConfig", "scaling", "scaling.json"),
    "staleness": row(
        "staleness.measure", "StalenessConfig", "staleness",
        "staleness.json", "freshness.csv", "redundancy.csv", "error.csv", "steps.csv", "map.csv",
    ),
    "text_variants": row("text_variants", "TextVariantsConfig", "text_variants", "text_variants.json"),
    "train": row(
        "training.measure", "TrainConfig", "measure_train",
        "checkpoint", "model", "sheets", "loss.csv", "loss.png", told=False, check="check_train",
    ),
    "score": row(
        "training.measure", "ScoreConfig", "measure_score",
        "score.json", "sheet.png", "held_out.png", "unseen.png", check="check_score",
    ),
    "train_scorer": row("quality.train_scorer", "TrainScorerConfig", "train_scorer"),
    "worlds": row("worlds", "WorldsConfig", "worlds", "worlds.json", "local", "sim", "plan"),
}  # fmt: skip
