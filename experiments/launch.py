"""One run from configuration to record: inputs, ranks, merged files, run.json."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from analysis.record import SCHEMA
from experiments import contents, directory, pictures, records
from experiments.agent import GRACE_S, Entry, RunFailed, lost_peer, prepare, start_ranks, status_of
from experiments.config import RunConfig, as_dict, prompts_of
from experiments.environment import hardware, provenance
from experiments.progress import live
from pipefusion.core.parallel import Parallel, degrees

if TYPE_CHECKING:
    from experiments.models import Model

LATENCY = "latency"
"""The measure whose directories these are."""
DEFAULT_GUIDANCE = 4.5
"""What diffusers' PixArt pipelines use, for models that ship with no value of their own."""


def resolved(cfg: RunConfig, model: Model) -> RunConfig:
    """The configuration with what the model decides filled in: size and guidance scale."""
    shipped = model.facts.get("guidance_scale", DEFAULT_GUIDANCE)
    scale = float(shipped if cfg.guidance_scale is None else cfg.guidance_scale)
    height, width = (None, None) if model.resolution else (model.height, model.width)
    model_cfg = replace(cfg.model, resolution=model.resolution, height=height, width=width)
    return replace(cfg, guidance_scale=scale, model=model_cfg)


def complete(cfg: RunConfig, model: Model) -> RunConfig:
    """The configuration of one run as it is recorded: `resolved`, and all degrees.

    Degrees that `devices` cannot hold stay as they were given: `check_method` says why, and a sweep records it.
    """
    from experiments.methods import METHODS

    found = degrees(METHODS[cfg.method.name].axis, cfg.parallel, cfg.devices)
    parallel = found if isinstance(found, Parallel) else cfg.parallel
    return replace(resolved(cfg, model), parallel=parallel)


def execute(cfg: RunConfig, run_dir: Path, entry: Entry | None = None) -> dict[str, Any]:
    """Run one configuration and return the content of its run.json, whose `status` says how it ended.

    The record exists from the start (`running`) and is complete in every case. `entry` is what each rank runs,
    `experiments.rank.run_rank` unless given. Under torchrun this process is itself a rank, and rank 0 writes.
    """
    from experiments.models import open_model

    started = time.time()
    model = open_model(cfg.model)
    cfg = complete(cfg, model)
    config = as_dict(cfg)
    if "RANK" in os.environ:
        return execute_as_rank(cfg, config, model, run_dir, entry, started)
    if cfg.cluster.world == "local":
        prepare()
    record = facts_of(cfg, config, model)
    directory.clear(run_dir, LATENCY, records.FILES)
    try:
        begin(record, config, run_dir)
        write_inputs(cfg, model, run_dir)
        with live(run_dir, cfg.method.name) if cfg.log.progress else nullcontext():
            run_world(cfg, config, model, run_dir, entry)
        record |= collect(cfg, model, run_dir, started)
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "reason": "ended by SIGINT"}
    except RunFailed as failure:
        record |= {"status": failure.status, "reason": failure.reason}
    except Exception as error:
        # Not raised again: the next run of a sweep goes on, and the record says what happened.
        text = f"{type(error).__name__}: {error}"
        record |= {"status": status_of(text), "reason": text.splitlines()[0]}
        with suppress(OSError):  # the directory is gone, say, or the disk full: that is the reason
            (run_dir / "logs").mkdir(exist_ok=True)
            records.write_text(run_dir / "logs" / "run.txt", traceback.format_exc())
    finally:
        end(record, run_dir, started)
    return record


def run_world(
    cfg: RunConfig, config: dict[str, Any], model: Model, run_dir: Path, entry: Entry | None
) -> None:
    """All ranks of the run, in the world that the cluster names."""
    if cfg.cluster.world == "sim":
        from experiments.simulate import simulate

        simulate(cfg, model, run_dir)
    elif cfg.cluster.world == "plan":
        from experiments.plan import write_plan

        write_plan(cfg, run_dir)
    else:
        if model.folder is not None:  # a hub id is looked up once, not by every rank
            config = config | {"model": config["model"] | {"weights": str(model.folder)}}
        start_ranks(entry or rank_entry(), run_dir, config, cfg.parallel.mesh())


def execute_as_rank(
    cfg: RunConfig, config: dict[str, Any], model: Model, run_dir: Path, entry: Entry | None, started: float
) -> dict[str, Any]:
    """`execute` in a process that torchrun started. Rank 0 writes the inputs before it joins the process group.

    The first rank that fails writes why, before torchrun ends the others.
    """
    rank = int(os.environ["RANK"])
    record = facts_of(cfg, config, model) if rank == 0 else {"status": "running"}
    if rank == 0:
        directory.clear(run_dir, LATENCY, records.FILES)
    try:
        if rank == 0:
            begin(record, config, run_dir)
            write_inputs(cfg, model, run_dir)
        (entry or rank_entry())(str(run_dir), config)
        record |= collect(cfg, model, run_dir, started) if rank == 0 else {"status": "ok"}
    except (Exception, KeyboardInterrupt) as error:
        traceback.print_exc()  # torchrun keeps the outputs of its ranks apart
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else status_of(text)
        record |= {"status": status, "reason": f"{cfg.parallel.mesh().name(rank)}: {text}"}
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


def skip(cfg: RunConfig, run_dir: Path, reason: str) -> dict[str, Any]:
    """Record a combination of a sweep that its method cannot do."""
    from experiments.models import open_model

    model = open_model(cfg.model)
    cfg = complete(cfg, model)
    config, started = as_dict(cfg), time.time()
    record = facts_of(cfg, config, model)
    directory.clear(run_dir, LATENCY, records.FILES)
    begin(record, config, run_dir)
    record |= {"status": "skipped", "reason": reason}
    end(record, run_dir, started)
    return record


def rank_entry() -> Entry:
    """What each rank runs."""
    from experiments.rank import run_rank

    return run_rank


def write_inputs(cfg: RunConfig, model: Model, run_dir: Path) -> None:
    """inputs.safetensors of a run."""
    from experiments import inputs  # torch, which the command needs only once everything is checked

    inputs.write_inputs(run_dir / "inputs.safetensors", inputs.make_inputs(cfg, model))


def facts_of(cfg: RunConfig, config: dict[str, Any], model: Model) -> dict[str, Any]:
    """What is known of a run before it has begun: the record that says `running`."""
    return {
        "schema": SCHEMA,
        "key": contents.key_of(cfg, model),
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
        "threads": cfg.threads,
        "dtype": cfg.model.dtype,
        "prompts": prompts_of(cfg),
        "method_config": config["method"],
        **model_facts(cfg, model),
    }


def begin(record: dict[str, Any], config: dict[str, Any], run_dir: Path) -> None:
    """Write a run.json that says `running`, and config.yaml. Raises OSError."""
    records.write_json(run_dir / "run.json", record)
    directory.claim(run_dir, LATENCY, records.FILES)
    records.write_text(run_dir / "config.yaml", OmegaConf.to_yaml(config))


def model_facts(cfg: RunConfig, model: Model) -> dict[str, Any]:
    """The scheduler as diffusers' `from_config` takes it, and the weights by path and content."""
    from experiments.models import choose_scheduler, timesteps_of
    from pipefusion.core.problem import Problem

    chosen = choose_scheduler(model, cfg.scheduler)
    assert not isinstance(chosen, Problem), chosen
    folder = model.folder
    return {
        "scheduler": {
            "class": chosen[0],
            "config": chosen[1],
            "set_timesteps": timesteps_of(model, chosen, cfg.steps),
        },
        "transformer": model.class_name,
        "guidance": model.shape.guidance,
        "weights": None if folder is None else str(folder),
        "weights_sha256": contents.weights_sha256(folder),
    }


def collect(cfg: RunConfig, model: Model, run_dir: Path, started: float) -> dict[str, Any]:
    """Merge what the ranks wrote; the part of the record that only they could know."""
    reports = records.merge_ranks(run_dir, cfg.devices)
    first = reports[0]
    if cfg.measure.images:
        pictures.write_images(run_dir, cfg, model)
    latency = records.latency([repeat["latency_s"] for repeat in first["repeats"]])
    accelerators = [report["accelerator"] for report in reports if report.get("accelerator")]
    return {
        "status": "ok",
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
