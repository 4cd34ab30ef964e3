"""Import closure: the files of the project that a module is made of, found without importing any, and their hash."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from experiments.errors import CONF

PACKAGES = ("pipefusion", "baselines", "experiments")
ENGINE = "experiments.runner"
"""Decides when and where a cell is measured, and not what: a module is not made of it."""


def modules(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Every module of packages in a folder by its dotted name."""
    paths = [path for package in packages for path in (root / package).rglob("*.py")]
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}


@cache
def imports(source: bytes) -> frozenset[str]:
    """The names that a source imports, wherever: at its top, in functions, for type checkers."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    return frozenset(found)


@dataclass
class Code:
    """The project's code as it was when it was first asked for: what is edited later is not what was measured.

    Methods and models are in the closure of whoever asks their tables for them, which import all of them.
    """

    root: Path = CONF.parent
    _read: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    _hashes: dict[frozenset[str], str] = field(default_factory=dict)

    def sha256(self, names: frozenset[str]) -> str:
        """SHA-256 over the files that these modules are made of."""
        if names not in self._hashes:
            digests = sorted(self._read[name][0] for name in self.closure(names))
            self._hashes[names] = sha256("".join(digests).encode()).hexdigest()
        return self._hashes[names]

    def closure(self, names: Iterable[str]) -> set[str]:
        """These modules and all of the project's that they import, however indirectly."""
        known, found, todo = modules(self.root), set[str](), [*names]
        while todo:
            name = todo.pop()
            if name not in found and name != ENGINE:
                found.add(name)
                todo += self.read(name, known)[1]
        return found

    def read(self, name: str, known: Mapping[str, Path]) -> tuple[str, frozenset[str]]:
        """SHA-256 of a module's file, and the modules that it imports; one of no package is where it came from."""
        if name not in self._read:
            path = known[name] if name in known else Path(str(sys.modules[name].__file__))
            text = path.read_bytes()
            self._read[name] = sha256(text).hexdigest(), frozenset(imports(text) & known.keys())
        return self._read[name]
