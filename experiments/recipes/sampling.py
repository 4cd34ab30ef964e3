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

from analysis.records.files import replacing
from experiments.models.stock_sampling import denoise


def default_scheduler() -> DPMSolverMultistepScheduler:
    """The scheduler that is shipped: DPM-Solver++ (2M) on flow matching."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
    )


def draw_noise(count: int, size: Sequence[int], seed: int) -> Tensor:
    """Starting noise [count, *size]; that of picture k depends on seed + k alone, whatever the batch."""
    draw = [torch.Generator().manual_seed(seed + k) for k in range(count)]
    return torch.stack([torch.randn(*size, generator=generator) for generator in draw])


@torch.no_grad()
def sample(
    model: nn.Module,
    scheduler: Any,
    noise: Tensor,
    embeds: Tensor,
    mask: Tensor,
    steps: int,
    guidance: float,
    batch: int = 32,
    progress: bool = False,
) -> Tensor:
    """Pictures float32 in 0..1, of the size of the noise.

    noise [n, 3, r, r], of clips [n, C, F, r, r]; embeds [n + 1, T, D] and mask [n + 1, T] of the prompts and of the
    empty one, which runs beside them when guidance > 1.
    """
    done, device = [], next(model.parameters()).device
    for first in track(range(0, len(noise), batch), "sampling", disable=not progress):
        x = noise[first : first + batch].to(device)
        whole = {"prompt_embeds": embeds.to(device), "prompt_mask": mask.to(device)}
        prompt = {name: tensor[first : first + len(x)] for name, tensor in whole.items()}
        empty = {name: tensor[-1:].expand_as(prompt[name]) for name, tensor in whole.items()}
        scheduler.set_timesteps(steps)
        x = denoise(model, scheduler, x, prompt, empty if guidance > 1 else None, guidance, (0, 0))
        done.append((x / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(done)


def save_films(rows: Sequence[tuple[str, Tensor, Tensor]], path: Path, scale: int = 2) -> None:
    """A sheet of (caption, sample, real clip), clips [3, F, r, r] in 0..1 as strips; the sample is the upper one."""
    _, frames, side, _ = rows[0][1].shape
    high, wide = 2 * side * scale + 20, frames * side * scale
    sheet = Image.new("RGB", (wide, len(rows) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (caption, *pair) in enumerate(rows):
        for place, clip in enumerate(pair):
            pixels = (clip.permute(2, 1, 3, 0).flatten(1, 2) * 255).round().to(torch.uint8).numpy()
            strip = Image.fromarray(pixels).resize((wide, side * scale), Image.Resampling.NEAREST)
            sheet.paste(strip, (0, k * high + 14 + place * side * scale))
        draw.text((2, k * high + 2), caption, fill="black")
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def save_sheet(
    rows: Sequence[tuple[str, Tensor, Tensor]], path: Path, side: int = 96, columns: int = 8
) -> None:
    """A sheet of (caption, sample, real picture), the pictures [3, r, r] in 0..1; the sample is on the left."""
    wide, high = 2 * side + 8, side + 22
    sheet = Image.new("RGB", (columns * wide, -(-len(rows) // columns) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (caption, *pair) in enumerate(rows):
        x, y = k % columns * wide + 4, k // columns * high + 2
        for place, picture in enumerate(pair):
            pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            image = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(image, (x + place * side, y))
        draw.text((x, y + side + 3), caption[: side // 3], fill="black")
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
