"""Where sampled pictures are kept: a file for each batch, whole or absent, named by a hash of what it is made of.

So a study that was killed goes on where it was, and one whose weights, prompts or settings have changed samples again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.quality.settings import SampleConfig


@dataclass(frozen=True)
class Pictures:
    """The files of a setting's batches, in order; all but the last have the same number of pictures."""

    files: tuple[Path, ...]

    def read(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count`, batch by batch: latents [b, C, h, w] float32 and pictures [b, 3, H, W] float32 in 0..1."""
        for path in self.files:
            if count > 0:
                found = load_file(path)
                latents, images = found["latents"][:count], found["pictures"][:count]
                count -= len(latents)
                yield latents.float(), images.float() / 255

    def seconds(self, count: int) -> float:
        """CPU or GPU time that sampling the first `count` took, with those beside them in a file."""
        total = 0.0
        for path in self.files:
            if count > 0:
                with safe_open(path, framework="pt") as file:
                    total += float(file.metadata()["seconds"])
                    count -= len(json.loads(file.metadata()["prompts"]))
        return total


def there(paths: Sequence[Path]) -> int:
    """How many of these files are there."""
    return sum(path.exists() for path in paths)


def batches(cfg: RunConfig, own: SampleConfig, drawn: int, count: int | None = None) -> list[RunConfig]:
    """The runs that make the first `count` (None: all) of the `drawn` pictures of a setting, and those beside them.

    `cfg` has their prompts and the first seed. The borders are fixed: what a picture is computed beside never changes.
    """
    size = min(own.batch, drawn)
    places = [range(first, min(first + size, drawn)) for first in range(0, drawn, size)]
    places = places[: len(places) if count is None else -(-count // size)]
    return [
        replace(cfg, prompt=[cfg.prompt[k] for k in each], seed=[cfg.seed + k for k in each], measure=own)
        for each in places
    ]


def write_pictures(
    path: Path,
    latents: Tensor,
    pictures: Tensor | None,
    prompts: list[str],
    start: float,
    device: torch.device,
) -> None:
    """`latents` [b, C, h, w] are kept as float16 beside `pictures` [b, 3, H, W] uint8, and as they are without.

    `start`: when sampling began, of `time.perf_counter`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    facts = {"prompts": json.dumps(prompts), "seconds": f"{time.perf_counter() - start:.3f}", "gpu": gpu}
    both = {"latents": latents} if pictures is None else {"latents": latents.half(), "pictures": pictures}
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in both.items()}, temporary, facts)


def gpu_of(folder: Path) -> str | None:
    """The GPU that a folder's pictures were sampled on; None for a CPU, and for no pictures."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            return file.metadata()["gpu"] or None
    return None


def write_images(folder: Path, pictures: Pictures, shown: int) -> None:
    """K.png of the first `shown` pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [image for _, some in pictures.read(shown) for image in some]
    for k, image in enumerate(images):
        with replacing(folder / f"{k}.png") as temporary:
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)
