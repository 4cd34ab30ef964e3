"""The cells of quality: settings, serial beside each, and floors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

from experiments.config import RunConfig
from experiments.grid import GridConfig, expand, over
from experiments.models.model import resolved
from experiments.quality.networks import open_network
from experiments.quality.settings import (
    Eyes,
    SampleConfig,
    SettingConfig,
    in_float32,
    serial_reference,
    stand_in,
)
from experiments.quality.subjects import open_real, prompts_for
from experiments.quality.text_score import open_scorer
from experiments.runs.device import device_type
from experiments.session import Session
from pipefusion.core.domain import Count, Domain, Grid, Natural, Threads

REAL = "real pictures against other real pictures"
DTYPE = "serial against serial in float32"


@dataclass
class StudyConfig(GridConfig):
    """One grid of settings, with the measure's lists where it has none of its own. `pictures` 0 is the measure's."""

    study: str = "main"
    pictures: Natural = 0


@dataclass
class QualityConfig(GridConfig):
    """`studies` of settings, `pictures` of each (picture k: prompt k, seed `seed` + k), and what looks at them."""

    name: str = "quality"
    studies: Grid[StudyConfig] = field(default_factory=list)
    pictures: Annotated[int, Domain(2, 1 << 20)] = 2000
    batch: Count = 50
    workers: Threads | None = None  # processes at a time; null: one a core, to sample on GPUs one a GPU
    network: str = "efficientnet_lite0"  # or inception, inception:FILE
    clip: str | None = None  # folder or hub id of a CLIP; null: the shipped emoji scorer
    real: str | None = None  # folder of real pictures; null: what the model was trained on
    data_dir: str = "~/.cache/pipefusion-lab"
    # Fewer pictures than this have no distances of distributions: they would be all bias.
    fewest: Annotated[int, Domain(4, 1 << 20)] = 200
    resamples: Annotated[int, Domain(2, 1 << 20)] = 50  # of the intervals of Frechet distances
    # On which settings are compared, in simulation, that may stand in for each other; 0: every setting is sampled.
    equal_pictures: Natural = 2
    float32_pictures: Natural = 48  # serial again in float32, to see what the dtype alone does; 0: not
    shown: Natural = 8  # pictures of a setting that are kept as PNG


def all_cells(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Every cell, resolved."""
    settings = all_settings(cfg, session)
    yield from settings
    yield from floors(cfg, settings, session)


def all_settings(cfg: RunConfig, session: Session) -> list[RunConfig]:
    """Every setting once, with the most pictures that any study wants, and serial beside each."""
    options: QualityConfig = cfg.measure
    found: dict[str, tuple[RunConfig, SettingConfig]] = {}
    own = what_decides(cfg, session)

    def add(setting: RunConfig, pictures: int, *studies: str) -> None:
        _, wanted = found.setdefault(repr(setting), (setting, replace(own, studies=[])))
        wanted.pictures = max(wanted.pictures, pictures)
        wanted.studies += [study for study in studies if study not in wanted.studies]

    plain = replace(cfg, measure=None, prompt_file=None, images_per_prompt=1, prompt="")
    for grid in options.studies:
        for one in expand(plain, over(options, grid)):
            setting, pictures = resolved(one, session.model(one.model)), grid.pictures or options.pictures
            add(setting, pictures, grid.study)
            add(serial_reference(setting), pictures)
    drawn: dict[str, int] = {}
    for setting, wanted in found.values():
        source = repr(stand_in(setting))
        drawn[source] = max(drawn.get(source, 0), wanted.pictures)
    texts, cells = prompts_for(cfg, session.model(cfg.model)).texts, []
    for setting, wanted in found.values():
        wanted.drawn, wanted.compared = (drawn[repr(one(setting))] for one in (stand_in, serial_reference))
        prompts = [
            texts[k % len(texts)] for k in range(max(wanted.drawn, wanted.compared, options.equal_pictures))
        ]
        cells.append(replace(setting, prompt=prompts, measure=wanted))
    return cells


def what_decides(cfg: RunConfig, session: Session) -> SettingConfig:
    """What all settings share: batches, networks, real pictures."""
    options: QualityConfig = cfg.measure
    real = open_real(options.real, options.data_dir, session.model(cfg.model))
    weights = f"{open_network(options.network).weights} {open_scorer(options.clip).weights}"
    shared = {
        key: getattr(options, key) for key in ("fewest", "resamples", "equal_pictures", "real", "data_dir")
    }
    return SettingConfig(
        **shared,
        digest=real.digest,
        captions=real.captions,
        eyes=Eyes(options.network, options.clip, weights),
        sample=SampleConfig(batch=options.batch, device=device_type(cfg.cluster.device)),
    )


def floors(cfg: RunConfig, settings: list[RunConfig], session: Session) -> Iterator[RunConfig]:
    """Pictures that ought not to differ: real ones at the n of settings, and serial's in float32."""
    options: QualityConfig = cfg.measure

    def cell(setting: RunConfig, what: str, pictures: int) -> RunConfig:
        return replace(setting, measure=replace(setting.measure, what=what, studies=[], pictures=pictures))

    serial = [one for one in settings if one == serial_reference(one)]
    seen: set[tuple[int | None, ...]] = set()
    for one in settings:
        n, model = one.measure.pictures, one.model
        if n >= options.fewest and (at := (model.resolution, model.height, model.width, n)) not in seen:
            seen.add(at)
            yield cell(serial_reference(one), REAL, n)
    usual = resolved(serial_reference(cfg), session.model(cfg.model))
    for one in serial:
        same = all(
            getattr(one, key) == getattr(usual, key)
            for key in ("model", "steps", "guidance_scale", "scheduler")
        )
        if same and options.float32_pictures and cfg.model.dtype != "float32":
            yield cell(one, DTYPE, min(options.float32_pictures, one.measure.pictures))


def control_run(cfg: RunConfig) -> RunConfig | None:
    """What the serial pictures of a floor are held against, where it is not real ones."""
    return in_float32(cfg) if cfg.measure.what == DTYPE else None
