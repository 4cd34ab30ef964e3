"""The size that a run has: what the configuration says of pixels and frames, and what the model was made for."""

from __future__ import annotations

from typing import Any

from experiments.config import ModelConfig
from experiments.errors import ConfigError
from pipefusion.families import makes_videos


def choose_frames(cfg: ModelConfig, class_name: str, facts: dict[str, Any]) -> int | None:
    """Pictures of a video; what is not given is as the model was made for. Raises ConfigError."""
    if not makes_videos(class_name):
        if cfg.frames is not None:
            text = f"{cfg.frames}, and the model makes pictures; allowed: null"
            raise ConfigError("model.frames", text)
        return None
    frames, factor = cfg.frames or facts["frames"], facts["frame_factor"]
    first = factor if facts["pixel_space"] else 1  # what the first latent frame holds
    if (frames - first) % factor:
        allowed = f"{first}, {first + factor}, {first + 2 * factor}, ..."
        raise ConfigError(
            "model.frames", f"{frames} is not {first} and a multiple of {factor}; allowed: {allowed}"
        )
    return int(frames)


def choose_size(cfg: ModelConfig, own: int | list[int]) -> tuple[int, int]:
    """Height and width in pixels; what is not given is `own`, the side (or sides) that the model was made for.

    Raises ConfigError if `resolution`, which stands for both, contradicts one of them.
    """
    for name in ("height", "width"):
        side = getattr(cfg, name)
        if cfg.resolution and side and side != cfg.resolution:
            text = f"{side} contradicts model.resolution={cfg.resolution}, which is both height and width"
            raise ConfigError(f"model.{name}", f"{text}; allowed: {cfg.resolution}, or model.resolution=null")
    own_height, own_width = (own, own) if isinstance(own, int) else own
    return cfg.resolution or cfg.height or own_height, cfg.resolution or cfg.width or own_width
