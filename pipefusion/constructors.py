"""What constructors of diffusers' transformers and schedulers take, read from their source: nothing is imported."""

from __future__ import annotations

import ast
import typing
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("models/transformers", "schedulers")
"""Folders of diffusers whose `__init__.py` says which file has a class."""

NAMES: dict[str, Any] = vars(typing) | {"np": np, "SchedulerMixin": type("SchedulerMixin", (), {})}
"""What annotations are made of. The last is diffusers' base class of schedulers, which no file holds one of."""


@cache
def constructor(class_name: str) -> Callable[..., None]:
    """The arguments, defaults and annotations of a constructor, as a function that does nothing.

    Raises ValueError for what is no transformer or scheduler of diffusers, or has no constructor of its own.
    """
    path = source(class_name)
    nodes = [] if path is None else ast.parse(path.read_bytes()).body
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name == class_name]
    for node in (each for kind in classes for each in kind.body):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            node.decorator_list, node.body = [], [ast.Pass()]
            found = dict(NAMES)
            exec(ast.unparse(node), found)
            made: Callable[..., None] = found["__init__"]
            return made
    raise ValueError(f"{class_name} is no transformer or scheduler of diffusers")


def source(class_name: str) -> Path | None:
    """The file of diffusers that has a transformer or scheduler; None for another class."""
    spec = find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    for folder in (Path(spec.origin).parent / package for package in PACKAGES):
        for node in ast.walk(ast.parse((folder / "__init__.py").read_bytes())):
            if isinstance(node, ast.ImportFrom) and class_name in {each.name for each in node.names}:
                file = folder / f"{node.module}.py"
                return file if file.exists() else None
    return None
