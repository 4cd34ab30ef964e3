"""From a prompt to a picture, as the family's own diffusers pipeline has it: the whole way, on tiny random parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.records import read_json
from tests.experiments.commands import command
from tests.experiments.models.test_components import stock
from tests.experiments.tiny_pipelines import save_tiny

SIDE, STEPS = 64, 3
PROMPTS = {"dit": "golden retriever"}
MODELS = {
    "pixart_alpha": "pixart_alpha",
    "sd3_shifted": "sd3_medium",
    "flux": "flux_dev",
    "flux2_klein": "flux2_klein_4b",
    "hunyuan": "hunyuan_dit",
    "dit": "dit_xl_2",
    "sana": "sana_1600m",
}
# What its pipeline does by itself, of a distilled model without guidance.
SCALE = {"flux2_klein": 1.0}


@pytest.mark.parametrize(
    ("family", "tiled"),
    [*((family, False) for family in MODELS), ("pixart_alpha", True), ("flux2_klein", True)],
)
@pytest.mark.fast_cases(2)
def test_a_run_draws_what_the_pipeline_draws(family: str, tiled: bool, tmp_path: Path, monkeypatch) -> None:
    folder = save_tiny(family, tmp_path / "weights", with_transformer=True)
    prompt, scale = PROMPTS.get(family, "red apple"), SCALE.get(family, 2.0)
    overrides = [
        f"model={MODELS[family]}",
        f"model.weights={folder}",
        "model.dtype=float32",
        "model.architecture=null",
        f"model.tiled={tiled}",
        f"model.resolution={SIDE}",
        f"prompt={prompt}",
        f"guidance_scale={scale}",
        f"steps={STEPS}",
        "cluster=sim",
        "method=serial",
        "measure.memory=false",
        "log.wandb.mode=disabled",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    pipe = stock(folder)
    if family == "hunyuan":  # its own scheduler draws noise in every step
        from diffusers import DDIMScheduler

        overrides.append("scheduler=ddim")
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert command(monkeypatch, *overrides) == 0, read_json(tmp_path / "run" / "run.json")["reason"]
    ours = np.asarray(Image.open(tmp_path / "run" / "images" / "0.png"), dtype=float) / 255
    if tiled:
        pipe.vae.enable_tiling()
    theirs = pipe(
        **asked(family, prompt, scale, pipe),
        num_inference_steps=STEPS,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert np.abs(ours - theirs).max() <= 1.01 / 255


def asked(family: str, prompt: str, scale: float, pipe: Any) -> dict[str, Any]:
    """The arguments of the pipeline's call."""
    if family == "dit":
        return {"class_labels": pipe.get_label_ids(["golden retriever"]), "guidance_scale": scale}
    options: dict[str, Any] = {"prompt": prompt, "height": SIDE, "width": SIDE, "guidance_scale": scale}
    if family.startswith("pixart") or family in ("hunyuan", "sana"):
        options["use_resolution_binning"] = False
    return options
