"""From a `ModelConfig` to its sizes, its view, its tensors and its scheduler: shipped, from a folder, or random."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from experiments.config import ModelConfig
from pipefusion.core.dit import DiTShape, Problem, Shard
from pipefusion.core.pixart import PixArtView, pixart_shape
from pipefusion.core.sampler import SCHEDULERS
from pipefusion.core.weights import reader

VAE_FACTOR = 8  # pixels per latent row of the VAE that PixArt checkpoints come with
RANDOM_FACTS = {"pixel_space": True, "text_tokens": 12}
# Predicting v keeps float noise small: noise prediction divides it by sqrt(alpha), a factor of 16 in DDIM's first step.
RANDOM_SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "prediction_type": "v_prediction",
}


@dataclass(frozen=True)
class Model:
    """A model chosen by configuration. `config` is the transformer's, `facts` what the project knows besides."""

    config: dict[str, Any]
    folder: Path | None
    seed: int
    resolution: int
    dtype: torch.dtype
    facts: dict[str, Any]
    scheduler: dict[str, Any]

    @property
    def pixels_per_latent(self) -> int:
        return 1 if self.facts.get("pixel_space", False) else VAE_FACTOR

    @property
    def multiple(self) -> int:
        """The resolution must be a multiple of this many pixels."""
        return self.pixels_per_latent * self.config["patch_size"]

    @property
    def shape(self) -> DiTShape:
        """Sizes of the transformer at this resolution, square."""
        side = self.resolution // self.pixels_per_latent
        return pixart_shape(self.config, side, side, self.facts.get("text_tokens", 120), self.dtype.itemsize)

    def view(self) -> PixArtView:
        """The model on `meta`: sizes without data."""
        return PixArtView(self.config, self.shape, self.dtype, self.pixels_per_latent)

    def tensors(self) -> Callable[[str, Shard | None], Tensor]:
        """What `DiT.load` reads: slices of the safetensors files, or of a model drawn from the seed."""
        return reader(self.folder / "transformer") if self.folder else random_tensors(self.config, self.seed)


def random_tensors(config: dict[str, Any], seed: int) -> Callable[[str, Shard | None], Tensor]:
    """Tensors of `PixArtTransformer2DModel.from_config(config)` initialised after `torch.manual_seed(seed)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = PixArtTransformer2DModel.from_config(config).state_dict()

    def read(name: str, shard: Shard | None) -> Tensor:
        if shard is None:
            return state[name]
        dim, start, stop = shard
        return state[name].narrow(dim, start, stop - start).clone()

    return read


def resolve_weights(weights: str) -> Path:
    """A local folder, or the snapshot of a hub id (safetensors and configurations only). Raises OSError offline."""
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(weights, allow_patterns=["*.json", "transformer/*.safetensors"]))


def open_model(cfg: ModelConfig) -> Model:
    """The model of a configuration: reads its JSON files, no tensors."""
    folder = resolve_weights(cfg.weights) if cfg.weights else None
    if folder is not None:
        config = dict(PixArtTransformer2DModel.load_config(folder / "transformer"))
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        path = folder / "pipefusion_lab.json"
        facts = json.loads(path.read_text()) if path.exists() else {}
    else:
        config = dict(cfg.architecture or {})
        facts = {key: config.pop(key, default) for key, default in RANDOM_FACTS.items()}
        config.pop("class", None)
        scheduler = RANDOM_SCHEDULER
        with torch.device("meta"):  # fills in the constructor's defaults
            config = dict(PixArtTransformer2DModel(**config).config)
    pixels = 1 if facts.get("pixel_space", False) else VAE_FACTOR
    resolution = cfg.resolution or facts.get("resolution") or config["sample_size"] * pixels
    return Model(config, folder, cfg.seed, resolution, getattr(torch, cfg.dtype), facts, scheduler)


def is_flow(scheduler: dict[str, Any]) -> bool:
    """Whether the model predicts the velocity of a flow rather than noise."""
    return "FlowMatch" in scheduler["_class_name"] or scheduler.get("prediction_type") == "flow_prediction"


def choose_scheduler(model: Model, name: str) -> tuple[str, dict[str, Any]] | Problem:
    """Class name and configuration of the scheduler `name` for this model, as diffusers' `from_config` takes them.

    A random-weight model goes with any scheduler; a trained one only with those that fit what it predicts.
    """
    if name == "shipped":
        return model.scheduler["_class_name"], model.scheduler
    flow = is_flow(model.scheduler)
    trained = model.folder is not None
    if trained and flow != (name == "flow_euler") and name != "dpmsolver++":
        fits = "shipped, dpmsolver++, flow_euler" if flow else "shipped, dpmsolver++, ddim"
        return Problem("scheduler", f"{name} does not fit what this model predicts; allowed: {fits}")
    config = {key: value for key, value in model.scheduler.items() if key in ("num_train_timesteps",)}
    if not flow:
        keep = ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps")
        config = {key: value for key, value in model.scheduler.items() if key in keep}
    if name == "dpmsolver++":
        config["algorithm_type"] = "dpmsolver++"
        if flow:
            config |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    return SCHEDULERS[name].__name__, config
