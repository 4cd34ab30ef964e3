"""`measure=loading`: the memory that each rank takes to load its part of a checkpoint, by method.

The checkpoint is a real one (`model.weights`), or random tensors of the model's architecture in diffusers' sharded
layout, written here. Each rank is a process of its own, one after the other: it builds its part on `meta`, then loads
it. What counts is how far its resident memory rises meanwhile, over the bytes of the parameters that it keeps.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from torch import Tensor

from analysis.presentation.columns import column, mib
from analysis.records.record import RECORD, load_record
from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import ConfigError, check_folder, check_known, first_line
from experiments.grid import GridConfig, expand
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import open_model
from experiments.models.weights import check_weights, read_tensors
from experiments.resident import disk_bytes, drop_cache, forget_peak, resident_bytes
from experiments.runs.check import CHOICES, check_model
from experiments.runs.report import layers_text
from experiments.session import Session
from experiments.study import Cell, Study
from experiments.synthetic import identity, write_checkpoint, written
from pipefusion.core.domain import Devices, Domain, Grid
from pipefusion.core.silent import SilentFabric
from pipefusion.core.weights import DTYPES
from pipefusion.sim.plan import META

CPU, FOLDER = torch.device("cpu"), "checkpoint"
NOTE = (
    "Each rank is a process of its own, one after the other, with nothing of the files in the page cache where the "
    "system lets it be dropped. Peak: the most that resident memory rises above where it was before loading. Shard: "
    "the parameters that the rank keeps. Asked: bytes of tensors asked of the files. From disk: as the kernel counts "
    "them, with what it reads ahead, and with whole rows where a rank keeps columns of a matrix."
)


@dataclass
class LoadingConfig(GridConfig):
    """`folder`: where the random checkpoint is kept, and taken from if it is there; null: it is removed at the end."""

    name: str = "loading"
    methods: Grid[str] = field(default_factory=lambda: [*METHODS])
    devices: Grid[Devices] = field(default_factory=lambda: [4])
    folder: str | None = None
    stored: str = "float32"  # what the random checkpoint is written in; it is loaded as model.dtype
    file_bytes: Annotated[int, Domain(1, 1 << 40)] = 256 << 20  # of one of its files, about
    limit: Annotated[float, Domain(0, 1000, above=True)] = 1.15  # peak over shard


def check_checkpoint(cfg: RunConfig, session: Session) -> None:
    """A checkpoint of another model, or a folder that is none. Raises ConfigError."""
    options: LoadingConfig = cfg.measure
    check_known(cfg, {"measure.stored": CHOICES["model.dtype"]})
    cfg = next(iter(expand(cfg, options)))  # all cells have its model
    model = check_model(cfg)
    if options.folder is None or cfg.model.weights is not None:
        return
    folder = Path(options.folder).expanduser()
    if not written(folder):
        check_folder(folder, (), "measure.folder")
        return
    check_weights(folder)
    there = open_model(replace(cfg.model, weights=str(folder), architecture=None))
    if identity(there) != identity(model):
        text = f"{folder} has weights of another architecture; allowed: these, or a folder without any"
        raise ConfigError("measure.folder", text)
    dtypes = {DTYPES[tensor.dtype] for tensor in read_tensors(folder / "transformer").values()}
    if dtypes != {getattr(torch, options.stored)}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        text = f"{options.stored} is not what {folder} has, which is {names}; allowed: that, or another measure.folder"
        raise ConfigError("measure.stored", text)


def checkpoint_folder(cfg: RunConfig, study: Path) -> Path:
    """Where the weights to load are, or will be: beside the record, because /tmp may be in memory."""
    if cfg.model.weights is not None:
        return check_weights(cfg.model.weights)
    return study / FOLDER if cfg.measure.folder is None else Path(cfg.measure.folder).expanduser()


def checkpoint(cfg: RunConfig, study: Path) -> Path:
    """The folder of the weights to load: given, written earlier, or written now. Raises OSError."""
    options, folder = cfg.measure, checkpoint_folder(cfg, study)
    if not written(folder):
        dtype = getattr(torch, options.stored)
        write_checkpoint(folder, open_model(cfg.model), dtype, options.file_bytes, cfg.model.seed)
    return folder


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row per rank, each loaded in a new process; `failed` if that ended, or took too much."""
    folder = checkpoint(cell.cfg, session.folder)
    stored = replace(cell.cfg.model, weights=str(folder), architecture=None)
    return [loaded(replace(cell.cfg, model=stored), rank) for rank in range(cell.cfg.devices)]


def loaded(cfg: RunConfig, rank: int) -> Row:
    """The row of one rank."""
    assert cfg.model.weights is not None
    drop_cache(Path(cfg.model.weights))
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(load_rank, cfg, rank).result()
    except Exception as error:  # the rank's own, or that its process is gone
        return {"rank": rank, "status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    if row["ratio"] > cfg.measure.limit:
        reason = (
            f"a peak of {mib(row['peak_bytes'])} MiB is {row['ratio']:.3f} of {mib(row['param_bytes'])} MiB"
        )
        row |= {"status": "failed", "reason": f"{reason}; allowed: {cfg.measure.limit}"}
    return row


def load_rank(cfg: RunConfig, rank: int) -> Row:
    """Build a rank's part of the model on `meta`, load it, and what that took."""
    torch.set_num_threads(cfg.threads)
    session = Session()
    model = session.model(cfg.model)
    dit, _ = session.build(cfg, SilentFabric(parallel_degrees(cfg).mesh(), rank, META))
    assert model.folder is not None
    tensors = Counted(model.tensors(), model.folder / "transformer")
    gc.collect()
    forget_peak()
    before, _ = resident_bytes()
    disk = disk_bytes()
    start = time.perf_counter()
    dit.load(tensors, CPU)
    seconds = time.perf_counter() - start
    _, peak = resident_bytes()
    read = disk_bytes()
    params = sum(parameter.nbytes for parameter in dit.model.parameters())
    return {
        "rank": rank,
        "layers": layers_text(dit.layers),
        "param_bytes": params,
        "buffer_bytes": sum(buffer.nbytes for buffer in dit.model.buffers()),
        "peak_bytes": peak - before,
        "ratio": (peak - before) / params,
        "asked_bytes": tensors.bytes,
        "disk_bytes": None if disk is None or read is None else read - disk,
        "seconds": seconds,
    }


class Counted:
    """Counts the bytes that are asked of the files."""

    def __init__(self, tensors: Callable[..., Tensor], part: Path):
        self._tensors = tensors
        self._itemsizes = {name: DTYPES[tensor.dtype].itemsize for name, tensor in read_tensors(part).items()}
        self.bytes = 0

    def __call__(self, name: str, *args: Any, **options: Any) -> Tensor:
        tensor = self._tensors(name, *args, **options)
        self.bytes += tensor.numel() * self._itemsizes[name]
        return tensor


def facts(cfg: RunConfig, rows: pd.DataFrame, session: Session) -> dict[str, Any]:
    """What was loaded: number and bytes of its files and tensors."""
    if not (rows.status == "ok").any():
        return {"checkpoint": None, "limit": cfg.measure.limit}
    folder = checkpoint_folder(next(iter(expand(cfg, cfg.measure))), session.folder)
    if not written(folder):  # all cells were done by an earlier run of the study, and it is gone since
        return {"checkpoint": load_record(session.folder / RECORD)["checkpoint"], "limit": cfg.measure.limit}
    tensors = read_tensors(folder / "transformer").values()
    sizes = [prod(tensor.shape) * DTYPES[tensor.dtype].itemsize for tensor in tensors]
    found = {
        "files": len({tensor.file for tensor in tensors}),
        "tensors": len(sizes),
        "bytes": sum(sizes),
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
    }
    return {"checkpoint": found, "limit": cfg.measure.limit}


def summary(record: Record) -> str:
    """The checkpoint, and the worst of all ranks."""
    what = record.facts["checkpoint"]
    if what is None:
        return "nothing was loaded"
    loaded = f"{mib(what['bytes'])} MiB in {what['tensors']} tensors, {what['files']} files"
    return f"{loaded}. The most memory any rank took: {record.rows.ratio.max():.3f} of its shard"


LOADING = Study(
    "loading",
    measure,
    (
        *("method", "devices", "rank", "layers", column("param_bytes", heading="shard"), "peak_bytes"),
        *("asked_bytes", "disk_bytes", column("ratio", heading="peak / shard"), "seconds", "status"),
    ),
    "Loading a checkpoint, rank by rank",
    NOTE,
    facts=facts,
    summary=summary,
    check=check_checkpoint,
    single=("models",),
    alone=True,
    scratch=(FOLDER,),
)
