"""Whether a transformer of this configuration can be built: the types of its arguments, their sizes, then the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.models.arguments import argument_faults, number_faults
from experiments.models.model import Model
from pipefusion.constructors import constructor
from pipefusion.core.domain import Domain
from pipefusion.families import most_references, takes_first_frame

SIZES = {
    "text_tokens": Domain(0, 1 << 14),
    "text_tokens_2": Domain(0, 1 << 14),
    "latent_factor": Domain(1, 256),
    "resolution": Domain(1, 1 << 16),
    "frames": Domain(1, 4096),
    "frame_factor": Domain(1, 64),
    "guidance_scale": Domain(0, 1000),
    "guidance_scale_2": Domain(0, 1000),
    "boundary": Domain(0, 1),
}
"""Numbers among the facts that the project wants to know of a model."""

FRACTIONS = ("guidance_scale", "guidance_scale_2", "boundary")
"""Of these what may be no whole number."""

GUIDANCE = ("cfg", "embedded", "none")
"""Kinds of guidance that a model may have."""


def architecture_fault(model: Model) -> str | None:
    """The first argument of the class that it cannot be built with, and what is allowed; None if there is none."""
    return next(faults(model.class_name, model.config, model.facts), None)


def faults(class_name: str, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the arguments of a transformer of diffusers, and with what the project knows besides."""
    yield from argument_faults(constructor(class_name), config)
    references = {"references": Domain(0, most_references(class_name))}
    for key, domain in (SIZES | references).items():
        value = facts.get(key)
        two = value if key == "resolution" and isinstance(value, list) else None  # height and width
        for each in two if two is not None and len(two) == 2 else [value]:
            if each is not None:
                yield from number_faults(key, each, domain, key in FRACTIONS)
    for key in ("pixel_space", "first_frame"):
        if not isinstance(facts.get(key, False), bool):
            yield f"{key}={facts[key]!r} is of the wrong type; allowed: bool"
    if facts.get("first_frame") and not takes_first_frame(class_name):
        yield f"first_frame=true is nothing that a {class_name} takes; allowed: false"
    if facts.get("guidance") not in (*GUIDANCE, None):
        yield f"guidance={facts['guidance']!r} is unknown; allowed: {', '.join(GUIDANCE)}"
