"""`measure=text_variants`: an MM-DiT's prompt between pipeline stages, exact, and as published.

Small random models, whose matrices are multiplied by `gain` so that the prompt matters, run in the simulated world;
messages are also counted for full-size models, by the closed forms that tests hold equal to the ledger. How far apart
the two are on trained weights is what `model.weights=... method.text=...` tells; random ones only show what depends on
what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pipefusion.method as pipefusion
from baselines import serial
from experiments.config import RunConfig, as_dict
from experiments.difference import norm_of_difference
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.grid import model_config
from experiments.inputs import draw_noise, random_prompts
from experiments.methods import METHODS
from experiments.models import Model, louder, open_model
from experiments.records import write_json
from experiments.simulate import sample_once
from pipefusion.core.dit import Conditioning
from pipefusion.core.domain import Devices, Gain, Grid, Patches, Warmup
from pipefusion.core.parallel import Parallel


@dataclass
class TextVariantsConfig:
    """`models` are run, `counted` only counted, on `devices` of them (`full_devices`, each with as many patches)."""

    name: str = "text_variants"
    models: list[str] = field(
        default_factory=lambda: ["sd3_tiny", "sd35_tiny", "flux_tiny", "flux2_tiny", "qwen_tiny"]
    )
    devices: Grid[Devices] = field(default_factory=lambda: [1, 2, 4])
    patches: Patches = 4
    warmup: Warmup = 1
    gain: Gain = 2.0
    counted: list[str] = field(
        default_factory=lambda: [
            "sd3_medium",
            "sd35_large",
            "flux_dev",
            "flux2_dev",
            "flux2_klein_4b",
            "qwen_image",
        ]
    )
    full_devices: Devices = 8


def check_text_variants(cfg: RunConfig) -> None:
    """Models that do not exist or cannot be cut so, numbers that run nothing. Raises ConfigError."""
    options: TextVariantsConfig = cfg.measure
    check_known(cfg, {f"measure.{key}": config_names("model") for key in ("models", "counted")})
    if not options.models and not options.counted:
        raise ConfigError("measure.models", "[] leaves nothing to do; allowed: a list of one or more")
    runs = [("models", name, n, options.patches) for name in options.models for n in options.devices]
    runs += [("counted", name, options.full_devices, options.full_devices) for name in options.counted]
    for key, name, devices, patches in runs:
        shape = open_model(model_config(name)).shape
        for text in pipefusion.TEXTS:
            settings = method_of(options, text, patches)
            problem = METHODS["pipefusion"].problem(shape, devices, cfg.steps, settings)
            if problem:
                why = f"{name} on {devices} devices: {problem.key}={problem.message}"
                raise ConfigError(f"measure.{key}", why)


def text_variants(cfg: RunConfig, out: Path) -> str:
    """Run and count both variants into `text_variants.json`, print the table; the run's status."""
    options: TextVariantsConfig = cfg.measure
    with torch.inference_mode():
        rows = [row for name in options.models for row in compared(open_model(model_config(name)), name, cfg)]
    record: dict[str, Any] = {"rows": rows, "messages": [counted(name, cfg) for name in options.counted]}
    record |= provenance() | {"config": as_dict(cfg)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "text_variants.json", record)
    show(out)
    return "ok"


def compared(model: Model, name: str, cfg: RunConfig) -> list[dict[str, Any]]:
    """Relative errors (root mean square over that of the reference) of both variants, for each N."""
    options: TextVariantsConfig = cfg.measure
    tensors = louder(model.tensors(), options.gain)
    reference = sample(model, serial.Config(), 1, cfg, tensors)
    alone: Tensor | None = None
    rows = []
    for devices in options.devices:
        got = {
            text: sample(model, method_of(options, text), devices, cfg, tensors) for text in pipefusion.TEXTS
        }
        alone = got["exact"] if alone is None else alone
        rows.append(
            {
                "model": name,
                "devices": devices,
                "exact_to_serial": distance(got["exact"], reference),
                "first_patch_to_serial": distance(got["first_patch"], reference),
                "exact_to_first_n": distance(got["exact"], alone),
                "first_patch_to_exact": distance(got["first_patch"], got["exact"]),
            }
        )
    return rows


def method_of(options: TextVariantsConfig, text: str, patches: int | None = None) -> pipefusion.Config:
    return pipefusion.Config(patches=patches or options.patches, warmup=options.warmup, text=text)


def sample(model: Model, method: Any, devices: int, cfg: RunConfig, tensors: Callable[..., Tensor]) -> Tensor:
    """Latents [1, C, H, W] of one picture on simulated devices."""
    shape = model.shape
    negative = random_prompts([cfg.negative_prompt], shape) if shape.guidance == "cfg" else None
    scale = float(model.facts["guidance_scale"] if cfg.guidance_scale is None else cfg.guidance_scale)
    cond = Conditioning(random_prompts(["a tree"], shape), scale, negative)
    noise = draw_noise(shape, cfg.seed, 1)
    return sample_once(replace(cfg, method=method, devices=devices), model, noise, cond, tensors)


def distance(got: Tensor, reference: Tensor) -> float:
    return float(norm_of_difference(got, reference, 0))


def counted(name: str, cfg: RunConfig) -> dict[str, Any]:
    """Bytes that the first stage of a full-size model sends in a step after the warm-up, M = N, one picture."""
    options: TextVariantsConfig = cfg.measure
    model, devices = open_model(model_config(name)), options.full_devices
    shape, batch = model.shape, 2 if model.shape.guidance == "cfg" else 1

    def sent(text: str, steps: int) -> int:
        method = method_of(options, text, patches=devices)
        return pipefusion.predict(shape, Parallel(pipe=devices), 0, steps, 1, batch, method).sent_bytes

    steady = {text: sent(text, 9) - sent(text, 8) for text in pipefusion.TEXTS}
    image = shape.tokens * shape.hidden * batch * shape.itemsize
    return {
        "model": name,
        "resolution": model.resolution,
        "devices": devices,
        "image_bytes": image,
        **{f"{text}_bytes": size for text, size in steady.items()},
    }


def show(out: Path) -> None:
    """Print both tables."""
    # Here and not above: matplotlib and pandas' tables are for those who print them.
    from analysis import text_variants as report
    from analysis.terminal import make_console, rich_table

    console, record = make_console(), report.load(out / "text_variants.json")
    console.print(rich_table(report.results_text(record), "Latents, relative to serial's and to each other"))
    console.print(rich_table(report.messages_text(record), "What the first stage sends in a step"))
    console.print(str(out / "text_variants.json"), highlight=False)
