"""Replay a run directory with plain diffusers: ``python -m experiments.replay RUN_DIR``.

Everything comes from the run's own files and its weights: the stock transformer, called as its own pipeline does
(`stock_calls.py`), the stock scheduler, guidance written out. Nothing of the methods or views is used. What the run
stored as latents must come out again, for the methods that claim to equal serial; for the displaced ones the distance
is printed and judged by nobody.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from analysis.record import load_run
from experiments.stock_calls import predict

EXACT = {"serial", "sync_pipeline", "tensor", "ulysses", "ring"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1, "float16": 2e-2}  # relative to the largest latent


def build_model(cfg: dict[str, Any], weights: str | None) -> torch.nn.Module:
    """The stock transformer: from the weights, or drawn again from the seed and architecture of the config."""
    dtype = getattr(torch, cfg["dtype"])
    if weights:
        folder = Path(weights)
        name = json.loads((folder / "transformer" / "config.json").read_text())["_class_name"]
        cls = getattr(diffusers, name)
        options = {"torch_dtype": dtype, "use_safetensors": True, "low_cpu_mem_usage": False}
        model = cls.from_pretrained(folder / "transformer", **options)
    else:
        architecture = dict(cfg["architecture"])
        cls = getattr(diffusers, architecture.pop("class"))
        taken = inspect.signature(
            cls.__init__
        ).parameters  # a config says more of a random model than its class
        architecture = {key: value for key, value in architecture.items() if key in taken}
        torch.manual_seed(cfg["seed"])
        model = cls(**architecture)
        model = model if dtype == torch.float32 else model.to(dtype)
    return model.eval()


@torch.inference_mode()
def replay(run_dir: str | Path) -> tuple[Tensor, Tensor]:
    """Latents as the stock model gives them and as the run stored them, both [B, C, H, W] float32."""
    run_dir = Path(run_dir)
    record = load_run(run_dir)
    cfg = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]
    inputs = load_file(run_dir / "inputs.safetensors")
    model = build_model(cfg, record.get("weights"))
    scheduler_class = getattr(diffusers, record["scheduler"]["class"])
    scheduler = scheduler_class.from_config(record["scheduler"]["config"])
    scheduler.set_timesteps(
        **record["scheduler"].get("set_timesteps", {"num_inference_steps": record["steps"]})
    )
    scale, latents = record["guidance_scale"], inputs.pop("noise").float()
    lead = "negative_"
    negative = {name.removeprefix(lead): inputs.pop(name) for name in [*inputs] if name.startswith(lead)}
    prompt = {
        name: torch.cat([negative[name], tensor]) if negative else tensor for name, tensor in inputs.items()
    }
    for timestep in scheduler.timesteps:
        whole = torch.cat([latents] * 2) if negative else latents
        prediction = predict(model, whole, timestep, prompt, scale, record["resolution"])
        if negative:
            against, towards = prediction.chunk(2)
            prediction = against + scale * (towards - against)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False)[0]
    return latents, load_file(run_dir / "latents.safetensors")["latents"]


def must_equal_serial(record: dict[str, Any]) -> bool:
    """Whether the run is exact: by its method, or because nothing was ever stale in it."""
    own = record.get("method_config") or {}
    return record["method"] in EXACT or own.get("warmup") == record["steps"] or own.get("patches") == 1


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the latents come out again (or need not), 1 when they do not, 2 when there is no such run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.replay", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("run_dir", type=Path)
    run_dir = parser.parse_args(arguments).run_dir
    missing = [name for name in ("run.json", "config.yaml") if not (run_dir / name).exists()]
    if missing:
        print(f"error: {run_dir} is no run directory: it has no {missing[0]}", file=sys.stderr)
        return 2
    try:
        record = load_run(run_dir)
    except (OSError, ValueError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    if record["status"] != "ok":
        print(f"error: nothing to replay: the run {record['status']}: {record['reason']}", file=sys.stderr)
        return 2
    ours, stored = replay(run_dir)
    error = float((ours - stored).abs().max() / ours.abs().max())
    exact, tolerance = must_equal_serial(record), TOLERANCE[record["dtype"]]
    verdict = (
        "displaced, so not expected to be 0" if not exact else "equal" if error <= tolerance else "DIFFERENT"
    )
    print(
        f"{record['method']}: largest difference / largest latent = {error:.2e} ({verdict}; tolerance {tolerance:g})"
    )
    return int(exact and error > tolerance)


if __name__ == "__main__":
    sys.exit(main())
