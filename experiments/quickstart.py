"""`python run.py experiment=quickstart`: every method on the shipped model, then what they held, sent and drew.

The runs are an ordinary Hydra sweep (conf/experiment/quickstart.yaml); this callback reports on it at the end,
from the run directories alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from analysis.presentation import style, tables
from analysis.presentation.columns import words
from analysis.presentation.terminal import make_console, rich_table
from analysis.runs import figures, sweep
from analysis.runs.answer import answer
from experiments.config import from_hydra
from experiments.models.model import open_model

NOTE = (
    "CPU timings rank nothing: ranks share the cores of one machine and talk through its memory. "
    "Bytes held and sent, and the distance to serial, are exact."
)


class Report(Callback):
    """Prints the tables of a sweep and writes them, with the pictures, to its directory (or to `folder`)."""

    def __init__(self, folder: str | None = None):
        self.folder = folder
        self.run_dirs: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        self.run_dirs.append(Path(job_return.hydra_cfg.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        done = [path for path in self.run_dirs if (path / "run.json").exists()]
        if done:
            report(done, Path(self.folder or config.hydra.sweep.dir), count_tokens(config), make_console())


def count_tokens(config: DictConfig) -> int:
    """Image tokens of the sweep's model."""
    return open_model(from_hydra(config).model).shape.tokens


def report(run_dirs: list[Path], folder: Path, tokens: int, console: Console) -> list[Path]:
    """Print and write everything about these runs; returns the paths written, which are printed last."""
    methods, devices = sweep.methods(*run_dirs), sweep.devices(*run_dirs)
    text = words(methods, sweep.METHODS_SHOWN)
    console.print(rich_table(text, "Every method: the fullest rank of each"))
    written = tables.table(methods, text).write(folder, "methods")
    if not devices.empty:
        piped = devices[devices.method == "pipefusion"]
        if not piped.empty:
            text = words(piped, sweep.DEVICES_SHOWN[1:])
            console.print(rich_table(text, "PipeFusion: what each device holds, sends and waits for"))
            console.print(answer(piped, tokens), style="bold", highlight=False)
        written += tables.table(devices, words(devices, sweep.DEVICES_SHOWN)).write(folder, "devices")
    for name, figure in [
        ("pictures", figures.picture_grid(*run_dirs)),
        ("memory", figures.memory_per_device(*run_dirs)),
    ]:
        written += style.save(figure, folder, name) if figure else []
    console.print(f"\n[dim]{NOTE}[/dim]\n")
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True)
    return written
