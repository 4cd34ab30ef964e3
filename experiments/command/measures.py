"""The one table of what a command can measure. A new measure is its module, its YAML in conf/measure, and its row here.

Rows name what they need, and `load` imports it when it is chosen: a command that is refused imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from analysis.records.record import RECORD, ROWS
from experiments import records
from experiments.config import RunConfig
from experiments.errors import ConfigError
from experiments.journal import CELLS

STUDY_FILES = (RECORD, ROWS, CELLS, "logs")
"""What every study writes into its directory."""


@dataclass(frozen=True)
class Measure:
    """Paths of the dataclass of its keys, and of its study, or of what runs and checks it where it is none.

    `run(cfg, out)` measures into directory `out` and returns a status; `check(cfg)` raises ConfigError for what is
    wrong before it is started, and returns what a sweep skips. `writes` names the files and folders of its directory
    that are its own: no others may lie there before. With `logged`, sinks get its tables afterwards.
    """

    config: str
    study: str = ""
    run: str = ""
    check: str = ""
    writes: tuple[str, ...] = ()
    logged: bool = True


def load(path: str) -> Any:
    """What a dotted path names, its module being imported now."""
    return get_object(path)


def run(cfg: RunConfig, out: Path, launcher: dict[str, Any] | None = None) -> str:
    """Measure what a configuration asks for into directory `out`; the status. A study's cells may be a launcher's."""
    row, status = MEASURES[cfg.measure.name], ""
    if row.study:
        status = load("experiments.runner.run")(load(row.study), cfg, out, launcher)
    else:
        status = load(row.run)(cfg, out)
    return status


def check(cfg: RunConfig) -> ConfigError | None:
    """What a sweep skips. Raises ConfigError for what is wrong."""
    row = MEASURES[cfg.measure.name]
    problem: ConfigError | None = (
        load("experiments.runner.check")(load(row.study), cfg) if row.study else load(row.check)(cfg)
    )
    return problem


def study(module: str, name: str, config: str, *writes: str) -> Measure:
    """The row of a study, `name` in a module of experiments/; `writes` are what its cells write beside their rows."""
    at = f"experiments.{module}"
    return Measure(f"{at}.{config}", f"{at}.{name}", writes=(*STUDY_FILES, *writes))


def other(module: str, name: str, config: str, *writes: str, logged: bool = True) -> Measure:
    """The row of a module with a function `name` and its `check_name`."""
    at = f"experiments.{module}"
    return Measure(f"{at}.{config}", "", f"{at}.{name}", f"{at}.check_{name}", writes, logged)


MEASURES: dict[str, Measure] = {
    "latency": Measure(
        config="experiments.config.LatencyConfig",
        run="experiments.runs.job.run",
        check="experiments.runs.check.check_run",
        writes=records.FILES,
    ),
    "accounting": study("studies.accounting", "ACCOUNTING", "AccountingConfig"),
    "bandwidth": study("studies.bandwidth", "BANDWIDTH", "BandwidthConfig"),
    "bench": study("studies.bench", "BENCH", "BenchConfig", "seconds.json", "ready.json"),
    "calibrate": other(
        "calibration.calibrate", "calibrate", "CalibrateConfig",
        "measured.json", "device.yaml", "link.yaml", "cluster.yaml", "logs",
    ),
    "comparison": study("studies.comparison", "COMPARISON", "ComparisonConfig"),
    "conformance": other("conformance.report", "conformance", "ConformanceConfig", "conformance.json"),
    "distance": study("studies.distance", "DISTANCE", "DistanceConfig"),
    "fit": other("calibration.fit", "fit", "FitConfig"),
    "gpu_check": other(
        "gpu_check.measure", "gpu_check", "GpuCheckConfig", "gpu_check.json", "gpu_check.md", "failed", logged=False
    ),
    "load": study("studies.load", "LOAD", "LoadConfig"),
    "loading": study("studies.loading", "LOADING", "LoadingConfig", "checkpoint"),
    "params": study("studies.params", "PARAMS", "ParamsConfig"),
    "perturb": study("studies.perturb", "PERTURB", "PerturbConfig"),
    "plan": study("studies.choose", "PLAN", "PlanConfig"),
    "predict": study("studies.predict", "PREDICT", "PredictConfig"),
    "quality": study("quality.measure", "QUALITY", "QualityConfig", "images", "pictures", "looks", "texts"),
    "scaling": study("studies.scaling", "SCALING", "ScalingConfig"),
    "staleness": Measure(
        "experiments.staleness.cells.StalenessConfig",
        "experiments.staleness.measure.STALENESS",
        writes=STUDY_FILES,
    ),
    "text_variants": study("studies.text_variants", "TEXT_VARIANTS", "TextVariantsConfig"),
    "train": other(
        "recipes.train", "train", "TrainConfig",
        "checkpoint", "model", "sheets", "loss.csv", "loss.png", logged=False,
    ),
    "score": other(
        "recipes.score", "score", "ScoreConfig", "score.json", "sheet.png", "held_out.png", "unseen.png"
    ),
    "train_scorer": other("recipes.train_scorer", "train_scorer", "TrainScorerConfig"),
    "worlds": study("studies.worlds", "THREE", "WorldsConfig", "local", "sim", "plan"),
}  # fmt: skip
