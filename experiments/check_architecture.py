"""Whether a transformer of this configuration can be built: the types of its arguments, their sizes, then the model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import diffusers

from experiments.models import Model
from pipefusion.core.domain import Domain, kinds_in

FRACTIONS = {"interpolation_scale": Domain(0, 1000, above=True), "rope_theta": Domain(0, 1e9, above=True)}
"""Annotated as whole numbers, and published as others too."""
LAYERS, SIZE, LISTED, NUMBER = Domain(0, 1000), Domain(1, 1 << 20), Domain(0, 1 << 20), Domain(-1e9, 1e9)
SIZES = {
    "text_tokens": Domain(0, 1 << 14),
    "text_tokens_2": Domain(0, 1 << 14),
    "latent_factor": Domain(1, 256),
    "resolution": Domain(1, 1 << 16),
    "frames": Domain(1, 4096),
    "frame_factor": Domain(1, 64),
    "guidance_scale": NUMBER,
}
"""Numbers among the facts that the project wants to know of a model."""

GUIDANCE = ("cfg", "embedded", "none")
"""Kinds of guidance that a model may have."""


def architecture_fault(model: Model) -> str | None:
    """The first argument of the class that it cannot be built with, and what is allowed; None if there is none."""
    return next(faults(getattr(diffusers, model.class_name), model.config, model.facts), None)


def faults(stock: Any, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the arguments of a class of diffusers, and with what the project knows besides."""
    hints, taken = get_type_hints(stock.__init__), inspect.signature(stock.__init__).parameters
    for key, value in config.items():
        kinds = kinds_in(hints.get(key, Any))
        if value is not None and value == taken[key].default:
            continue
        if int in kinds and value is not None:
            yield from size_faults(key, value, FRACTIONS.get(key, LAYERS if "layers" in key else SIZE))
        elif isinstance(value, list) and tuple in kinds:
            for each in value:  # sizes, or numbers of layers
                yield from size_faults(key, each, LISTED)
        elif value is None and taken[key].default is None:
            continue
        elif float in kinds and value is not None:
            yield from size_faults(key, value, NUMBER)
        elif object not in kinds and not isinstance(value, tuple(kinds)):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            yield f"{key}={value!r} is of the wrong type; allowed: {names}"
    for key, domain in SIZES.items():
        value = facts.get(key)
        two = value if key == "resolution" and isinstance(value, list) else None  # height and width
        for each in two if two is not None and len(two) == 2 else [value]:
            if each is not None:
                yield from size_faults(key, each, domain)
    if not isinstance(facts.get("pixel_space", False), bool):
        yield f"pixel_space={facts['pixel_space']!r} is of the wrong type; allowed: bool"
    if facts.get("guidance") not in (*GUIDANCE, None):
        yield f"guidance={facts['guidance']!r} is unknown; allowed: {', '.join(GUIDANCE)}"


def size_faults(key: str, value: Any, domain: Domain) -> Iterator[str]:
    """What is wrong with one number."""
    fault = "is no number" if isinstance(value, bool) or not isinstance(value, int | float) else None
    if fault is None and not (isinstance(value, int) or key in FRACTIONS or domain is NUMBER):
        fault = "is no whole number"
    fault = fault or domain.fault(value)
    if fault:
        yield f"{key}={value!r} {fault}; allowed: {domain}"
