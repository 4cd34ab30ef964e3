"""Copy finished runs among the records that are committed: ``python -m analysis keep FOLDER NAME``."""

from __future__ import annotations

import shutil
from pathlib import Path

from analysis.frame import run_dirs

KEPT = ["run.json", "config.yaml", "ranks.csv", "ranks_repeats.csv", "ledger.parquet", "timeline.parquet"]
KEPT += ["inputs.safetensors", "latents.safetensors", "images"]
WHOLE = ["bench.json", "params.json", "predictions.json", "scaling.json", "perturb.json", "worlds.json"]
WHOLE += ["text_variants.json", "loading.json", "measured.json", "accounting.json", "quality.json"]
WHOLE += ["staleness.json", "gpu_check.json"]
"""A record of many runs at once; the folder that holds one is the run."""
KEPT += [*WHOLE, "accounting.csv", "loading.csv", "params.csv", "paired.parquet", "grid.json"]
KEPT += ["gpu_check.md", "freshness.csv", "redundancy.csv", "error.csv", "steps.csv", "map.csv"]


def keep(source: str | Path, target: str | Path) -> list[Path]:
    """Replace ``target`` by the runs below ``source``, less logs and half-written files. Returns the copies.

    Raises FileNotFoundError when there is no run to keep, before anything is removed.
    """
    source, target = Path(source), Path(target)
    found = [source] if any((source / name).exists() for name in WHOLE) else list(run_dirs(source))
    if not found:
        raise FileNotFoundError(f"no run.json in or below {source}")
    shutil.rmtree(target, ignore_errors=True)
    copies = []
    for run in found:
        copy = target / run.relative_to(source)
        copy.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (run / name).is_dir():
                shutil.copytree(run / name, copy / name, dirs_exist_ok=True)
            elif (run / name).exists():
                shutil.copyfile(run / name, copy / name)
        copies.append(copy)
    return copies
