"""One run from configuration to record: inputs, ranks, merged files, run.json."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from omegaconf import OmegaConf

from analysis.records.record import SCHEMA
from experiments import pictures, records
from experiments.config import RunConfig, as_dict, read_prompts
from experiments.environment import hardware, provenance
from experiments.errors import RunFailed
from experiments.methods import METHODS, with_warmup
from experiments.models import contents
from experiments.models.inputs import make_inputs
from experiments.models.model import Model, open_model, resolved
from experiments.models.scheduler import choose_scheduler, choose_timesteps
from experiments.runs import directory
from experiments.runs.agent import GRACE_S, Entry, failure_status, lost_peer, prepare, start_ranks
from experiments.runs.plan import write_plan
from experiments.runs.progress import live
from experiments.runs.rank import run_rank
from experiments.runs.simulate import simulate
from experiments.sensitive import with_layers
from experiments.tensors import write_tensors
from pipefusion.core.parallel import degrees
from pipefusion.core.problem import Problem
from pipefusion.method import patches_in

LATENCY = "latency"
"""The measure whose directories these are."""


def complete(cfg: RunConfig, model: Model) -> RunConfig:
    """The configuration of one run as it is recorded: `resolved`, and all degrees, patches and synchronous layers.

    Degrees that `devices` cannot hold stay as they were given: `check_method` says why, and a sweep records it.
    """
    method, cfg = METHODS[cfg.method.name], with_layers(resolved(cfg, model))
    found = degrees(method.axis, cfg.parallel, cfg.devices)
    if isinstance(found, Problem):
        return cfg
    settings = cfg.method
    if method.has("patches"):
        shape = model.shape.cut(settings.patch_axis)
        settings = replace(settings, patches=patches_in(shape, found.pipe, found.lanes, settings))
    return replace(cfg, parallel=found, method=settings)


def execute(
    cfg: RunConfig, run_dir: Path, entry: Entry | None = None, problem: str | None = None
) -> dict[str, Any]:
    """Run one configuration and return the content of its run.json, whose `status` says how it ended.

    The record exists from the start (`running`) and is complete in every case. `entry` is what each rank runs,
    `run_rank` unless given; with a `problem` nothing is run, and the record says `skipped`. Under torchrun this process
    is itself a rank, and rank 0 writes.
    """
    started = time.time()
    model = open_model(cfg.model)
    cfg = complete(cfg, model)
    if "RANK" in os.environ:
        return execute_as_rank(cfg, model, run_dir, entry or run_rank, started)
    if cfg.cluster.world == "local" and problem is None:
        prepare()
    record = facts(cfg, model)
    directory.clear(run_dir, LATENCY, records.FILES)
    try:
        begin(record, cfg, run_dir)
        if problem is None:
            write_tensors(run_dir / "inputs.safetensors", make_inputs(cfg, model))
            with live(run_dir, cfg.method.name) if cfg.log.progress else nullcontext():
                run_world(cfg, model, run_dir, entry or run_rank)
            record |= collect(cfg, model, run_dir, started)
        else:
            record |= {"status": "skipped", "reason": problem}
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "reason": "ended by SIGINT"}
    except RunFailed as failure:
        record |= {"status": failure.status, "reason": failure.reason}
    except Exception as error:
        # Not raised again: the next run of a sweep goes on, and the record says what happened.
        record |= failed(error)
        with suppress(OSError):  # the directory is gone, say, or the disk full: that is the reason
            (run_dir / "logs").mkdir(exist_ok=True)
            records.write_text(run_dir / "logs" / "run.txt", traceback.format_exc())
    finally:
        end(record, run_dir, started)
    return record


def run_world(cfg: RunConfig, model: Model, run_dir: Path, entry: Entry) -> None:
    """All ranks of the run, in the world that the cluster names."""
    if cfg.cluster.world == "sim":
        simulate(cfg, model, run_dir)
    elif cfg.cluster.world == "plan":
        write_plan(cfg, run_dir)
    else:
        if model.folder is not None:  # a hub id is looked up once, not by every rank
            cfg = replace(cfg, model=replace(cfg.model, weights=str(model.folder)))
        start_ranks(entry, run_dir, cfg, cfg.parallel.mesh())


def execute_as_rank(
    cfg: RunConfig, model: Model, run_dir: Path, entry: Entry, started: float
) -> dict[str, Any]:
    """`execute` in a process that torchrun started. Rank 0 writes the inputs before it joins the process group.

    The first rank that fails writes why, before torchrun ends the others.
    """
    rank = int(os.environ["RANK"])
    record = facts(cfg, model) if rank == 0 else {"status": "running"}
    if rank == 0:
        directory.clear(run_dir, LATENCY, records.FILES)
    try:
        if rank == 0:
            begin(record, cfg, run_dir)
            write_tensors(run_dir / "inputs.safetensors", make_inputs(cfg, model))
        entry(str(run_dir), cfg)
        record |= collect(cfg, model, run_dir, started) if rank == 0 else {"status": "ok"}
    except (Exception, KeyboardInterrupt) as error:
        traceback.print_exc()  # torchrun keeps the outputs of its ranks apart
        record |= failed(error, f"{cfg.parallel.mesh().name(rank)}: ")
        if isinstance(error, Exception) and lost_peer(error):
            time.sleep(GRACE_S)
        known = records.read_json(run_dir / "run.json") or {}
        if known.get("status") in ("failed", "oom"):
            record |= {"status": known["status"], "reason": known["reason"]}
        elif rank > 0:
            records.write_json(run_dir / "run.json", known | record)
    finally:
        if rank == 0:
            end(record, run_dir, started)
    return record


def failed(error: BaseException, name: str = "") -> dict[str, str]:
    """Status and reason of a run that an exception ended."""
    text = f"{type(error).__name__}: {error}"
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else failure_status(text)
    return {"status": status, "reason": name + text.splitlines()[0]}


def facts(cfg: RunConfig, model: Model) -> dict[str, Any]:
    """What is known of a run before it has begun: the record that says `running`.

    The scheduler is there as diffusers' `from_config` takes it, the weights by path and content.
    """
    chosen = choose_scheduler(model, cfg.scheduler)
    assert not isinstance(chosen, Problem), chosen
    return {
        "schema": SCHEMA,
        "key": contents.run_key(cfg, model),
        "status": "running",
        "reason": None,
        **provenance(),
        "world": cfg.cluster.world,
        "cluster": cfg.cluster.name,
        "predicted": cfg.cluster.world == "plan",
        "model": cfg.model.name,
        "method": cfg.method.name,
        "devices": cfg.devices,
        "seed": cfg.seed,
        "steps": cfg.steps,
        "guidance_scale": cfg.guidance_scale,
        "resolution": model.resolution,  # of a square picture
        "height": model.height,
        "width": model.width,
        "frames": model.frames,  # of a video
        "threads": cfg.threads,
        "dtype": cfg.model.dtype,
        "prompts": read_prompts(cfg),
        "method_config": as_dict(cfg)["method"],
        "scheduler": {
            "class": chosen[0],
            "config": chosen[1],
            "set_timesteps": choose_timesteps(model, chosen, cfg.steps),
        },
        "transformer": model.class_name,
        "guidance": model.shape.guidance,
        **({"experts": asdict(model.shape.experts)} if model.shape.experts else {}),
        "weights": None if model.folder is None else str(model.folder),
        "weights_sha256": contents.weights_sha256(model.folder),
    }


def begin(record: dict[str, Any], cfg: RunConfig, run_dir: Path) -> None:
    """Write a run.json that says `running`, and config.yaml. Raises OSError."""
    records.write_json(run_dir / "run.json", record)
    directory.claim(run_dir, LATENCY, records.FILES)
    records.write_text(run_dir / "config.yaml", OmegaConf.to_yaml(as_dict(cfg)))


def collect(cfg: RunConfig, model: Model, run_dir: Path, started: float) -> dict[str, Any]:
    """Merge what the ranks wrote; the part of the record that only they could know."""
    reports = records.merge_ranks(run_dir, cfg.devices)
    if cfg.measure.images and not cfg.model.share_decoding:  # else the ranks have
        pictures.write_images(run_dir, cfg, model)
    latency = records.latency([repeat["latency_s"] for repeat in reports[0]["repeats"]])
    accelerators = [report["accelerator"] for report in reports if report.get("accelerator")]
    warmup = reports[0]["row"].get("found_warmup")
    computed = [report["row"].get("computed_steps") for report in reports]
    return {
        "status": "ok",
        "method_config": as_dict(replace(cfg, method=with_warmup(cfg.method, warmup)))["method"],
        "computed_steps": mean(computed) if None not in computed else None,
        "hardware": hardware(accelerators[0]["name"] if accelerators else None),
        "accelerators": accelerators,
        "latency_s": latency | ({"predicted": True} if cfg.cluster.world == "plan" else {}),
        "startup_s": max(report["ready_unix_s"] for report in reports) - started,
    }


def end(record: dict[str, Any], run_dir: Path, started: float) -> None:
    """Remove what only the merge needed and write the final run.json; where that fails, the reason says so too."""
    record["total_s"] = time.time() - started
    for path in records.rank_files(run_dir):
        path.unlink(missing_ok=True)
    try:
        records.write_last(run_dir / "run.json", record)
    except OSError as error:
        why = f"{record['reason']}; " if record["reason"] else ""
        status = "failed" if record["status"] in records.DONE else record["status"]
        record |= {"status": status, "reason": f"{why}run.json cannot be written ({error.strerror})"}
    with suppress(OSError):  # the manifest that stands there says that all of it is this run's
        directory.settle(run_dir, LATENCY, records.FILES)
