"""`measure=distance`: how far stale K, V put pictures and clips from serial's, and what that does to motion.

Every method, M, W, S and axis of patches is run in the simulated world on the same prompts and noise as serial. What
it makes is compared picture by picture; of a clip also its pictures one by one, and its differences between pictures:
an error that is the same in all pictures is seen as another clip, one that changes from picture to picture as flicker.
The same two are taken of what a frozen network sees in the pictures. They are distances of pairs of clips: a Fréchet
distance is one of sets, hundreds of clips at least, and is not computed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from analysis.methods.distance import means
from analysis.records.study import Record
from experiments.clips import unpack
from experiments.config import RunConfig, read_prompts
from experiments.difference import norm_of_difference
from experiments.errors import ConfigError
from experiments.grid import GridsConfig, expand, serial_reference
from experiments.journal import Row
from experiments.models.inputs import as_inputs, make_inputs
from experiments.models.model import Model
from experiments.quality.networks import open_network
from experiments.runs.check import check_model
from experiments.session import Session
from experiments.spaced import spaced
from experiments.study import Cell, Study
from pipefusion.core.domain import Natural, Threads
from pipefusion.core.ledger import Ledger


@dataclass
class DistanceConfig(GridsConfig):
    """The grids; `pictures` of as many of the prompts that the model was trained on, evenly spaced, 0: the run's."""

    name: str = "distance"
    pictures: Natural = 0
    workers: Threads | None = None


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Every run of the grids, each picture with a seed of its own, counted from the run's."""
    assert isinstance(cfg.seed, int)
    for grid in cfg.measure.each():
        for one in expand(cfg, grid):
            listed = session.model(one.model).prompts or {"train": read_prompts(cfg)}
            count = cfg.measure.pictures
            prompts = spaced(listed["train"], count) if count else read_prompts(cfg)
            seeds = [cfg.seed + picture for picture in range(len(prompts))]
            # Of the measure nothing else decides a result.
            own = replace(one, measure=DistanceConfig(), images_per_prompt=1)
            yield replace(own, prompt=prompts, prompt_file=None, seed=seeds)


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row for each picture."""
    serial, model = serial_reference(cell.cfg), session.model(cell.cfg.model)
    want = session.once(repr(serial), lambda: latents(serial, session))
    got = session.once(repr(cell.cfg), lambda: latents(cell.cfg, session))
    factor = model.facts.get("frame_factor", 1)
    rows = compare(got, want, read_prompts(cell.cfg), factor)
    if got.ndim == 4:
        return rows
    theirs = session.once(("features", repr(serial)), lambda: clip_features(as_clips(want, factor)))
    ours = clip_features(as_clips(got, factor))
    return [row | more for row, more in zip(rows, compare_features(ours, theirs), strict=True)]


def latents(cfg: RunConfig, session: Session) -> Tensor:
    """The latents [B, C, H, W] or [B, C, F, H, W] of a run on simulated devices."""
    return simulate(cfg, session)[0]


def simulate(cfg: RunConfig, session: Session) -> tuple[Tensor, Ledger]:
    """The same with the first rank's ledger."""
    assert cfg.guidance_scale is not None
    with torch.inference_mode():
        inputs = make_inputs(cfg, session.model(cfg.model))
        return session.simulate(cfg, *as_inputs(inputs, cfg.guidance_scale))


def compare(got: Tensor, want: Tensor, prompts: list[str], frame_factor: int) -> list[Row]:
    """A row for each picture or clip of latents in -1..1: errors are root mean squares of pixels in 0..1."""
    relative = norm_of_difference(got, want)
    ours, theirs = (as_clips(both, frame_factor) for both in (got, want))
    gap = ours - theirs  # [B, 3, F, h, w]
    by_frame = gap.square().mean((1, 3, 4))
    whole = by_frame.mean(1)
    flicker = gap.diff(dim=2).square().flatten(1).mean(1).sqrt()
    motion = theirs.diff(dim=2).square().flatten(1).mean(1).sqrt()
    rows: list[Row] = []
    for k, prompt in enumerate(prompts):
        row: Row = {"picture": k, "prompt": prompt, "relative_error": float(relative[k])}
        row |= {"pixel_error": float(whole[k].sqrt()), "psnr_db": float(-10 * whole[k].log10())}
        if got.ndim == 5:
            row |= {"flicker": float(flicker[k]), "motion": float(motion[k])}
            row["frame_errors"] = by_frame[k].sqrt().tolist()
        rows.append(row)
    return rows


def as_clips(latents: Tensor, frame_factor: int) -> Tensor:
    """Latents in -1..1 as pixels in 0..1, [B, 3, F, h, w]; a picture is a clip of one."""
    clips = unpack(latents, frame_factor) if latents.ndim == 5 else latents.unsqueeze(2)
    return (clips.double() / 2 + 0.5).clamp(0, 1)


def clip_features(clips: Tensor) -> Tensor:
    """What EfficientNet-Lite0 sees in each picture of clips [B, 3, F, h, w] in 0..1: [B, F, d], float64."""
    pictures = clips.movedim(2, 1)
    return open_network().features(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2]).double()


def compare_features(ours: Tensor, theirs: Tensor) -> list[Row]:
    """Error and flicker of features [B, F, d] of clips, over the root mean square of serial's; a row a clip."""
    gap = ours - theirs
    error, flicker, scale = (each.square().sum(2).mean(1).sqrt() for each in (gap, gap.diff(dim=1), theirs))
    pairs = zip((error / scale).tolist(), (flicker / scale).tolist(), strict=True)
    return [
        {"network": open_network().name, "feature_error": one, "feature_flicker": other}
        for one, other in pairs
    ]


def check(cfg: RunConfig, session: Session) -> None:
    """Seeds in a list, a model whose latents are no pixels. Raises ConfigError."""
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is no number; allowed: one number, of the first picture")
    for one in {repr(run.model): run for grid in cfg.measure.each() for run in expand(cfg, grid)}.values():
        model: Model = check_model(one)
        if not model.facts["pixel_space"] or model.shape.in_channels != 3 * model.facts.get(
            "frame_factor", 1
        ):
            raise ConfigError(
                "model", f"{one.model.name} has latents that are no pixels; allowed: one in pixel space"
            )


def same_serial(cell: Cell) -> Hashable:
    """Cells that are compared with the same pictures."""
    return repr(serial_reference(cell.cfg))


def table(record: Record) -> pd.DataFrame:
    """A setting a row."""
    return means(record.rows)


DISTANCE = Study(
    "distance",
    measure,
    (
        *("model", "method", "patch_axis", "devices", "patches", "warmup", "steps"),
        *("relative_error", "pixel_error", "psnr_db", "flicker"),
        *("feature_error", "feature_flicker", "status"),
    ),
    "How far from serial",
    "Means over pictures. Pixel error and flicker: root mean squares of the error of pixels, and of its change from "
    "one picture of a clip to the next, with pixels in 0..1. Feature error and feature flicker: the same of what the "
    "network EfficientNet-Lite0 sees in the pictures, over the root mean square of what it sees in serial's.",
    grid=runs,
    group=same_serial,
    shown=table,
    check=check,
)
