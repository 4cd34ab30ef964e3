"""A folder of weights against the architecture it claims to be. Headers only: no tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.check import ConfigError

KEY = "model.weights"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ARCHITECTURE = "PixArtTransformer2DModel"


def check_weights(weights: str) -> None:
    """Raises ConfigError if a local folder is missing, pickled, broken, or not what its config.json says.

    A hub id is left to the download, which checks what it fetches.
    """
    folder = Path(weights).expanduser()
    if not folder.exists():
        if not folder.is_absolute() and len(folder.parts) == 2 and not folder.parent.exists():
            return  # organisation/name
        raise ConfigError(
            KEY, f"{weights} does not exist; allowed: a folder with transformer/config.json, or a hub id"
        )
    if folder.is_file():
        raise ConfigError(
            KEY, f"{weights} is a file; allowed: a folder with transformer/config.json, or a hub id"
        )
    part = folder / "transformer"
    config = read_config(part / "config.json")
    files = sorted(part.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in part.iterdir() if path.suffix in PICKLED)
        found = f"holds pickled weights ({pickled[0]})" if pickled else "holds no weights"
        raise ConfigError(KEY, f"{part} {found}; allowed: *.safetensors")
    compare(read_shapes(files), expected_shapes(config, part), part)


def read_config(path: Path) -> dict[str, object]:
    """The architecture's configuration. Raises ConfigError."""
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(KEY, f"{path} does not exist; allowed: a folder in diffusers' layout") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            KEY, f"{path} is not readable as JSON ({error}); allowed: a diffusers configuration"
        ) from None
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != ARCHITECTURE:
        raise ConfigError(KEY, f"{path} is for {name}; allowed: {ARCHITECTURE}")
    return config


def read_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes from the headers of safetensors files. Raises ConfigError if one is broken or cut short."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ConfigError(
                KEY, f"{path} is truncated or broken ({error}); allowed: whole safetensors files"
            ) from None
    return shapes


def expected_shapes(config: dict[str, object], part: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model that the configuration describes, built without data. Raises ConfigError."""
    import torch
    from diffusers import PixArtTransformer2DModel

    try:
        with torch.device("meta"):
            model = PixArtTransformer2DModel.from_config(config)
    except (TypeError, ValueError) as error:
        raise ConfigError(KEY, f"{part}/config.json: {error}; allowed: what {ARCHITECTURE} takes") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def compare(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], part: Path) -> None:
    """Raises ConfigError at the first tensor that is missing, too many, or of another shape."""
    for name in expected:
        if name not in found:
            raise ConfigError(
                KEY, f"{part} lacks {name}; allowed: the {len(expected)} tensors of {ARCHITECTURE}"
            )
    for name, shape in found.items():
        if name not in expected:
            raise ConfigError(
                KEY, f"{part} has {name}, which {ARCHITECTURE} has not; allowed: its {len(expected)} tensors"
            )
        if shape != expected[name]:
            raise ConfigError(
                KEY, f"{part} has {name} of shape {list(shape)}; allowed: {list(expected[name])}"
            )
