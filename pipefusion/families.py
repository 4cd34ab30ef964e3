"""Families of transformers: which view opens which class of diffusers, and how a `config.json` is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from pipefusion.constructors import constructor
from pipefusion.core.shape import DiTShape
from pipefusion.views import (
    cogvideox,
    dit_xl,
    flux,
    flux2,
    hunyuan,
    hunyuan_video,
    hunyuan_video15,
    ltx,
    ltx2,
    pixart,
    qwen,
    sana,
    sd3,
    wan,
    z_image,
)

VIEWS: dict[str, ModuleType] = {
    "PixArtTransformer2DModel": pixart,
    "SanaTransformer2DModel": sana,
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
    "Flux2Transformer2DModel": flux2,
    "QwenImageTransformer2DModel": qwen,
    "ZImageTransformer2DModel": z_image,
    "WanTransformer3DModel": wan,
    "CogVideoXTransformer3DModel": cogvideox,
    "HunyuanVideoTransformer3DModel": hunyuan_video,
    "HunyuanVideo15Transformer3DModel": hunyuan_video15,
    "LTXVideoTransformer3DModel": ltx,
    "LTX2VideoTransformer3DModel": ltx2,
    "HunyuanDiT2DModel": hunyuan,
    "DiTTransformer2DModel": dit_xl,
}
"""The one table of architectures: each module offers `shape` and `View`; see docs/adding-a-model.md."""

TEXT_TOKENS = {
    "SD3Transformer2DModel": 333,
    "FluxTransformer2DModel": 512,
    "Flux2Transformer2DModel": 512,
    "QwenImageTransformer2DModel": 512,
    "ZImageTransformer2DModel": 512,
    "SanaTransformer2DModel": 300,
    "WanTransformer3DModel": 512,
    "CogVideoXTransformer3DModel": 226,
    "HunyuanVideoTransformer3DModel": 256,
    "HunyuanVideo15Transformer3DModel": 1000,
    "LTXVideoTransformer3DModel": 128,
    "LTX2VideoTransformer3DModel": 1024,
}
"""Prompt tokens where a folder of weights says nothing; PixArt 120, the others have it in their configuration."""

RENAMED = {"ada_norm_single": "PixArtTransformer2DModel", "ada_norm_zero": "DiTTransformer2DModel"}
"""What `Transformer2DModel` is called today, by its `norm_type`: PixArt and DiT were published under that name."""


def model_shape(
    class_name: str, config: Mapping[str, Any], rows: int, cols: int, facts: Mapping[str, Any], itemsize: int
) -> DiTShape:
    """The sizes of a transformer on `rows` x `cols` tokens, of a video on as many in each of `facts["frames"]`.

    Facts that all views have: frames, reference pictures and bytes of an element. Raises ValueError.
    """
    own: DiTShape = VIEWS[class_name].shape(config, rows, cols, facts)
    frames = facts["frames"] if makes_videos(class_name) else None
    axis = "rows" if frames is None else "frames"
    beside = {name: facts[name] for name in ("references", "first_frame") if name in facts}
    return replace(own, frames=frames, patch_axis=axis, itemsize=itemsize, **beside)


def diffusers_class(config: Mapping[str, Any]) -> str:
    """The diffusers class that a `config.json` is for, under today's name."""
    name = config.get("_class_name")
    if name == "Transformer2DModel":
        name = RENAMED.get(str(config.get("norm_type")), name)
    return str(name)


def makes_videos(class_name: str) -> bool:
    """Whether latents have frames."""
    return getattr(VIEWS[class_name], "VIDEO", False)


def frame_factor(class_name: str) -> int:
    """Pictures of a video per frame of its latents, behind the first, which is one alone."""
    return getattr(VIEWS[class_name], "FRAME_FACTOR", 4)


def most_references(class_name: str) -> int:
    """How many reference pictures a model of the class may edit."""
    return getattr(VIEWS[class_name], "REFERENCES", 0)


def takes_first_frame(class_name: str) -> bool:
    """Whether a video may begin with a picture that is given."""
    return getattr(VIEWS[class_name], "FIRST_FRAME", False)


def latent_patch(class_name: str, config: Mapping[str, Any]) -> int:
    """Rows of the latent per token row."""
    patch = getattr(VIEWS[class_name], "PATCH", config.get("patch_size", 1))
    return patch if isinstance(patch, int) else patch[-1]  # Wan: frames, rows and columns of a token


def whole_config(class_name: str, config: Mapping[str, Any], strict: bool = False) -> dict[str, Any]:
    """A configuration with the defaults of its class's constructor filled in.

    What the constructor does not take is left out, as diffusers' own `from_config` does (older files name what only
    other classes took), or with `strict` a TypeError.
    """
    taken = inspect.signature(constructor(class_name)).parameters
    unknown = config.keys() - taken.keys()
    if strict and unknown:
        raise TypeError(f"{class_name} takes no {', '.join(sorted(unknown))}")
    defaults = {name: p.default for name, p in taken.items() if name != "self"}
    return defaults | {key: value for key, value in config.items() if key in taken}
