"""A recorded run of a displaced method once more, by the reference: loops in one process instead of the method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from analysis.records.rows import read_config
from experiments.config import ModelConfig
from experiments.conformance import rounds
from experiments.conformance.loops import denoise
from experiments.conformance.request import NONE, Deviation, Request
from experiments.methods import METHODS
from experiments.models.inputs import read_inputs
from experiments.models.model import open_model
from pipefusion.core import closed_forms as forms
from pipefusion.core.parallel import Parallel
from pipefusion.core.split import split_rows
from pipefusion.method import patches_in
from pipefusion.schedulers import make_scheduler

CPU = torch.device("cpu")


def rerun(run_dir: Path) -> Tensor:
    """The latents [B, C, H, W] float32 that a run directory should have. For methods whose row says what is stale."""
    record = json.loads((run_dir / "run.json").read_text())
    config = read_config(run_dir)
    method = METHODS[record["method"]]
    parallel = method.parallel(record["devices"], Parallel(**config["parallel"]))
    assert method.stale is not None
    cfg = method.Config(**record["method_config"])
    model = open_model(replace(ModelConfig(**config["model"]), weights=record["weights"]))
    view, shape = model.view(), model.shape.cut(cfg.patch_axis)
    view.cut(shape.patch_axis)
    view.load(model.tensors(), CPU)
    noise, cond = read_inputs(run_dir / "inputs.safetensors", record["guidance_scale"], CPU)
    entry = record["scheduler"]
    scheduler = make_scheduler(entry["class"], entry["config"], entry.get("set_timesteps", record["steps"]))
    lanes = parallel.lanes
    patches = patches_in(shape, parallel.pipe, lanes, cfg) if method.has("patches") else parallel.patch
    bands, synced = split_rows(shape.lines, patches, lanes), getattr(cfg, "sync_layers", ())
    if method.stale == "rebuilt":  # of ring ranks, in layers that wait for all
        bands, synced = split_rows(shape.lines, parallel.ring), range(shape.layers)
    compress = getattr(cfg, "compress", "none")
    between = method.axis == "pipe"  # what is compressed goes from stage to stage, and is no K, V
    request = Request(
        noise,
        cond,
        scheduler,
        bands,
        forms.stages(shape, parallel.pipe, getattr(cfg, "split", "even")),
        cfg.whole_steps if method.stale == "rebuilt" else cfg.warmup,
        getattr(cfg, "text", "exact"),
        [method.attends(shape, parallel, cfg, rows) for rows in bands],
        synced,
        compress="none" if between else compress,
        sent=compress if between else "none",
        lanes=lanes,
        ulysses=parallel.ulysses,
        differences=getattr(cfg, "differences", None),
        stride=getattr(cfg, "stride", None),
        time_shift=getattr(cfg, "time_shift", False),
    )
    if method.stale == "noise":
        return rounds.denoise(view, request, parallel.step)
    how = NONE if method.stale == "input" else Deviation(kv=method.stale)
    return denoise(view, request, how)[-1]
