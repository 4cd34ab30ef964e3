"""Latents of a model that works on pixels -> PNG files."""

from __future__ import annotations

from pathlib import Path

from experiments.records import replacing


def write_images(run_dir: Path) -> list[Path]:
    """images/0.png, 1.png, ... of latents.safetensors [B, 3, H, W] in -1..1; nothing if these are not RGB."""
    from PIL import Image
    from safetensors.torch import load_file

    latents = load_file(run_dir / "latents.safetensors")["latents"]
    if latents.shape[1] != 3:
        return []
    (run_dir / "images").mkdir(exist_ok=True)
    pixels = ((latents.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()  # [B, H, W, 3]
    paths = [run_dir / "images" / f"{index}.png" for index in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        with replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
    return paths
