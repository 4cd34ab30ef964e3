"""The one table of what a command can measure. A new measure is its module, its YAML in conf/measure, and its row here.

`run(cfg, out)` measures into directory `out` and returns a status; None is one run of one method (`measure=latency`).
`check(cfg)` raises ConfigError for what is wrong with it, before anything is started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments import records
from experiments.accounting import ACCOUNTING, AccountingConfig
from experiments.bench import BenchConfig, bench, check_bench
from experiments.calibrate import CalibrateConfig, calibrate, check_calibrate
from experiments.choose import PLAN, PlanConfig
from experiments.config import LatencyConfig, RunConfig
from experiments.conformance.report import ConformanceConfig, check_conformance, conformance
from experiments.fit import FitConfig, check_fit, fit
from experiments.gpu_check.measure import GpuCheckConfig, check_gpu_check, gpu_check
from experiments.loading import FOLDER, LOADING, LoadingConfig
from experiments.params import PARAMS, ParamsConfig
from experiments.perturb import PERTURB, PerturbConfig
from experiments.predict import PredictConfig, check_predict, predict
from experiments.quality.measure import QualityConfig, check_quality, quality
from experiments.recipes.score import ScoreConfig, check_score, score
from experiments.recipes.train import TrainConfig, check_train, train
from experiments.recipes.train_scorer import TrainScorerConfig, check_train_scorer, train_scorer
from experiments.scaling import SCALING, ScalingConfig
from experiments.staleness.cells import StalenessConfig
from experiments.staleness.measure import STALENESS
from experiments.study import FILES, Study
from experiments.study import check as check_study
from experiments.study import run as run_study
from experiments.text_variants import TEXT_VARIANTS, TextVariantsConfig
from experiments.worlds import THREE, WorldsConfig


@dataclass(frozen=True)
class Measure:
    """The dataclass of its keys, what runs it, what checks it, and whether sinks are told of its tables afterwards.

    `writes` names the files and folders of its directory that are its own: no others may lie there before.
    """

    config: type
    run: Callable[[RunConfig, Path], str] | None = None
    check: Callable[[RunConfig], None] | None = None
    writes: tuple[str, ...] = ()
    told: bool = True
    study: Study | None = None


def of(study: Study, config: type, *writes: str) -> Measure:
    """The row of a study; `writes` names what its cells write beside their rows."""
    return Measure(
        config, partial(run_study, study), partial(check_study, study), (*FILES, *writes), study=study
    )


MEASURES: dict[str, Measure] = {
    "latency": Measure(LatencyConfig, writes=records.FILES),
    "accounting": of(ACCOUNTING, AccountingConfig),
    "bench": Measure(BenchConfig, bench, check_bench, ("bench.json", "seconds.json", "ready.json", "logs")),
    "calibrate": Measure(
        CalibrateConfig,
        calibrate,
        check_calibrate,
        ("measured.json", "device.yaml", "link.yaml", "cluster.yaml", "logs"),
    ),
    "conformance": Measure(ConformanceConfig, conformance, check_conformance, ("conformance.json",)),
    "fit": Measure(FitConfig, fit, check_fit),
    "gpu_check": Measure(
        GpuCheckConfig, gpu_check, check_gpu_check, ("gpu_check.json", "gpu_check.md", "failed"), told=False
    ),
    "loading": of(LOADING, LoadingConfig, FOLDER),
    "params": of(PARAMS, ParamsConfig),
    "perturb": of(PERTURB, PerturbConfig),
    "plan": of(PLAN, PlanConfig),
    "predict": Measure(PredictConfig, predict, check_predict, ("predictions.json",)),
    "quality": Measure(
        QualityConfig,
        quality,
        check_quality,
        ("quality.json", "paired.parquet", "grid.json", "images", "pictures", "equal", "texts", "real"),
    ),
    "scaling": of(SCALING, ScalingConfig),
    "staleness": of(STALENESS, StalenessConfig),
    "text_variants": of(TEXT_VARIANTS, TextVariantsConfig),
    "train": Measure(
        TrainConfig,
        train,
        check_train,
        ("checkpoint", "model", "sheets", "loss.csv", "loss.png"),
        told=False,
    ),
    "score": Measure(
        ScoreConfig, score, check_score, ("score.json", "sheet.png", "held_out.png", "unseen.png")
    ),
    "train_scorer": Measure(TrainScorerConfig, train_scorer, check_train_scorer),
    "worlds": of(THREE, WorldsConfig, "local", "sim", "plan"),
}
