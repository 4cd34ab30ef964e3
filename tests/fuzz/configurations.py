"""Every key of every Hydra group with values that it may not take, and some that it may."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml
from omegaconf import DictConfig, OmegaConf

from experiments.command import cli, compose
from experiments.command.check import CHOICES
from experiments.command.schemas import set_up
from experiments.config import from_hydra
from experiments.errors import ConfigError, config_names
from tests.fuzz.verdict import ACCEPTED, SILENT, Verdict, tried

BASE = ("model=pixart_tiny", "cluster=sim", "log.wandb.mode=disabled")
ESCAPE = "\x1b[31m\nred\u202e"
NUMBERS = ("nan", "-1", "inf", "0", "1e99", "-inf", "2.5", str(1 << 64), "-0.0", "9" * 400, "true", "'7'")
TEXTS = ("no_such_name", "''", "café", f"'{ESCAPE}'", "水🍏", "x" * 5000, "'\\x00'", "~", "/dev/zero", "7")
SHAPES = ("null", "[]", "{}", "[1,[2]]", "{a: b}", "[null]", "[nan]", "{a: {b: [1e99]}}")
INTERPOLATIONS = ("${nope}", "${seed}", "${oc.env:NOPE}", "${method}", "${nope:}", "'${'")
SYNTAX = ("", "(a)", "a,b", "range(3)", "[", "'", "choice(1,2)")
KINDS = (NUMBERS, TEXTS, SHAPES, INTERPOLATIONS, SYNTAX)
VALUES = tuple(kind[place % len(kind)] for place in range(max(map(len, KINDS))) for kind in KINDS)
"""Of each kind in turn."""
GROUPS = ("method", "measure", "cluster", "model")
OTHERS = (
    "log",
    "experiment",
    "hydra/launcher",
    "hydra.run.dir",
    "hydra.mode",
    "device",
    "nope",
    "method.nope",
)
NAMES = (*GROUPS, *OTHERS)
"""Keys that take a name, and some that nothing has."""
FREE = ("prompt", "negative_prompt", "log.wandb")
"""Keys whose values are any text."""


@dataclass(frozen=True)
class Case:
    """One override of a command, `key=value` after what `base` chooses."""

    base: tuple[str, ...]
    key: str
    value: str

    @property
    def command(self) -> list[str]:
        return [*BASE, *self.base, f"{self.key}={self.value}"]

    def __str__(self) -> str:
        return " ".join([*self.base, f"{self.key}={self.value}"])


def keys_in(node: DictConfig, above: str = "") -> Iterator[str]:
    """Every key of a configuration, those that hold others included."""
    for key in node:
        yield f"{above}{key}"
        inside = node._get_node(key)
        if isinstance(inside, DictConfig) and not inside._is_none():
            yield from keys_in(inside, f"{above}{key}.")


def cases(bases: Iterable[tuple[str, ...]] | None = None, values: int = 2) -> Iterator[Case]:
    """The keys of all that can be chosen (or of `bases`), each with some values, which differ from key to key."""
    set_up()
    seen: set[tuple[str, str]] = set()
    for base in choices() if bases is None else bases:
        group, _, name = base[0].partition("=") if base else ("", "", "")
        for key in keys_in(compose.plan([*BASE, *base]).jobs[0]):
            own = name if group in ("method", "measure") else group  # one schema for all of the other groups
            if key.startswith("hydra") or (own, key) in seen or (base and not key.startswith(f"{group}.")):
                continue
            place = 7 * len(seen)
            seen.add((own, key))
            for step in range(values):
                yield Case(base, key, VALUES[(place + step * 17) % len(VALUES)])
    for key in NAMES:
        for value in VALUES[::3]:
            yield Case((), key, value)


def choices() -> Iterator[tuple[str, ...]]:
    """No choice, each method and measure, and one of the groups whose files have all the same keys."""
    yield from ((), ("cluster=l40_pcie_ethernet",), ("model=emoji64",), ("model=wan_tiny",))
    yield from ((f"{group}={name}",) for group in ("method", "measure") for name in config_names(group))


def verdict(case: Case) -> Verdict:
    """What a command comes to; what is accepted has to be what was typed, and a value that its key may have."""
    found = tried(lambda: refusal(case))
    if found.kind == ACCEPTED:
        kept = tried(lambda: None if meant(case) else SILENT)
        found = Verdict(SILENT) if kept.text == SILENT else kept
    return found


def refusal(case: Case) -> str | None:
    """The line that refuses a command, or None."""
    try:
        cli.checked(cli.arguments(case.command))
    except ConfigError as error:
        return str(error)
    return None


def meant(case: Case) -> bool:
    """Whether an accepted value was kept as it was typed, and is finite, no larger than 2^63 and a name that exists."""
    run = from_hydra(compose.plan(cli.arguments(case.command).overrides).jobs[0])
    kept = OmegaConf.select(OmegaConf.structured(run), case.key) if not case.key.startswith("hydra") else None
    if kept is None or "${" in case.value or case.key.startswith(FREE):
        return True
    if isinstance(kept, str):
        return case.key not in CHOICES or kept in CHOICES[case.key]
    typed = yaml.safe_load(case.value)
    if isinstance(kept, bool) or isinstance(typed, bool):
        return type(kept) is type(typed)
    if isinstance(kept, int | float):
        return math.isfinite(kept) and abs(kept) < 1 << 63 and kept == float(case.value.strip("'"))
    return case.key not in CHOICES or kept in CHOICES[case.key]
