"""`measure=loading`: the memory that each rank takes to load its part of a checkpoint, by method.

The checkpoint is a real one (`model.weights`), or random tensors of the model's architecture in diffusers' sharded
layout, written here. Each rank is a process of its own, one after the other: it builds its part on `meta`, then loads
it. What counts is how far its resident memory rises meanwhile, over the bytes of the parameters that it keeps.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
from rich.progress import track
from torch import Tensor

from experiments.check import CHOICES, check_model
from experiments.config import ModelConfig, RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_folder, check_known, first_line
from experiments.methods import METHODS
from experiments.models import Model, open_model
from experiments.records import write_csv, write_json
from experiments.report import layers_text
from experiments.resident import disk_bytes, drop_cache, forget_peak, resident_bytes
from experiments.synthetic import identity, mib, write_checkpoint, written
from experiments.weights import check_weights, read_tensors
from pipefusion.core.domain import Devices, Domain, Grid
from pipefusion.core.silent import SilentFabric
from pipefusion.core.weights import DTYPES

CPU = torch.device("cpu")
NOTE = (
    "Each rank is a process of its own, one after the other, with nothing of the files in the page cache where the "
    "system lets it be dropped. Peak: the most that resident memory rises above where it was before loading. Shard: "
    "the parameters that the rank keeps. Asked: bytes of tensors asked of the files. From disk: as the kernel counts "
    "them, with what it reads ahead, and with whole rows where a rank keeps columns of a matrix."
)


@dataclass
class LoadingConfig:
    """`folder`: where the random checkpoint is kept, and taken from if it is there; null: it is removed at the end."""

    name: str = "loading"
    methods: Grid[str] = field(default_factory=lambda: [*METHODS])
    devices: Grid[Devices] = field(default_factory=lambda: [4])
    folder: str | None = None
    stored: str = "float32"  # what the random checkpoint is written in; it is loaded as model.dtype
    file_bytes: Annotated[int, Domain(1, 1 << 40)] = 256 << 20  # of one of its files, about
    limit: Annotated[float, Domain(0, 1000, above=True)] = 1.15  # peak over shard


def check_loading(cfg: RunConfig) -> None:
    """Names and numbers that measure nothing, a model that is none, a full disk. Raises ConfigError."""
    options: LoadingConfig = cfg.measure
    check_known(cfg, {"measure.methods": METHODS, "measure.stored": CHOICES["model.dtype"]})
    model = check_model(cfg)
    folder = kept_in(options)
    if folder is None or cfg.model.weights is not None:
        return
    if not written(folder):
        check_folder(folder, (), "measure.folder")
        return
    check_weights(folder)
    there = open_model(replace(cfg.model, weights=str(folder), architecture=None))
    if identity(there) != identity(model):
        text = f"{folder} has weights of another architecture; allowed: these, or a folder without any"
        raise ConfigError("measure.folder", text)


def loading(cfg: RunConfig, out: Path) -> str:
    """Measure every rank of every method into `loading.json` and `loading.csv` in `out`; the run's status."""
    import pandas as pd

    options: LoadingConfig = cfg.measure
    out.mkdir(parents=True, exist_ok=True)
    try:
        with checkpoint(cfg, out) as folder:
            facts = facts_of(folder)
            content = as_dict(cfg)
            content["model"] |= {"weights": str(folder), "architecture": None}
            jobs = list(ranks_of(cfg, open_model(ModelConfig(**content["model"]))))
            rows = [
                job if job["status"] == "skipped" else job | measured(content, job)
                for job in track(jobs, "ranks", transient=True, disable=not sys.stderr.isatty())
            ]
    except OSError as error:  # no room for the checkpoint
        print(f"failed: {first_line(error)}", file=sys.stderr)
        return "failed"
    record = {"note": NOTE, "checkpoint": facts, "rows": rows, "limit": options.limit}
    write_csv(out / "loading.csv", pd.DataFrame(rows).convert_dtypes())
    write_json(out / "loading.json", record | provenance() | {"config": as_dict(cfg)})
    show(rows, facts, out)
    wrong = [row for row in rows if row["status"] == "failed"]
    for row in wrong:
        print(
            f"failed: {row['method']} N={row['devices']} rank {row['rank']}: {row['reason']}", file=sys.stderr
        )
    return "failed" if wrong else "ok"


def ranks_of(cfg: RunConfig, model: Model) -> Iterator[dict[str, Any]]:
    """The beginning of each row: one a rank, or one that says why there are none. Serial has one device."""
    for method in cfg.measure.methods:
        module = METHODS[method]
        for devices in [1] if method == "serial" else cfg.measure.devices:
            row = {"method": method, "devices": devices, "rank": None, "status": "ok", "reason": None}
            problem = module.problem(model.shape, devices, cfg.steps, module.Config())
            if problem:
                yield row | {"status": "skipped", "reason": f"{problem.key}={problem.message}"}
            else:
                yield from (row | {"rank": rank} for rank in range(devices))


def kept_in(options: LoadingConfig) -> Path | None:
    """The folder of the random checkpoint, if it is to stay."""
    return None if options.folder is None else Path(options.folder).expanduser()


@contextmanager
def checkpoint(cfg: RunConfig, out: Path) -> Iterator[Path]:
    """The folder of the weights to load: given, written earlier, or written now."""
    options: LoadingConfig = cfg.measure
    if cfg.model.weights is not None:
        yield check_weights(cfg.model.weights)
        return
    with ExitStack() as stack:
        folder = kept_in(options)
        if folder is None:  # beside the record, because /tmp may be in memory
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="checkpoint-", dir=out)))
        if not written(folder):
            dtype = getattr(torch, options.stored)
            write_checkpoint(folder, open_model(cfg.model), dtype, options.file_bytes, cfg.model.seed)
        yield folder


def facts_of(folder: Path) -> dict[str, Any]:
    """What is loaded: number and bytes of its files and tensors."""
    tensors = read_tensors(folder / "transformer").values()
    sizes = [prod(tensor.shape) * DTYPES[tensor.dtype].itemsize for tensor in tensors]
    return {
        "files": len({tensor.file for tensor in tensors}),
        "tensors": len(sizes),
        "bytes": sum(sizes),
        "largest_tensor_bytes": max(sizes),
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
    }


def measured(cfg: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """What the row of one rank says, from a new process; with status `failed` if that ended, or took too much."""
    drop_cache(Path(cfg["model"]["weights"]))
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            row = pool.submit(load_rank, cfg, job["method"], job["devices"], job["rank"]).result()
    except Exception as error:  # the rank's own, or that its process is gone
        return {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    limit = cfg["measure"]["limit"]
    if row["ratio"] > limit:
        reason = (
            f"a peak of {mib(row['peak_bytes'])} MiB is {row['ratio']:.3f} of {mib(row['param_bytes'])} MiB"
        )
        row |= {"status": "failed", "reason": f"{reason}; allowed: {limit}"}
    return row


def load_rank(cfg: dict[str, Any], method: str, devices: int, rank: int) -> dict[str, Any]:
    """Build a rank's part of the model on `meta`, load it, and say what that took."""
    torch.set_num_threads(cfg["threads"])
    model = open_model(ModelConfig(**cfg["model"]))
    module = METHODS[method]
    method_cfg = module.Config()
    fabric = SilentFabric(module.parallel(devices).mesh(), rank, torch.device("meta"))
    dit = model.view()
    module.build(dit, fabric, method_cfg)
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
        "layers": layers_text(dit.layers),
        "param_bytes": params,
        "buffer_bytes": sum(buffer.nbytes for buffer in dit.model.buffers()),
        "before_bytes": before,
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


def show(rows: list[dict[str, Any]], facts: dict[str, Any], out: Path) -> None:
    """The table: one line a rank."""
    # Here and not above: the configuration is imported by every command, matplotlib by those that need it.
    import pandas as pd

    from analysis.terminal import make_console, rich_table
    from experiments.cli import display

    columns = {
        "shard MiB": "param_bytes",
        "peak MiB": "peak_bytes",
        "asked MiB": "asked_bytes",
        "from disk MiB": "disk_bytes",
    }
    lines = []
    for row in rows:
        rank = "" if row["rank"] is None else str(row["rank"])
        line = {"method": row["method"], "N": str(row["devices"]), "rank": rank}
        line["layers"] = row.get("layers", "")
        line |= {title: mib(row.get(key)) for title, key in columns.items()}
        line["peak / shard"] = f"{row['ratio']:.3f}" if "ratio" in row else ""
        line["s"] = f"{row['seconds']:.2f}" if "seconds" in row else ""
        line["status"] = f"skipped: {row['reason']}" if row["status"] == "skipped" else row["status"]
        lines.append(line)
    console = make_console()
    title = f"Loading {mib(facts['bytes'])} MiB in {facts['tensors']} tensors, {facts['files']} files"
    console.print(rich_table(pd.DataFrame(lines), title))
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        console.print(
            f"The most memory any rank took: {max(ratios):.3f} of its shard", style="bold", highlight=False
        )
    console.print(f"[dim]{NOTE}[/dim]", highlight=False)
    for name in ("loading.csv", "loading.json"):
        console.print(display(out / name), highlight=False, soft_wrap=True)
