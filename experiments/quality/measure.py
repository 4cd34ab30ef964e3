"""`measure=quality`: how far the pictures of every method and setting are from serial's and from real ones.

Settings are sampled (or stand in for each other where that has been measured), looked at by named networks, and
recorded with n, intervals and floors. Everything is kept under the run directory: the same command goes on where it
was killed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.environment import hardware
from experiments.errors import ConfigError, RunFailed
from experiments.grid import check_grid, problem, serial_reference
from experiments.journal import Row
from experiments.models.contents import weights_sha256
from experiments.models.model import Model, pictures_only
from experiments.quality.cells import QualityConfig, all_cells, all_settings, control_run
from experiments.quality.look import look_all, real_features
from experiments.quality.metrics import compare, paired_rows, real_floor, seen_rows
from experiments.quality.networks import open_network
from experiments.quality.sample import (
    exactly,
    find_source,
    picture_files,
    require,
    sample_all,
)  # fmt: skip
from experiments.quality.settings import (
    SettingConfig,
    in_float32,
    setting_name,
    setting_place,
    stand_in,
)  # fmt: skip
from experiments.quality.store import Pictures, batches, gpu_names, remove_others, there, write_images
from experiments.quality.subjects import open_real, prompts_for
from experiments.quality.text_score import open_scorer
from experiments.runs.check import check_gpus
from experiments.session import Session
from experiments.study import Cell, Study


def prepare(todo: Sequence[Cell], cfg: RunConfig, session: Session) -> None:
    """Everything that several settings are measured on: pictures, and what networks see in them."""
    options: QualityConfig = cfg.measure
    remove_others(session)
    cells = [one.cfg for one in todo if isinstance(one.cfg.measure, SettingConfig)]
    if not cells:
        return
    settings = [one for one in cells if one.measure.what is None]
    own, count = cells[0].measure, options.equal_pictures
    if count:
        claims = [side for one in settings if stand_in(one) != one for side in (one, stand_in(one))]
        sample_all([(in_float32(one), count) for one in claims], exactly(own.sample, count), cfg, session)
    sources = [(one.measure, *source(one, session)[:2]) for one in settings]
    beside = {setting_name(other := serial_reference(one)): (one.measure, other) for one in settings}
    sources += [(own, other, own.compared) for own, other in beside.values()]
    for one in cells:
        if control := control_run(one):
            sources += [(one.measure, one, one.measure.drawn), (one.measure, control, one.measure.pictures)]
    drawn = {(repr(one), n): (one, n) for _, one, n in sources}.values()  # several may be of one setting
    sample_all(drawn, own.sample, cfg, session)
    shown = {
        setting_name(one): picture_files(one, own.sample, n, session, min(options.shown, n))
        for wanted, one, n in sources
        if wanted.what is None
    }
    for name, files in shown.items():
        if there(files) == len(files):
            write_images(session.folder / "images" / name, Pictures(files), options.shown)
    seen = [
        path
        for wanted, one, n in sources
        if wanted.seen
        for path in picture_files(one, own.sample, n, session, wanted.pictures)
    ]
    look_all((path for path in seen if path.exists()), own.eyes, cfg)


def source(cfg: RunConfig, session: Session) -> tuple[RunConfig, int, float | None]:
    """The setting whose pictures a setting has, how many are drawn of it, and the difference that was measured."""
    own: SettingConfig = cfg.measure
    found, error = find_source(cfg, own.sample, own.equal_pictures, session)
    return found, own.pictures if found == cfg != stand_in(cfg) else own.drawn, error


def measure(cell: Cell, session: Session) -> list[Row]:
    """The rows of a setting or a floor, one for each metric."""
    own = cell.cfg.measure
    return setting_rows(cell.cfg, session) if own.what is None else floor_rows(cell.cfg, session)


def setting_rows(cfg: RunConfig, session: Session) -> list[Row]:
    """A row for each metric, with whose pictures these are; one without, where too few have none."""
    own: SettingConfig = cfg.measure
    found, drawn, error = source(cfg, session)
    mine = stored(found, drawn, own, session)
    serial = None
    if cfg != serial_reference(cfg):
        with suppress(RunFailed):  # then it is compared with real pictures only
            serial = stored(serial_reference(cfg), own.compared, own, session)
    rows: list[Row] = []
    if own.seen:
        rows += seen_rows(own, mine, serial, real_features(cfg, session), cfg.prompt)
    if serial is not None:
        rows += paired_rows(compare(mine, serial, own.pictures))
    facts = {
        "sampled_as": setting_name(found),
        "equal_to": None if error is None else setting_name(stand_in(cfg)),
        "equal_error": error,
        "equal_n": None if error is None else own.equal_pictures,
        "seconds": mine.seconds(own.pictures),
    }
    return [facts | row for row in rows or [{}]]


def floor_rows(cfg: RunConfig, session: Session) -> list[Row]:
    """The distances of pictures that ought not to differ."""
    own, other = cfg.measure, control_run(cfg)
    if other is None:
        return real_floor(own, real_features(cfg, session))
    mine, theirs = stored(cfg, own.drawn, own, session), stored(other, own.pictures, own, session)
    return paired_rows(compare(mine, theirs, own.pictures))


def stored(cfg: RunConfig, drawn: int, own: SettingConfig, session: Session) -> Pictures:
    """The pictures of a setting. Raises RunFailed where these are not there."""
    files = picture_files(cfg, own.sample, drawn, session, own.pictures)
    require(files, session)
    return Pictures(files)


def work(cell: Cell) -> Hashable:
    """Settings that may have their pictures from one are measured by one process; floors by another."""
    return repr(replace(stand_in(cell.cfg), prompt="", measure=cell.cfg.measure.what))


def why_not(cfg: RunConfig, model: Model) -> str | None:
    """What keeps a method from a setting, batch by batch, or from this machine."""
    own: SettingConfig = cfg.measure
    runs = {len(one.prompt): one for one in batches(cfg, own.sample, own.drawn)}
    reasons = [problem(one, model) for one in runs.values()]
    gpus = check_gpus(cfg)
    return next((one for one in [*reasons, None if gpus is None else str(gpus)] if one), None)


def check_settings(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for whatever can be known to be wrong before anything is sampled."""
    options: QualityConfig = cfg.measure
    if cfg.cluster.world == "plan":
        raise ConfigError("cluster", f"{cfg.cluster.name} samples no pictures; allowed: sim, local")
    if isinstance(cfg.seed, list):
        raise ConfigError("seed", f"{cfg.seed} is a list; allowed: one number, that of the first picture")
    grids = {f"measure.studies.{index}": grid for index, grid in enumerate(options.studies)}
    for key, study in grids.items():
        check_grid(study, key)
    for key, grid in (("measure", options), *grids.items()):
        for name in ("models", "clusters"):
            if given := getattr(grid, name):
                text = f"{given} are several; allowed: [], pictures are of one model on one cluster"
                raise ConfigError(f"{key}.{name}", text)
    model = session.model(cfg.model)
    pictures_only(model)
    prompts_for(cfg, model)
    open_real(options.real, options.data_dir, model)
    open_network(options.network)
    open_scorer(options.clip)


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """Model, prompts (picture k has prompt k, round and round) and real pictures; the GPU that sampled."""
    options, model = cfg.measure, session.model(cfg.model)
    prompts, real = prompts_for(cfg, model), open_real(options.real, options.data_dir, model)
    most = int(rows.pictures.max())
    sampled = (
        picture_files(found, one.measure.sample, drawn, session)
        for one in all_settings(cfg, session)
        for found, drawn, _ in [source(one, session)]
    )
    return {
        "model": {
            "name": cfg.model.name,
            "weights_sha256": weights_sha256(model.folder),
            "parameters": sum(p.numel() for p in model.view().model.parameters()),
        },
        "interval": "95 % intervals",
        "prompts": {role or "given": prompts.roles.count(role) for role in sorted(set(prompts.roles))},
        "texts": list(prompts.texts[:most]),
        "real": {"what": real.what, "pictures": len(real)},
        "hardware": hardware(gpu_names(path for each in sampled for path in each)),
    }


def main_rows(record: Record) -> pd.DataFrame:
    """The main metrics of the main study, and what of it did not end well."""
    # Floors are of no study.
    rows = record.rows[record.rows.studies.map(lambda names: "main" in names, na_action="ignore").eq(True)]
    return rows[rows.metric.isin(["frechet", "latent_error", "psnr_db"]) | (rows.status != "ok")]


QUALITY = Study(
    "quality",
    measure,
    (
        *("method", "parallel", "patches", "warmup", "metric", "against"),
        *("value", "low", "high", "n", "sampled_as", "status"),
    ),
    "Quality of the main study",
    grid=all_cells,
    problem=why_not,
    prepare=prepare,
    place=setting_place,
    group=work,
    facts=facts,
    shown=main_rows,
    check=check_settings,
)
