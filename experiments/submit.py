"""Submitit: the groups of a study's cells as jobs of a cluster's scheduler, or as processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import CONF, RunFailed, first_line
from experiments.pool import Bar

SHARED = (
    *("name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"),
    "stderr_to_stdout",
)
"""Keys of `hydra.launcher` that every scheduler has; submitit wants the others with its scheduler's name in front."""
MOST = 1000
"""Jobs of one array: SLURM takes 1001 by default."""


def submit_all(
    do: Callable[..., None], groups: Sequence[Sequence[Any]], settings: dict[str, Any], workers: int, folder: Path,
    bar: Bar,
) -> None:  # fmt: skip
    """`do(group)` for every group in jobs, waited for; `settings` are those of `hydra.launcher`, and its `scheduler`.

    As many jobs as groups, of which the scheduler runs `array_parallelism` at a time; on this machine `workers` jobs.
    What a job that ends badly leaves undone is left undone. Raises RunFailed where nothing can be submitted.
    """
    if not groups:
        return
    scheduler = settings["scheduler"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CONF.parent), os.environ.get("PYTHONPATH", "")])
    own = {key: value for key, value in settings.items() if key not in ("scheduler", *SHARED)}
    shares = dealt(groups, workers if scheduler == "local" else MOST)
    try:
        import submitit

        executor = submitit.AutoExecutor(folder / "%j", cluster=scheduler)
        executor.update_parameters(
            **{key: settings[key] for key in SHARED if key in settings},
            **{f"{scheduler}_{key}": value for key, value in own.items()},
        )
        jobs = executor.map_array(do, shares)
    except Exception as error:  # whatever a scheduler, or the lack of one, has to say
        raise RunFailed("failed", f"hydra/launcher: {type(error).__name__}: {first_line(error)}") from None
    with bar.polled():
        try:
            for job in jobs:
                try:
                    job.result()
                except Exception as error:
                    print(f"failed: job {job.job_id}: {first_line(error)}", file=sys.stderr, flush=True)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise


def dealt(groups: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """At most so many lists, the groups in turn, each whole."""
    return [
        [one for group in groups[start::count] for one in group] for start in range(min(count, len(groups)))
    ]
