"""The committed tables and figures as a W&B run and artifact: ``python -m analysis wandb``.

Offline, nothing leaves this machine: the run lies in a folder that ``wandb sync`` sends when it is wanted.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from analysis.check import FOLDERS


def publish(results: Path, project: str, mode: str = "offline") -> Path:
    """One run of type `report`: each csv a table, each PNG an image, and all files as the artifact `report`.

    The run lies in results/runs/wandb. Returns its directory, which holds copies of all files: what is synced later is
    what was there now.
    Raises ValueError when there is nothing to publish.
    """
    files = sorted(path for name in FOLDERS for path in (results / name).glob("*") if path.is_file())
    if not files:
        raise ValueError(f"wandb: no table or figure in {results}; python -m analysis makes them")
    import wandb  # takes a second, and nothing else here needs it

    folder = results / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=project,
        job_type="report",
        name="report",
        mode=mode,  # type: ignore[arg-type]
        dir=folder,
        settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
    )
    try:
        logged = {
            f"tables/{path.stem}": wandb.Table(dataframe=_read(path)) for path in _with_suffix(files, ".csv")
        }
        logged |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in _with_suffix(files, ".png")}
        run.log(logged)
        where = Path(run.dir).resolve().parent
        artifact = wandb.Artifact("report", type="report")
        for path in files:
            copy = where / "report" / path.relative_to(results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            # "immutable": from this very copy, with none more in a folder of the user's home.
            artifact.add_file(str(copy), name=path.relative_to(results).as_posix(), policy="immutable")
        run.log_artifact(artifact)
    finally:
        run.finish()
    print(f"{len(files)} files in {where}")
    if mode == "offline":
        print(f"wandb sync {where}")
    return where


def _with_suffix(files: list[Path], suffix: str) -> list[Path]:
    return [path for path in files if path.suffix == suffix]


def _read(csv: Path) -> pd.DataFrame:
    """A table as text: what a cell is written as is what is shown, and W&B takes no column of two kinds."""
    return pd.read_csv(csv, dtype=str, keep_default_na=False)
