"""diffusers, which takes seconds to import, imported when something of it is asked for: sizes need nothing of it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Deferred:
    """A module that is imported when one of its names is read."""

    def __init__(self, module: str):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)


diffusers = Deferred("diffusers")
embeddings = Deferred("diffusers.models.embeddings")
