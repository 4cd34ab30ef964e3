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
import os
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file
from torch import Tensor

from analysis.presentation.line import one_line
from analysis.records.files import require_file
from analysis.records.record import load_run
from analysis.records.rows import read_config
from experiments.difference import NotFinite, largest_difference
from experiments.models.stock_model import load_stock
from experiments.models.stock_sampling import denoise

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1, "float16": 2e-2}  # relative to the largest latent
COMPRESSED = 1e-3  # at least: of a quantized number between two levels rounding decides which it becomes


def build_model(cfg: dict[str, Any], weights: str | None, expert: int = 0) -> torch.nn.Module:
    """The stock transformer: from the weights, or drawn again from the seed and architecture of the config.

    Of two experts the second is `transformer_2`, and drawn from the seed that follows.
    """
    dtype = getattr(torch, cfg["dtype"])
    if weights:
        part = ("transformer", "transformer_2")[expert]
        model = load_stock(Path(weights) / part, dtype, cfg.get("variant"))
    else:
        architecture = dict(cfg["architecture"])
        cls = getattr(diffusers, architecture.pop("class"))
        taken = inspect.signature(
            cls.__init__
        ).parameters  # a config says more of a random model than its class
        architecture = {key: value for key, value in architecture.items() if key in taken}
        torch.manual_seed(cfg["seed"] + expert)
        model = cls(**architecture)
        model = model if dtype == torch.float32 else model.to(dtype)
    return model.eval()


@torch.inference_mode()
def replay(run_dir: str | Path) -> tuple[Tensor, Tensor]:
    """Latents as the stock model gives them and as the run stored them, both [B, C, H, W] float32."""
    run_dir = Path(run_dir)
    record = load_run(run_dir)
    cfg = read_config(run_dir)["model"]
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
    size = tuple(record.get(side, record["resolution"]) for side in ("height", "width"))
    second, experts = None, record.get("experts")
    if experts is not None:
        own = experts["guidance_scale"]
        second = (
            build_model(cfg, record.get("weights"), 1),
            experts["boundary"],
            scale if own is None else own,
        )
    ours = denoise(model, scheduler, latents, inputs, negative or None, scale, size, second)
    return ours, load_file(run_dir / "latents.safetensors")["latents"]


def read_record(run_dir: Path) -> tuple[dict[str, Any], bool]:
    """The record of a run, and whether it must equal serial. Raises OSError and ValueError for what has no replay."""
    # Here: what is replayed with plain diffusers needs of the methods that they must equal serial, and no more.
    from experiments.methods import METHODS, caches

    for name in ("run.json", "config.yaml", "inputs.safetensors", "latents.safetensors"):
        if (run_dir / name).exists():
            require_file(run_dir / name)
        elif name in ("run.json", "config.yaml"):
            raise ValueError(f"{run_dir} is no run directory: it has no {name}")
    record = load_run(run_dir)
    if record["status"] != "ok":
        raise ValueError(f"nothing to replay: the run {record['status']}: {record['reason']}")
    name = record["method"]
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        raise ValueError(f"method={name} is unknown; allowed: {', '.join(METHODS)}")
    if caches(record["method_config"]):
        cache = record["method_config"]["cache"]
        raise ValueError(f"method.cache={cache} skips by values that no reference computes; allowed: none")
    exact = method.never_stale(record["steps"], record["method_config"])
    if not exact and method.stale is None:
        raise ValueError(f"method={name} is not exact and says not what is stale: no reference")
    return record, exact


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when the latents come out again, 1 when they do not, 2 when there is nothing to replay."""
    from experiments.conformance.rerun import rerun  # here, as in `read_record`

    parser = argparse.ArgumentParser(
        prog="python -m experiments.replay", description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("run_dir", type=Path)
    run_dir = parser.parse_args(arguments).run_dir
    try:
        record, exact = read_record(run_dir)
    except (OSError, ValueError, KeyError) as wrong:
        print(f"error: {one_line(wrong)}", file=sys.stderr)
        return 2
    name = record["method"]
    try:
        tolerance, theirs = TOLERANCE[record["dtype"]], load_file(run_dir / "latents.safetensors")["latents"]
        if record["method_config"].get("compress", "none") != "none" and not exact:
            tolerance = max(tolerance, COMPRESSED)
        error = largest_difference(theirs, replay(run_dir)[0] if exact else rerun(run_dir))
    except NotFinite as problem:
        print(f"{name}: not finite, so not compared: {problem}", file=sys.stderr)
        return 1
    except Exception as wrong:  # whatever stock classes have to say to files that no run wrote
        if "HYDRA_FULL_ERROR" in os.environ:
            raise
        print(
            f"error: {run_dir} cannot be replayed ({type(wrong).__name__}: {one_line(wrong)})",
            file=sys.stderr,
        )
        return 2
    equal, how = error <= tolerance, "plain diffusers" if exact else "the reference of displaced methods"
    print(
        f"{name}: largest difference / largest latent = {error:.2e} "
        f"({'equal' if equal else 'DIFFERENT'}; replayed with {how}; tolerance {tolerance:g})"
    )
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
