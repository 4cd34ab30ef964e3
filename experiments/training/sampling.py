"""Prompts -> pictures with nothing but a diffusers model and scheduler, and the contact sheets made of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image, ImageDraw
from rich.progress import track
from torch import Tensor, nn

from analysis.files import replacing


def default_scheduler(shift: float = 1.0) -> DPMSolverMultistepScheduler:
    """The scheduler that is shipped: DPM-Solver++ (2M) on flow matching; `shift` > 1 spends more steps on noise."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def draw_noise(count: int, resolution: int, seed: int) -> Tensor:
    """Starting noise [count, 3, r, r]; picture k depends on seed + k alone, whatever the batch."""
    draw = [torch.Generator().manual_seed(seed + k) for k in range(count)]
    return torch.stack([torch.randn(3, resolution, resolution, generator=generator) for generator in draw])


@torch.no_grad()
def sample(
    model: nn.Module,
    scheduler: Any,
    noise: Tensor,
    text: Tensor,
    mask: Tensor,
    empty: Tensor,
    empty_mask: Tensor,
    steps: int,
    guidance: float,
    batch: int = 32,
    progress: bool = False,
) -> Tensor:
    """Pictures [n, 3, r, r] float32 in 0..1.

    noise [n, 3, r, r]; text [n, T, D], mask [n, T] of the prompts; empty [1, T, D], empty_mask [1, T] of the
    unconditional branch, run beside the prompts when guidance > 1.
    """
    done = []
    parameter = next(model.parameters())
    starts = range(0, len(noise), batch)
    for first in track(starts, "sampling") if progress else starts:
        x, cond, keep = (part[first : first + batch].to(parameter.device) for part in (noise, text, mask))
        guided = guidance > 1
        if guided:
            cond = torch.cat([empty.to(cond).expand_as(cond), cond])
            keep = torch.cat([empty_mask.to(keep).expand_as(keep), keep])
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            twice = torch.cat([x, x]) if guided else x
            velocity = model(
                hidden_states=twice.to(parameter.dtype),
                encoder_hidden_states=cond.to(parameter.dtype),
                encoder_attention_mask=keep.to(parameter.dtype),
                timestep=t.to(x.device, torch.float32).expand(len(twice)),
            ).sample.float()
            if guided:
                without, with_text = velocity.chunk(2)
                velocity = without + guidance * (with_text - without)
            x = scheduler.step(velocity, t, x).prev_sample
        done.append((x / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(done)


def to_image(picture: Tensor, side: int) -> Image.Image:
    """[3, r, r] in 0..1 -> a side x side image, pixels kept square."""
    array = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(array).resize((side, side), Image.Resampling.NEAREST)


def save_sheet(
    rows: Sequence[tuple[str, Tensor, Tensor | None]], path: Path, side: int = 96, columns: int = 8
) -> None:
    """A sheet of (caption, sample, real picture or None); the sample is on the left of its real picture."""
    wide = side * (1 if all(real is None for _, _, real in rows) else 2)
    cell, high, foot = wide + 8, side + 22, 0
    sheet = Image.new("RGB", (columns * cell, (len(rows) + columns - 1) // columns * high + foot), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (caption, made, real) in enumerate(rows):
        x, y = k % columns * cell + 4, k // columns * high + 2
        sheet.paste(to_image(made, side), (x, y))
        if real is not None:
            sheet.paste(to_image(real, side), (x + side, y))
        draw.text((x, y + side + 3), caption[: wide // 6], fill="black")
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
