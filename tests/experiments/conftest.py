"""What all of these tests have: what `conf/` refers to, and folders of tiny pipelines, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from experiments.schemas import set_up
from tests.experiments.tiny_pipelines import save_tiny


@pytest.fixture(scope="session", autouse=True)
def _schemas() -> None:
    set_up()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder(family: str) -> Path:
        return save_tiny(family, tmp_path_factory.mktemp("pipelines") / family, with_transformer=True)

    return folder
