"""Where a finished run is told of besides its directory. A sink that fails costs one line of warning, never the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from experiments.config import RunConfig, as_dict


def log(cfg: RunConfig, run_dir: Path, record: dict[str, Any]) -> None:
    """Send the run to every sink that is on."""
    if cfg.log.wandb.mode == "disabled":
        return
    try:
        to_wandb(cfg, run_dir, record)
    except Exception as error:  # whatever a service does, the run is done and recorded
        print(f"warning: wandb: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)


def to_wandb(cfg: RunConfig, run_dir: Path, record: dict[str, Any]) -> None:
    """One W&B run: configuration, scalars of the record, the ranks as a table, the images."""
    import pandas as pd
    import wandb

    options = cfg.log.wandb
    run = wandb.init(
        project=options.project,
        entity=options.entity,
        mode=options.mode,  # type: ignore[arg-type]
        tags=options.tags,
        name=f"{cfg.model.name}-{cfg.method.name}-{cfg.devices}",
        config=as_dict(cfg),
        dir=run_dir,
        settings=wandb.Settings(console="off", silent=True),
    )
    try:
        run.summary.update({key: record.get(key) for key in ("status", "reason", "startup_s", "total_s")})
        if record["status"] == "ok":
            label = "predicted_latency_s" if record.get("predicted") else "latency_s"
            run.summary.update({label: record["latency_s"]["median"]})
            run.log({"ranks": wandb.Table(dataframe=pd.read_csv(run_dir / "ranks.csv"))})
            images = [wandb.Image(str(path)) for path in sorted((run_dir / "images").glob("*.png"))]
            if images:
                run.log({"images": images})
    finally:
        run.finish()
