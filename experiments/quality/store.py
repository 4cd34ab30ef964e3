"""Where sampled pictures are kept: one small file a batch, whole or absent, stamped with what it was made from.

A file counts only with the right stamp. So a run that was killed goes on where it was, and one whose weights, prompts
or settings have changed samples again instead of mixing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.contents import contents_of, sha256_of_json
from experiments.device import device_type
from experiments.inputs import text_of
from experiments.models import Model
from experiments.quality.settings import Setting


@dataclass(frozen=True)
class Store:
    """The pictures of one setting, in `folder`, `batch` to a file."""

    folder: Path
    stamp: str
    batch: int

    def batches(self, pictures: int) -> list[range]:
        """Picture numbers, file by file. The borders are fixed: what a picture is computed beside never changes."""
        return [range(first, min(first + self.batch, pictures)) for first in range(0, pictures, self.batch)]

    def path(self, numbers: range) -> Path:
        return self.folder / f"{numbers.start:06d}.safetensors"

    def has(self, numbers: range) -> bool:
        """Whether these pictures are there, made from just this."""
        path = self.path(numbers)
        if not path.is_file():
            return False
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
        return found.get("stamp") == self.stamp and int(found["pictures"]) >= len(numbers)

    def write(self, numbers: range, latents: Tensor, pictures: Tensor, seconds: float) -> None:
        """`latents` [b, C, h, w] are kept as float16, `pictures` [b, 3, H, W] are uint8."""
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {"stamp": self.stamp, "pictures": str(len(numbers)), "seconds": f"{seconds:.3f}"}
        with replacing(self.path(numbers)) as temporary:
            save_file({"latents": latents.half(), "pictures": pictures.contiguous()}, temporary, facts)

    def read(self, pictures: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch: latents [b, C, h, w] float32 and pictures [b, 3, H, W] float32 in 0..1.

        Raises FileNotFoundError if there are not so many.
        """
        for numbers in self.batches(pictures):
            with safe_open(self.path(numbers), framework="pt") as file:
                latents, images = (file.get_tensor(name)[: len(numbers)] for name in ("latents", "pictures"))
            yield latents.float(), images.float() / 255

    def seconds(self, pictures: int) -> float:
        """CPU or GPU time that sampling took, over all files."""
        total = 0.0
        for numbers in self.batches(pictures):
            with safe_open(self.path(numbers), framework="pt") as file:
                total += float(file.metadata()["seconds"])
        return total


def store_of(root: Path, setting: Setting, cfg: RunConfig, prompts: Sequence[str], model: Model) -> Store:
    """The store of a setting below `root`."""
    made_from = {
        "setting": asdict(setting),
        "contents": contents_of(model, text_of(cfg, model)),
        "architecture": None if model.folder else [cfg.model.architecture, cfg.model.seed],
        "dtype": cfg.model.dtype,
        "device": device_type(cfg.cluster.device),
        "text": cfg.model.text,
        "tiled": cfg.model.tiled,
        "prompts": list(prompts),
        "negative_prompt": cfg.negative_prompt,
        "seed": cfg.seed,
        "batch": cfg.measure.batch,
    }
    return Store(root / setting.key, sha256_of_json(made_from), cfg.measure.batch)
