"""The tensors of a bundle: what the model was given, the latents that came out, hidden states on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from analysis.records.files import require_file
from experiments.conformance.fields import BundleError
from experiments.conformance.request import Request
from experiments.difference import largest_difference, require_finite
from experiments.errors import first_line, nearest
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.shape import DiTShape

INPUTS, LATENTS, HIDDEN = "inputs.safetensors", "latents.safetensors", "hidden.safetensors"
NEGATIVE = "negative_"
MASKS = torch.tensor([0, 1])
KEY = re.compile(r"step(\d+)\.(?:patch(\d+)|whole)\.layer(\d+)")

Place = tuple[int, int, int]
"""(step, patch or -1 for the whole image, layer)"""


@dataclass(frozen=True)
class Hidden:
    """Hidden states by where they were taken: read one by one, since they are many."""

    path: Path
    names: dict[Place, str]

    def read(self, place: Place) -> Tensor | None:
        """Image tokens [b, t, hs] behind a block, or None where there are none. Raises NotFinite."""
        if place not in self.names:
            return None
        with safe_open(self.path, framework="pt") as opened:
            return require_finite(opened.get_tensor(self.names[place]), f"{HIDDEN}: {self.names[place]}")

    def other_kind(self, whole: int) -> list[Place]:
        """Where it ran the whole image behind so many steps that should, or patches in one of these, in order."""
        return sorted(place for place in self.names if (place[1] < 0) != (place[0] < whole))


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """A safetensors file whose numbers are all finite in float32. Raises BundleError."""
    try:
        require_file(folder / name)
        tensors = load_file(folder / name)
    except FileNotFoundError:
        raise BundleError(name, f"is missing; allowed: a folder with {name}") from None
    except (OSError, SafetensorError) as error:
        raise BundleError(name, f"cannot be read ({first_line(error)}); allowed: safetensors") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise BundleError(name, f"{key} has NaN or infinite values; allowed: finite numbers")
    return tensors


def must_be(file: str, key: str, tensor: Tensor, size: tuple[int, ...]) -> None:
    """Raises BundleError unless a tensor has this size."""
    if tuple(tensor.shape) != size:
        raise BundleError(file, f"{key} is {[*tensor.shape]}; allowed: {[*size]}")


def conditioning(inputs: dict[str, Tensor], shape: DiTShape, scale: float) -> tuple[Tensor, Conditioning]:
    """Noise [B, C, H, W] float32 and the prompts. A mask that is not there leaves all tokens. Raises BundleError."""
    noise = inputs["noise"]
    must_be(INPUTS, "noise", noise, (len(noise), *shape.latent_size))
    branches = ["", NEGATIVE] if shape.guidance == "cfg" else [""]
    known = [lead + name for lead in branches for name, _ in shape.prompt]
    known += [name for name, _ in shape.pictures]
    for key in inputs:
        if key != "noise" and key not in known:
            text = f"{key} is unknown{nearest(key, known)}; allowed: noise, {', '.join(known)}"
            raise BundleError(INPUTS, text)

    def taken(lead: str) -> dict[str, Tensor]:
        found = {}
        for name, size in shape.prompt if lead else shape.prompt + shape.pictures:
            whole = (len(noise), *size)
            if name.startswith("prompt_mask") and lead + name not in inputs:
                found[name] = torch.ones(whole)
                continue
            if lead + name not in inputs:
                why = f", which guidance_scale={scale} needs" if lead else ""
                raise BundleError(INPUTS, f"{lead + name} is missing{why}; allowed: {[*whole]}")
            must_be(INPUTS, lead + name, inputs[lead + name], whole)
            if name.startswith("prompt_mask") and not bool(torch.isin(inputs[lead + name], MASKS).all()):
                raise BundleError(INPUTS, f"{lead + name} has other numbers than 0 and 1; allowed: these")
            found[name] = inputs[lead + name]
        return found

    negative = taken(NEGATIVE) if shape.guidance == "cfg" and scale > 1 else None
    return noise.float(), Conditioning(taken(""), float(scale), negative)


def read_latents(folder: Path, size: tuple[int, ...], steps: int, tolerance: float) -> Tensor:
    """Latents after each step [S, B, C, H, W], or only after the last [1, B, C, H, W]. Raises BundleError."""
    tensors = read_tensors(folder, LATENTS)
    for key in tensors:
        if key not in ("latents", "steps"):
            raise BundleError(LATENTS, f"{key} is unknown; allowed: latents, steps")
    if "latents" not in tensors:
        raise BundleError(LATENTS, f"latents is missing; allowed: {[*size]}")
    last = tensors["latents"]
    must_be(LATENTS, "latents", last, size)
    if "steps" not in tensors:
        return last[None].float()
    every = tensors["steps"].float()
    must_be(LATENTS, "steps", every, (steps, *size))
    if not largest_difference(every[-1], last) <= tolerance:
        raise BundleError(
            LATENTS, "latents is not the last of steps; allowed: the latents after the last step"
        )
    return every


def check_hidden(folder: Path, request: Request, shape: DiTShape) -> Hidden | None:
    """The hidden states, if there are any: names and sizes checked, none read. Raises BundleError."""
    path = folder / HIDDEN
    if not path.exists():
        return None
    allowed = (
        f"step0..{request.steps - 1}.patch0..{len(request.bands) - 1} or whole.layer0..{shape.layers - 1}"
    )
    names: dict[Place, str] = {}
    for name, size in headers(path):
        found = KEY.fullmatch(name)
        place = tuple(-1 if part is None else int(part) for part in found.groups()) if found else (0, 0, 0)
        limits = (request.steps, len(request.bands), shape.layers)
        if not found or any(part >= limit for part, limit in zip(place, limits, strict=True)):
            raise BundleError(HIDDEN, f"{name} is unknown; allowed: {allowed}")
        step, patch, layer = place
        rows = shape.token_rows if patch < 0 else len(request.bands[patch])
        want = [len(request.noise) * request.cond.branches, rows * shape.token_cols, shape.hidden]
        if size != want:
            raise BundleError(HIDDEN, f"{name} is {size}; allowed: {want}")
        names[step, patch, layer] = name
    return Hidden(path, names)


def headers(path: Path) -> Iterator[tuple[str, list[int]]]:
    """Names and sizes of a safetensors file. Raises BundleError."""
    try:
        require_file(path)
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, list(opened.get_slice(name).get_shape())
    except (OSError, SafetensorError) as error:
        raise BundleError(path.name, f"cannot be read ({first_line(error)}); allowed: safetensors") from None
