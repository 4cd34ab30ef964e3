"""What settings share on the disk: pictures and what is made of them, a file for each batch, whole or absent.

A file is named by a hash of what it is made of, in a folder that is named by the code: a study that was killed goes on
where it was, and one whose weights, prompts, settings or code have changed makes its files again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from analysis.records.files import replacing
from experiments.config import RunConfig
from experiments.quality.settings import SampleConfig
from experiments.session import Session
from experiments.tensors import read_facts, write_tensors

PICTURES, LOOKS, TEXTS = "pictures", "looks", "texts"
MAKERS = frozenset({"experiments.quality.sample", "experiments.quality.look"})
"""The modules that make these files; their code is that of all that they import."""


def shared(session: Session, kind: str) -> Path:
    """The folder of files that this code has made."""
    return session.folder / kind / session.code.sha256(MAKERS)[:16]


def remove_others(session: Session) -> None:
    """Remove the files that other code has made, which are never read again."""
    for kind in (PICTURES, LOOKS, TEXTS):
        for old in (session.folder / kind).glob("*"):
            if old != shared(session, kind):
                shutil.rmtree(old) if old.is_dir() else old.unlink()


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
                facts = read_facts(path)
                total += float(facts["seconds"])
                count -= len(json.loads(facts["prompts"]))
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
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    facts = {"prompts": json.dumps(prompts), "seconds": f"{time.perf_counter() - start:.3f}", "gpu": gpu}
    both = {"latents": latents} if pictures is None else {"latents": latents.half(), "pictures": pictures}
    write_tensors(path, both, facts)


def gpu_names(files: Iterable[Path]) -> str | None:
    """The GPUs that pictures were sampled on; None for a CPU, and for no pictures."""
    names = {read_facts(path)["gpu"] for path in files if path.exists()}
    return ", ".join(sorted(names - {""})) or None


def write_images(folder: Path, pictures: Pictures, shown: int) -> None:
    """K.png of the first `shown` pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [image for _, some in pictures.read(shown) for image in some]
    for k, image in enumerate(images):
        with replacing(folder / f"{k}.png") as temporary:
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)
