"""Run directories made up from the documented contract, so that the analysis is tested without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave
from safetensors.numpy import save_file

from analysis.presentation.columns import typed

LAYERS, HIDDEN_BYTES = 12, 196_608
BLOCK, REST = 1_800_000, 2_400_000
PROMPTS = ["a red apple", "grinning face"]


def write_run(
    folder: Path,
    method: str,
    *,
    devices: int = 4,
    status: str = "ok",
    reason: str | None = None,
    noise: float = 0.0,
) -> Path:
    """One run directory: a ramp as picture, ``noise`` away from the serial one, an even split for pipelines."""
    run = folder / method
    run.mkdir(parents=True)
    record: dict[str, Any] = {
        "schema": 1,
        "status": status,
        "reason": reason,
        "created": "2026-01-01T00:00:00+00:00",
        "world": "local",
        "model": "emoji64",
        "method": method,
        "devices": devices,
        "seed": 0,
        "steps": 20,
        "guidance_scale": 3.0,
        "resolution": 64,
        "dtype": "float32",
        "prompts": PROMPTS,
        "scheduler": {"class": "DPMSolverMultistepScheduler", "config": {}},
        "hardware": {"cpu": "a cpu", "cores": 2, "gpu": None},
        "method_config": {"name": method, "patches": 4, "warmup": 1}
        if method == "pipefusion"
        else {"name": method},
        "threads": 1,
    }
    if status == "ok":
        record["latency_s"] = {
            "repeats": [2.0, 2.2, 2.1],
            "median": 2.1 if method != "serial" else 4.2,
            "spread": 0.2,
        }
        _write_ranks(run, method, devices)
        _write_pictures(run, noise)
    (run / "run.json").write_text(json.dumps(record))
    (run / ".progress.json").write_text("{}")
    return run


def _write_ranks(run: Path, method: str, devices: int) -> None:
    staged = method in ("pipefusion", "sync_pipeline")
    count = LAYERS // devices if staged else LAYERS
    rows = []
    for rank in range(devices):
        first = rank * count if staged else 0
        share = devices if method == "tensor" else 1
        rows.append(
            {
                "rank": rank,
                "layers": f"{first}-{first + count - 1}" if count > 1 else str(first),
                "layer_count": count,
                "param_bytes": count * BLOCK // share + REST,
                "replicated_param_bytes": REST,
                "block_param_bytes": count * BLOCK // share,
                "kv_bytes": 2 * HIDDEN_BYTES * count if method in ("pipefusion", "distrifusion") else 0,
                "buffer_bytes": 49_152,
                "comm_bytes": 100_000,
                "peak_bytes": count * BLOCK + REST + 2_000_000,
                "sent_bytes": 20 * HIDDEN_BYTES if devices > 1 else 0,
                "recv_bytes": 20 * HIDDEN_BYTES if devices > 1 else 0,
                "compute_s": 1.5,
                "wait_s": 0.5,
                "idle_s": 0.1,
                "latency_s": 2.1,
                "host": "a-host",
                "pid": 1000 + rank,
            }
        )
    pd.DataFrame(rows).to_csv(run / "ranks.csv", index=False)
    entry = {
        "rank": 0,
        "step": 0,
        "layer": 0,
        "patch": 0,
        "op": "isend",
        "bytes": 1,
        "start_s": 0.0,
        "wait_s": 0.0,
    }
    pd.DataFrame([entry]).to_parquet(run / "ledger.parquet", index=False)


def _write_pictures(run: Path, noise: float) -> None:
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))
    ramp = np.stack([across, down, np.zeros((64, 64))])
    latents = np.stack([ramp, -ramp]).astype(np.float32)
    latents += noise * rng.standard_normal(latents.shape, dtype=np.float32)
    save_file({"latents": latents}, run / "latents.safetensors")
    (run / "images").mkdir()
    for at, picture in enumerate(np.clip(latents / 2 + 0.5, 0, 1)):
        imsave(run / "images" / f"{at:02d}.png", picture.transpose(1, 2, 0))


def write_sweep(folder: Path) -> Path:
    """The methods there were at first, one of them skipped and one failed."""
    write_run(folder, "serial", devices=1)
    for method in ["sync_pipeline", "tensor", "ulysses"]:
        write_run(folder, method)
    reason = "devices=4: 4 does not divide the 18 token rows"
    write_run(folder, "ring", status="skipped", reason=reason)
    write_run(folder, "naive_patch", status="failed", reason="rank 2 was killed by SIGKILL")
    write_run(folder, "distrifusion", noise=0.05)
    write_run(folder, "pipefusion", noise=0.02)
    return folder


def write_study(folder: Path, record: dict[str, Any], study: str = "scaling") -> None:
    """A made-up record, its `rows` a list, as a study writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {key: value for key, value in record.items() if key != "rows"}
    (folder / "record.json").write_text(json.dumps(facts | {"study": study}))
    typed(pd.DataFrame(record["rows"])).to_parquet(folder / "rows.parquet")
