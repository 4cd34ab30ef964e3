"""How far a run's latents and pictures are from those of the serial run of the same task.

Both measures are means over pictures of what each one has, as in `experiments/quality/paired.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imread
from safetensors.numpy import load_file

from analysis.runs.frame import SAME_TASK


def latents(run_dir: str | Path) -> np.ndarray | None:
    """Latents after the last step, [B, C, H, W] float32, or None when the run wrote none."""
    path = Path(run_dir) / "latents.safetensors"
    return load_file(path)["latents"] if path.exists() else None


def pictures(run_dir: str | Path) -> list[np.ndarray]:
    """The pictures in order of prompt, each [H, W, 3] in 0..1."""
    paths = (Path(run_dir) / "images").glob("*.png")
    return [imread(path)[..., :3] for path in sorted(paths, key=lambda path: (len(path.stem), path.stem))]


def relative_error(ours: np.ndarray | None, reference: np.ndarray | None) -> float:
    """Norm of the difference over the norm of the reference, of latents [B, ...] the mean over pictures; no unit."""
    if ours is None or reference is None:
        return float("nan")
    pairs = zip(ours.astype(np.float64), reference.astype(np.float64), strict=True)
    # Sums of numpy's own are the same on every CPU; those of a BLAS are not in the last digit.
    return float(np.mean([math.sqrt(np.sum((one - other) ** 2) / np.sum(other**2)) for one, other in pairs]))


def psnr(ours: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Mean over pictures of each one's peak signal-to-noise ratio in dB; infinite when one of them is the same."""
    if not ours or len(ours) != len(reference):
        return float("nan")
    errors = [
        float(np.mean((one.astype(np.float64) - other) ** 2))
        for one, other in zip(ours, reference, strict=True)
    ]
    return float(np.mean([-10.0 * math.log10(error) if error else math.inf for error in errors]))


def to_serial(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with ``latency_ratio`` (over serial), ``relative_error``, ``psnr_db`` and ``serial_path``."""
    rows = []
    for _, run in runs.iterrows():
        serial = find_serial(run, runs)
        row = {"serial_path": None, "latency_ratio": np.nan, "relative_error": np.nan, "psnr_db": np.nan}
        if serial is not None and run.status == "ok":
            row = {
                "serial_path": serial.path,
                "latency_ratio": run.latency_s / serial.latency_s,
                "relative_error": relative_error(latents(run.path), latents(serial.path)),
                "psnr_db": psnr(pictures(run.path), pictures(serial.path)),
            }
        rows.append(row)
    return runs.join(pd.DataFrame(rows, index=runs.index))


def find_serial(run: pd.Series, runs: pd.DataFrame) -> pd.Series | None:
    """The finished serial run of the same task, or None."""
    for _, other in runs[(runs.method == "serial") & (runs.status == "ok")].iterrows():
        if all(other[key] == run[key] or (pd.isna(other[key]) and pd.isna(run[key])) for key in SAME_TASK):
            return other
    return None
