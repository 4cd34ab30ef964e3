"""Replay a run directory with plain diffusers: ``python -m experiments.replay RUN_DIR``.

Everything comes from the run's own files and its weights, and nothing from the rest of this project: the stock
transformer, the stock scheduler, guidance written out. What the run stored as latents must come out again, for
the methods that claim to equal serial; for the displaced ones the distance is printed and judged by nobody.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

EXACT = {"serial", "sync_pipeline", "tensor", "ulysses", "ring"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1, "float16": 2e-2}  # relative to the largest latent
VAE_FACTOR = 8


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
        for ours in ("pixel_space", "text_tokens"):  # what a config says of a random model beyond its class
            architecture.pop(ours, None)
        torch.manual_seed(cfg["seed"])
        model = cls(**architecture)
        model = model if dtype == torch.float32 else model.to(dtype)
    return model.eval()


@torch.inference_mode()
def replay(run_dir: str | Path) -> tuple[Tensor, Tensor]:
    """Latents as the stock model gives them and as the run stored them, both [B, C, H, W] float32."""
    run_dir = Path(run_dir)
    record = json.loads((run_dir / "run.json").read_text())
    cfg = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]
    inputs = load_file(run_dir / "inputs.safetensors")
    model = build_model(cfg, record.get("weights"))
    dtype = next(model.parameters()).dtype

    scheduler_class = getattr(diffusers, record["scheduler"]["class"])
    scheduler = scheduler_class.from_config(record["scheduler"]["config"])
    scheduler.set_timesteps(record["steps"])
    scale = record["guidance_scale"]
    guided = scale is not None and scale > 1
    embeds, mask = inputs["prompt_embeds"], inputs["prompt_mask"]
    if guided:
        embeds = torch.cat([inputs["negative_prompt_embeds"], embeds])
        mask = torch.cat([inputs["negative_prompt_mask"], mask])

    latents = inputs["noise"].float()
    sizes = size_conditions(model, record["resolution"], len(embeds), dtype)
    for timestep in scheduler.timesteps:
        prediction = model(
            torch.cat([latents] * 2 if guided else [latents]).to(dtype),
            encoder_hidden_states=embeds.to(dtype),
            encoder_attention_mask=mask.to(dtype),
            timestep=timestep.expand(len(embeds)),
            added_cond_kwargs=sizes,
            return_dict=False,
        )[0]
        if prediction.shape[1] == 2 * latents.shape[1]:
            prediction = prediction.chunk(2, dim=1)[0]  # the second half is a learned variance
        if guided:
            negative, positive = prediction.chunk(2)
            prediction = negative + scale * (positive - negative)
        latents = scheduler.step(prediction.float(), timestep, latents, return_dict=False)[0]
    return latents, load_file(run_dir / "latents.safetensors")["latents"]


def size_conditions(
    model: torch.nn.Module, resolution: int, batch: int, dtype: torch.dtype
) -> dict[str, Tensor | None]:
    """What PixArt-alpha is told of the picture's size: [b, 2] in pixels and [b, 1]; other models are told nothing."""
    if not getattr(model, "use_additional_conditions", False):
        return {"resolution": None, "aspect_ratio": None}
    size = torch.tensor([[resolution, resolution]], dtype=dtype).expand(batch, 2)
    return {"resolution": size, "aspect_ratio": torch.ones(batch, 1, dtype=dtype)}


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
    record = json.loads((run_dir / "run.json").read_text())
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
