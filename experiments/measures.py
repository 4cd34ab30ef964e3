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
from experiments.accounting import AccountingConfig, accounting, check_accounting
from experiments.bench import BenchConfig, bench, check_bench
from experiments.calibrate import CalibrateConfig, calibrate, check_calibrate
from experiments.choose import PLAN, PlanConfig
from experiments.config import LatencyConfig, RunConfig
from experiments.conformance.report import ConformanceConfig, check_conformance, conformance
from experiments.fit import FitConfig, check_fit, fit
from experiments.gpu_check.measure import GpuCheckConfig, check_gpu_check, gpu_check
from experiments.loading import LoadingConfig, check_loading, loading
from experiments.params import ParamsConfig, check_params, params
from experiments.perturb import PerturbConfig, check_perturb, perturb
from experiments.predict import PredictConfig, check_predict, predict
from experiments.quality.measure import QualityConfig, check_quality, quality
from experiments.quality.train_scorer import TrainScorerConfig, check_train_scorer, train_scorer
from experiments.scaling import SCALING, ScalingConfig
from experiments.staleness.measure import StalenessConfig, check_staleness, staleness
from experiments.study import FILES, Study
from experiments.study import check as check_study
from experiments.study import run as run_study
from experiments.text_variants import TextVariantsConfig, check_text_variants, text_variants
from experiments.training.check import check_score, check_train
from experiments.training.loop import TrainConfig, train
from experiments.training.score import ScoreConfig, score
from experiments.worlds import WorldsConfig, check_worlds, worlds


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


def run_train(cfg: RunConfig, out: Path) -> str:
    """Train the small model; says where it is."""
    print(train(cfg.measure, out))
    return "ok"


def run_score(cfg: RunConfig, out: Path) -> str:
    """Score the small model."""
    score(cfg.measure, out)
    return "ok"


def of(study: Study, config: type) -> Measure:
    """The row of a study."""
    return Measure(config, partial(run_study, study), partial(check_study, study), FILES, study=study)


MEASURES: dict[str, Measure] = {
    "latency": Measure(LatencyConfig, writes=records.FILES),
    "accounting": Measure(
        AccountingConfig, accounting, check_accounting, ("accounting.json", "accounting.csv")
    ),
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
    "loading": Measure(LoadingConfig, loading, check_loading, ("loading.json", "loading.csv")),
    "params": Measure(ParamsConfig, params, check_params, ("params.json", "params.csv")),
    "perturb": Measure(PerturbConfig, perturb, check_perturb, ("perturb.json",)),
    "plan": of(PLAN, PlanConfig),
    "predict": Measure(PredictConfig, predict, check_predict, ("predictions.json",)),
    "quality": Measure(
        QualityConfig,
        quality,
        check_quality,
        ("quality.json", "paired.parquet", "grid.json", "images", "pictures", "equal", "texts", "real"),
    ),
    "scaling": of(SCALING, ScalingConfig),
    "staleness": Measure(
        StalenessConfig,
        staleness,
        check_staleness,
        ("staleness.json", "freshness.csv", "redundancy.csv", "error.csv", "steps.csv", "map.csv"),
    ),
    "text_variants": Measure(TextVariantsConfig, text_variants, check_text_variants, ("text_variants.json",)),
    "train": Measure(
        TrainConfig,
        run_train,
        check_train,
        ("checkpoint", "model", "sheets", "loss.csv", "loss.png"),
        told=False,
    ),
    "score": Measure(
        ScoreConfig, run_score, check_score, ("score.json", "sheet.png", "held_out.png", "unseen.png")
    ),
    "train_scorer": Measure(TrainScorerConfig, train_scorer, check_train_scorer),
    "worlds": Measure(WorldsConfig, worlds, check_worlds, ("worlds.json", "local", "sim", "plan")),
}
