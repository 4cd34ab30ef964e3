"""What Hydra and OmegaConf refuse, in one line: the key, and what it allows."""

from __future__ import annotations

import shlex
from dataclasses import is_dataclass
from types import NoneType
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from experiments.errors import ConfigError, first_line, nearest, short_reason
from pipefusion.core.domain import Domain, field_hints, find_marks, kinds_in

MAY_BE_NULL = ("model.architecture", "cluster.hardware", "cluster.topology.root", "cluster.topology.card")
"""Tables of keys that not every configuration has."""
WORDS: dict[type, str] = {
    int: "whole numbers", float: "numbers", bool: "true, false", str: "a text", list: "a list", dict: "{key: value}",
}  # fmt: skip
"""Types of fields, as a reader knows them."""


def cure(override: str) -> str:
    """What to type in place of an override that Hydra cannot read: the same, its value quoted."""
    key, equals, value = override.partition("=")
    if not equals:
        return "allowed: key=value"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"""allowed: key=value; a value with other than letters in quotes: {shlex.quote(f'{key}="{quoted}"')}"""


def explain(error: Exception, overrides: list[str]) -> ConfigError:
    """The key and what it allows where Hydra says them; else its message in one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        text = f"{name} is unknown to Hydra; allowed: {', '.join(error.options or []) or 'a plugin that is installed'}"
        return ConfigError(group, text)
    if isinstance(error, OverrideParseException):
        return ConfigError("", f"{error.override!r} is not understood; {cure(str(error.override))}")
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    given = [text.partition("=")[::2] for text in reversed(overrides)]
    if not isinstance(cause, OmegaConfBaseException):
        for key, value in given:
            above = next((table for table in MAY_BE_NULL if key.startswith(f"{table}.")), None)
            if above is not None:
                text = f"{value} is for a key of {above}, which is null"
                return ConfigError(key, f"{text}; allowed: another {above.split('.')[0]}, which has it")
        if isinstance(cause, OverflowError):
            key, value = max(given, key=lambda one: len(one[1]))
            return ConfigError(key, f"{value} is too large; allowed: numbers that a float holds")
        line = shlex.join(overrides)
        return ConfigError(
            "", f"{line} cannot be composed ({short_reason(error)}); allowed: what --cfg job shows"
        )
    full = str(cause.full_key)
    above_it = [one for one in given if f"{full}.".startswith(f"{one[0]}.") or one[0].startswith(f"{full}.")]
    key, value = max(above_it, key=lambda one: len(one[0]), default=(full, "its value"))
    if isinstance(cause, AttributeError | KeyError) and isinstance(cause.parent_node, DictConfig):
        keys = sorted(map(str, cause.parent_node))
        text = f"{value} is for an unknown key{nearest(str(cause.key), keys)}; allowed: {', '.join(keys) or 'none'}"
        return ConfigError(key, text)
    if isinstance(cause, ValidationError) and is_dataclass(cause.object_type):
        words = field_words(cause.object_type, str(cause.key))
        return ConfigError(key, f"{value or repr(value)} is of the wrong type; allowed: {words}")
    return ConfigError(key, f"{value} is refused: {first_line(cause)}; allowed: a value of its type")


def unchecked(error: Exception, overrides: list[str]) -> ConfigError:
    """What nobody expected of a check: the key of a path that the system does not take; else the error itself."""
    if isinstance(error, OSError):
        for key, value in (one.partition("=")[::2] for one in overrides):
            if value and value in str(error.filename):
                text = f"{value} cannot be opened ({error.strerror}); allowed: a path that can"
                return ConfigError(key, text)
    text = f"this command cannot be checked ({short_reason(error)}); HYDRA_FULL_ERROR=1 shows where"
    return ConfigError("", f"{text}; allowed: what --cfg job shows")


def field_words(kind: Any, key: str) -> str:
    """What a field of a dataclass may hold, in words."""
    hint = field_hints(kind)[key]
    kinds = kinds_in(hint)
    words = [WORDS.get(kind, "the keys that --cfg job shows") for kind in kinds - {NoneType, object}]
    words += [str(mark) for mark in find_marks(hint) if isinstance(mark, Domain)]
    return ", ".join([*words, *(["null"] if NoneType in kinds else [])])
