"""Input that cannot be meant, made by rule: values for each key of each group, content for each file that is read."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.compose import plan
from experiments.errors import CONF, config_names
from pipefusion.core.domain import hints_of, kinds_in

ESCAPE = "\x1b[31m\nred\u202e"
BASE = ["model=pixart_tiny", "cluster=sim"]
GROUPS = ("model", "cluster", "method", "measure")
"""Groups of which a run has one each; those of `conf/` beside them are parts of these."""

NUMBERS = {int, float}
PLAIN = NUMBERS | {bool}
NO_TEXT = PLAIN | {list, dict}
VALUES: dict[str, tuple[str, set[type]]] = {
    "nan": ("not a number", NO_TEXT),
    "1e99": ("huge", NO_TEXT),
    "-1e99": ("below everything", NO_TEXT),
    str(1 << 64): ("a whole number too large", {int, list, dict}),
    "2.5": ("a fraction", {int, bool, list, dict}),
    "7": ("a number", {list, dict}),
    "true": ("a truth value", {list, dict}),
    "null": ("null", set()),
    "''": ("empty text", NO_TEXT),
    f"'{ESCAPE}'": ("unprintable text", NO_TEXT),
    "'é 水 🍏'": ("unicode", NO_TEXT),
    "x" * 5000: ("long text", NO_TEXT),
    "[]": ("an empty list", PLAIN | {str, dict}),
    "[null]": ("a list of nothing", PLAIN | {str, dict}),
    "[1,[2]]": ("a nested list", PLAIN | {str, dict}),
    "{}": ("an empty mapping", PLAIN | {str, list}),
    "{a: b}": ("a mapping", PLAIN | {str, list}),
    "???": ("missing", NO_TEXT | {str}),
    "${nope}": ("an interpolation of nothing", NO_TEXT | {str}),
    "${seed}": ("an interpolation", {list, dict}),
}
"""A value, what is wrong with it, and the types of fields that cannot hold it."""


@dataclass(frozen=True)
class Hostile:
    """Overrides of a command, what is wrong with them, and whether the key's type alone forbids it."""

    overrides: list[str]
    wrong: str
    refused: bool


def configurations(values: int = len(VALUES)) -> Iterator[Hostile]:
    """Each key of each group with so many of `VALUES`, in turn; and below each mapping a key that it has not."""
    turn, seen, known = count(), set(), [*VALUES]
    for group in GROUPS:
        for name in config_names(group):
            base = [*BASE, f"{group}={name}"]
            for key, owner, kinds in keys_in(plan(base).jobs[0]):
                if (key, owner) in seen or key.startswith("hydra"):
                    continue
                seen.add((key, owner))
                for _ in range(values):
                    value = known[next(turn) % len(known)]
                    wrong, forbidden = VALUES[value]
                    yield Hostile([*base, f"{key}={value}"], wrong, (kinds or {str}) <= forbidden)
                if kinds == {dict} or key in GROUPS:
                    yield Hostile([*base, f"{key}.nope=1"], "an unknown key", is_dataclass(owner))


def keys_in(node: DictConfig, above: str = "") -> Iterator[tuple[str, Any, set[type]]]:
    """Every key below a node, the dataclass that has it, and the types that it takes but None."""
    owner = OmegaConf.get_type(node)
    for key in map(str, node):
        full, inside = f"{above}{key}", node._get_node(key)
        kinds = kinds_in(hints_of(owner)[key]) if is_dataclass(owner) else {object}
        kinds = {dict if is_dataclass(kind) else kind for kind in kinds} - {type(None)}
        yield full, owner, set() if (CONF / full).is_dir() else kinds
        if isinstance(inside, DictConfig) and not inside._is_none():
            yield from keys_in(inside, f"{full}.")


Write = Callable[[Path], Any]


def tensors(header: Any, length: int | None = None) -> bytes:
    """A file of safetensors with this header, and data of four bytes."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"0000"


def stored(dtype: str) -> dict[str, Any]:
    """The header of one number under a name that no terminal should get."""
    return {ESCAPE: {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}


FILES: dict[str, Write] = {
    "absent": lambda path: None,
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "empty": Path.touch,
    "deep": lambda path: path.write_text("[" * 100_000),
    "deep mapping": lambda path: path.write_text('{"a":' * 100_000),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "another encoding": lambda path: path.write_bytes('{"a": 1}'.encode("utf-16")),
    "list": lambda path: path.write_text("[]"),
    "mapping": lambda path: path.write_text("{}"),
    "null": lambda path: path.write_text("null"),
    "number": lambda path: path.write_text("1e999"),
    "foreign": lambda path: path.write_text(
        json.dumps({"_class_name": [ESCAPE], "format": {}, ESCAPE: None})
    ),
    "header": lambda path: path.write_bytes(tensors({}, 1 << 62)),
    "dtype": lambda path: path.write_bytes(tensors(stored("F77"))),
    "name": lambda path: path.write_bytes(tensors(stored("F32"))),
    "pickle": lambda path: path.write_bytes(b"\x80\x04K\x01."),
}
"""Content that no file of any kind has. A reader may find one of them good: text, or an empty mapping."""

JSON_VALUES: list[tuple[Any, set[type]]] = [
    (ESCAPE, PLAIN),
    (math.nan, PLAIN | {str}),
    ([], PLAIN | {str}),
    ({}, PLAIN | {str}),
    (1e99, PLAIN | {str}),
    (True, NUMBERS | {str}),
    (1 << 64, {int, bool, str}),
    (-1, {bool, str}),
    (None, set()),
]


def files(good: bytes, values: int = len(JSON_VALUES)) -> Iterator[tuple[str, Write, bool]]:
    """Hostile content in place of what is good: its name, what writes it to a path, whether its type alone forbids it.

    Of a JSON mapping each key in turn has so many of `JSON_VALUES`.
    """
    for name, write in FILES.items():
        yield name, write, False
    for name, content in {"cut": good[: len(good) // 2], "short": good[:-1], "twice": good + good}.items():
        yield name, lambda path, content=content: path.write_bytes(content), False
    try:
        content, turn = json.loads(good), count()
    except ValueError:
        return
    for key, kind in ((key, type(value)) for key, value in content.items()):
        for _ in range(values):
            value, forbidden = JSON_VALUES[next(turn) % len(JSON_VALUES)]
            text = json.dumps(content | {key: value})
            yield f"{key}={value!r}", lambda path, text=text: path.write_text(text), kind in forbidden
