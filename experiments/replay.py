"""Replay a run directory: ``python -m experiments.replay RUN_DIR``. What it stored as latents must come out again.

A run that must equal serial is replayed with plain diffusers. Everything comes from the run's own files and its
weights: the stock transformer, called as its own pipeline does (`stock_calls.py`), the stock scheduler, guidance
written out; nothing of the methods or views. A run in which K, V were stale is replayed by the conformance kit's
reference (`conformance/reference.py`): loops over steps, patches and layers in one process, with the views' blocks and
nothing of the methods but their settings.
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
from experiments.difference import NotFinite, largest_difference
from experiments.stock_calls import predict

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
    size = tuple(record.get(side, record["resolution"]) for side in ("height", "width"))
    for timestep in scheduler.timesteps:
        whole = torch.cat([latents] * 2) if negative else latents
        prediction = predict(model, whole, timestep, prompt, scale, size)
        if negative:
            against, towards = prediction.chunk(2)
            prediction = against + scale * (towards - against)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False)[0]
    return latents, load_file(run_dir / "latents.safetensors")["latents"]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the latents come out again, 1 when they do not, 2 when there is nothing to replay."""
    # Here: what is replayed with plain diffusers needs of the methods that they must equal serial, and no more.
    from experiments.conformance.rerun import rerun
    from experiments.methods import METHODS

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
    name, method = record["method"], METHODS.get(record["method"])
    if method is None:
        print(f"error: method={name} is unknown; allowed: {', '.join(METHODS)}", file=sys.stderr)
        return 2
    exact, tolerance = (
        method.never_stale(record["steps"], record["method_config"]),
        TOLERANCE[record["dtype"]],
    )
    if not exact and method.stale is None:
        print(f"error: method={name} is not exact and says not what is stale: no reference", file=sys.stderr)
        return 2
    ours = replay(run_dir)[0] if exact else rerun(run_dir)
    try:
        error = largest_difference(load_file(run_dir / "latents.safetensors")["latents"], ours)
    except NotFinite as problem:
        print(f"{name}: not finite, so not compared: {problem}", file=sys.stderr)
        return 1
    equal, how = error <= tolerance, "plain diffusers" if exact else "the reference of displaced methods"
    print(
        f"{name}: largest difference / largest latent = {error:.2e} "
        f"({'equal' if equal else 'DIFFERENT'}; replayed with {how}; tolerance {tolerance:g})"
    )
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
