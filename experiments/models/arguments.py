"""What is wrong with the arguments of a class of diffusers: types, sizes and names, as its constructor has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pipefusion.core.domain import Domain, kinds_in

NUMBER = Domain(-1e9, 1e9)
LAYERS, SIZE, LISTED, TRAINED = Domain(0, 1000), Domain(1, 1 << 20), Domain(0, 1 << 20), Domain(1, 1_000_000)
RATIO, LIMIT, SHIFT = Domain(0, 1), Domain(0, 1e9, above=True), Domain(0, 1000, above=True)
DOMAINS = {
    "interpolation_scale": SHIFT,
    "rope_theta": LIMIT,
    "num_train_timesteps": TRAINED,
    "steps_offset": Domain(0, 1000),
    "beta_start": RATIO,
    "beta_end": RATIO,
    "trained_betas": RATIO,
    "dynamic_thresholding_ratio": RATIO,
    "shift_terminal": RATIO,
    "sample_max_value": LIMIT,
    "clip_sample_range": LIMIT,
    "shift": SHIFT,
    "flow_shift": SHIFT,
}
"""Of arguments that have one of their own."""
FRACTIONS = {"interpolation_scale", "rope_theta"}
"""Annotated as whole numbers, and published as others too."""


def argument_faults(constructor: Callable[..., None], config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the arguments of a constructor; those that it does not take are left out."""
    hints, taken = get_type_hints(constructor), inspect.signature(constructor).parameters
    for key, value in config.items():
        if key not in taken or (type(value) is type(taken[key].default) and value == taken[key].default):
            continue
        hint = hints.get(key, Any)
        kinds, names = kinds_in(hint), names_in(hint)
        if int in kinds and value is not None:
            yield from number_faults(key, value, DOMAINS.get(key, LAYERS if "layers" in key else SIZE))
        elif isinstance(value, list) and kinds & {tuple, list}:
            fractions = float in {inner for part in union_types(hint) for inner in get_args(part)}
            for each in value:  # sizes, numbers of layers, or a table
                yield from number_faults(key, each, DOMAINS.get(key, LISTED), fractions)
        elif float in kinds and value is not None:
            yield from number_faults(key, value, DOMAINS.get(key, NUMBER), True)
        elif names and (not isinstance(value, str) or value not in names):
            if value is not None or type(None) not in union_types(hint):
                yield f"{key}={value!r} is unknown; allowed: {', '.join(names)}"
        elif not names and object not in kinds and not isinstance(value, tuple(kinds)):
            allowed = ", ".join(sorted(kind.__name__ for kind in kinds))
            yield f"{key}={value!r} is of the wrong type; allowed: {allowed}"


def union_types(hint: Any) -> tuple[Any, ...]:
    """The types that a hint unites."""
    return (hint,) if get_origin(hint) in (None, Literal, list, tuple) else get_args(hint)


def names_in(hint: Any) -> list[str]:
    """The names that a hint lists."""
    return [name for part in union_types(hint) if get_origin(part) is Literal for name in get_args(part)]


def number_faults(key: str, value: Any, domain: Domain, fractions: bool = False) -> Iterator[str]:
    """What is wrong with one number."""
    fault = "is no number" if isinstance(value, bool) or not isinstance(value, int | float) else None
    if fault is None and not (isinstance(value, int) or key in FRACTIONS or fractions):
        fault = "is no whole number"
    fault = fault or domain.fault(value)
    if fault:
        yield f"{key}={value!r} {fault}; allowed: {domain}"
