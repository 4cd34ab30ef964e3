"""Clips: pictures stacked in the channels of latent frames, contact sheets, mp4 files."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
from PIL import Image
from torch import Tensor

from analysis.records.files import replacing

PICTURES_PER_S = 8
SEEN = 256
"""Pixels of height that a player shows well; smaller clips are enlarged, each pixel to a square."""
GAP = 1
"""Pixels around each picture of a contact sheet: on a white page they would run into each other."""


def pack(clips: Tensor, factor: int) -> Tensor:
    """Clips [B, C, F, h, w] as latents [B, factor * C, F / factor, h, w], picture after picture in the channels."""
    return clips.unflatten(2, (-1, factor)).permute(0, 3, 1, 2, 4, 5).flatten(1, 2)


def unpack(latents: Tensor, factor: int) -> Tensor:
    """Latents [B, factor * C, F, h, w] as clips [B, C, factor * F, h, w]."""
    return latents.unflatten(1, (factor, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)


def as_bytes(latents: Tensor, factor: int) -> np.ndarray:
    """Latents in -1..1 as clips [B, F, h, w, 3] of bytes."""
    return clip_bytes(unpack(latents, factor))


def clip_bytes(clips: Tensor) -> np.ndarray:
    """Clips [B, 3, F, h, w] in -1..1 as [B, F, h, w, 3] of bytes."""
    found: np.ndarray = ((clips.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()
    return found


def contact_sheet(clip: np.ndarray) -> Image.Image:
    """The pictures [F, h, w, 3] of a clip, row by row in about a square, with grey lines around them."""
    count, height, width = clip.shape[0], clip.shape[1] + GAP, clip.shape[2] + GAP
    columns = math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * width + GAP, -(-count // columns) * height + GAP), "silver")
    for k, picture in enumerate(clip):
        sheet.paste(Image.fromarray(picture), (GAP + k % columns * width, GAP + k // columns * height))
    return sheet


def write_mp4(path: Path, clip: np.ndarray) -> None:
    """The pictures [F, h, w, 3] of a clip as H.264."""
    enlarged = clip.repeat(scale := max(1, SEEN // clip.shape[1]), axis=1).repeat(scale, axis=2)
    with replacing(path) as temporary, av.open(temporary, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=PICTURES_PER_S)
        stream.height, stream.width = enlarged.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in enlarged:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
