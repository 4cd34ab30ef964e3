"""What `bundle.json` says: its keys, their types and defaults; or the same from a run directory of this project."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.presentation.line import one_line
from analysis.records import files
from analysis.records.record import load_run
from experiments.errors import first_line, nearest, short_reason
from experiments.models.model import FACTS
from pipefusion.core.domain import (
    Devices,
    Finite,
    Gain,
    Guidance,
    Patches,
    Seed,
    Share,
    Steps,
    Warmup,
    outside,
)
from pipefusion.core.parallel import Parallel, degrees

FORMAT = 1
METHODS = ("pipefusion", "asyncdiff")
OWN = ("order", "forecast", "compress", "stride", "time_shift")
"""Keys of one of the methods alone."""
BUNDLE = "bundle.json"


class BundleError(ValueError):
    """What is wrong with a bundle, in one line: the file, the key, and what is allowed."""

    def __init__(self, file: str, message: str):
        super().__init__(one_line(f"{file}: {message}"))


class Required:
    """Stands for a default where there is none."""


@dataclass(frozen=True)
class Field:
    """One key: its types, what is allowed in words, its default, the domain of its numbers."""

    types: tuple[type, ...]
    allowed: str
    default: Any = Required
    domain: Any = Any


NUMBER = (int, float)
NO_FIELDS = {"guidance_scale", "resolution"}
"""Facts of a model that a bundle states by other means: its own scale, and the size of its noise."""
RECIPE = 'a folder, or a class with its "config" and "seed"'
FIELDS = {
    "format": Field((int,), str(FORMAT)),
    "model": Field((dict,), RECIPE),
    "scheduler": Field((dict,), 'a class, its "config", and what its "set_timesteps" is given', None),
    "steps": Field((int,), "1 or more", domain=Steps),
    "guidance_scale": Field(NUMBER, "a number; up to 1 is no guidance", domain=Guidance),
    "devices": Field((int,), "1 or more", domain=Devices),
    "patches": Field((int,), "1 or more", domain=Patches),
    "warmup": Field((int,), "0 or more synchronous steps", domain=Warmup),
    "method": Field((str,), "pipefusion, asyncdiff", "pipefusion"),
    "text": Field((str,), "exact, first_patch", "exact"),
    "order": Field((str,), "plain, rotational", "plain"),
    "forecast": Field((str,), "last, taylor1, taylor2, taylor3", "last"),
    "compress": Field((str,), "none, int1, int2, int4, topk, lowrank", "none"),
    "stride": Field((int,), "1, 2", 1),
    "time_shift": Field((bool,), "true, false", False),
    "split": Field((str, list), "even, ceil, cost, bytes, or a list of layers", "even"),
    "dtype": Field((str,), "float32, bfloat16, float16", "float32"),
    "tolerance": Field(NUMBER, "a number above 0", None, Share),
}
MODEL_FIELDS = {
    "folder": Field((str,), "a folder in diffusers' layout", None),
    "variant": Field((str,), "that of the folder's files, such as fp16", None),
    "class": Field((str,), "a transformer class of diffusers", None),
    "config": Field((dict,), "arguments of its constructor", None, dict[str, Finite]),
    "seed": Field((int,), "0 or more", 0, Seed),
    "gain": Field(NUMBER, "a number that all matrices are multiplied with", 1.0, Gain),
    **{
        fact: Field((bool, int, str), "see docs/adding-a-model.md", None)
        for fact in sorted(FACTS - NO_FIELDS)
    },
}
SCHEDULER_FIELDS = {
    "class": Field((str,), "a scheduler class of diffusers"),
    "config": Field((dict,), "what its from_config takes", {}),
    "set_timesteps": Field((dict,), "arguments of its set_timesteps", None, dict[str, Finite]),
}


def read_fields(folder: Path) -> tuple[str, dict[str, Any]]:
    """The file that tells, and all keys with defaults filled in. Raises BundleError."""
    if not folder.is_dir():
        raise BundleError(str(folder), "is no folder; allowed: one with bundle.json")
    if not (folder / BUNDLE).exists() and (folder / "run.json").exists():
        return "run.json", filled("run.json", FIELDS, of_run(folder))
    found = filled(BUNDLE, FIELDS, read_json(folder, BUNDLE))
    if found["format"] != FORMAT:
        raise BundleError(BUNDLE, f"format={found['format']} is unknown; allowed: {FORMAT}")
    return BUNDLE, found


def filled(file: str, fields: dict[str, Field], given: dict[str, Any], inside: str = "") -> dict[str, Any]:
    """The keys of a table with their defaults. Raises BundleError for unknown, missing and mistyped ones."""
    for key in given:
        if key not in fields:
            text = f"{inside}{key} is unknown{nearest(key, fields)}; allowed: {', '.join(fields)}"
            raise BundleError(file, text)
    found: dict[str, Any] = {}
    for key, field in fields.items():
        value = given.get(key)
        if value is None:
            if field.default is Required:
                raise BundleError(file, f"{inside}{key} is missing; allowed: {field.allowed}")
            value = field.default
        elif not is_a(value, field.types):
            raise BundleError(file, f"{inside}{key}={value!r} is of the wrong type; allowed: {field.allowed}")
        for name, message in outside(value, field.domain, f"{inside}{key}"):
            raise BundleError(file, f"{name}={message}")
        found[key] = value
    return found


def is_a(value: Any, types: tuple[type, ...]) -> bool:
    """JSON's types: a truth value is no number, a number is finite, and a list is of whole numbers."""
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, list):
        return list in types and all(type(size) is int for size in value)
    return isinstance(value, types) and not (isinstance(value, float) and not math.isfinite(value))


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object. Raises BundleError."""
    try:
        content = files.read_json(folder / name)
    except FileNotFoundError:
        raise BundleError(name, f"is missing; allowed: a folder with {name}") from None
    except (OSError, ValueError) as error:
        raise BundleError(name, f"cannot be read ({first_line(error)}); allowed: a JSON object") from None
    if not isinstance(content, dict):
        raise BundleError(name, "is no JSON object; allowed: keys and values")
    return content


def of_run(folder: Path) -> dict[str, Any]:
    """The keys of a bundle as a finished run of this project has them, of one of `METHODS`. Raises BundleError."""
    try:
        record = load_run(folder)
    except (OSError, ValueError) as error:
        raise BundleError(
            "run.json", f"cannot be read ({first_line(error)}); allowed: a finished run's"
        ) from None
    if record.get("method") not in METHODS or record.get("status") != "ok" or record.get("predicted"):
        text = f"method={record.get('method')} with status {record.get('status')} has no latents to judge"
        raise BundleError("run.json", f"{text}; allowed: a finished run of method={'|'.join(METHODS)}")
    try:
        config = files.read_yaml(folder / "config.yaml")
        model, parallel = dict(config["model"]), Parallel(**config["parallel"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError("config.yaml", f"cannot be read ({first_line(error)}); allowed: a run's") from None
    compress = record["method_config"].get("compress", "none")
    if compress != "none" and parallel.lanes > 1:
        text = f"method.compress={compress} of {parallel.lanes} ranks a stage is replayed, and not judged"
        raise BundleError("run.json", f"{text}; allowed: none, or no ring and Ulysses ranks")
    try:
        return bundle_fields(record, model, parallel)
    except (KeyError, TypeError, AttributeError) as error:
        text = f"is not whole ({short_reason(error)})"
        raise BundleError("run.json", f"{text}; allowed: a finished run's") from None


def bundle_fields(record: dict[str, Any], model: dict[str, Any], beside: Parallel) -> dict[str, Any]:
    """The keys of a bundle, from a run's record, the `model` of its configuration and the degrees beside its stages."""
    recipe: dict[str, Any] = {"folder": record["weights"], "variant": model.get("variant")}
    if recipe["folder"] is None:
        config = {"class": "PixArtTransformer2DModel", **model["architecture"]}
        given = {key: config.pop(key) for key in FACTS & config.keys()}
        facts = {"pixel_space": True} | {key: given[key] for key in given.keys() - NO_FIELDS}
        recipe = {"class": config.pop("class"), "config": config, "seed": model["seed"], **facts}
    own, found = record["method_config"], degrees("pipe", beside, record["devices"])
    stages = found.pipe if isinstance(found, Parallel) else record["devices"]
    return {
        "format": FORMAT,
        "model": recipe,
        **{key: record[key] for key in ("method", "scheduler", "steps", "guidance_scale", "dtype")},
        **{key: own.get(key) for key in ("warmup", "text", "split", *OWN)},
        "devices": stages,
        "patches": own.get("patches") or (stages if "patches" in own else 1),
    }
