"""What all of these tests have: what `conf/` refers to, and folders of tiny pipelines, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from experiments.command.schemas import set_up
from experiments.runs import server
from tests.experiments.tiny_pipelines import save_tiny
from tests.ranks import PRELOAD


@pytest.fixture(scope="session", autouse=True)
def _set_up() -> None:
    """The schemas of `conf/`, and the fork server before a test starts it with few imports."""
    set_up()
    server.start(PRELOAD)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def folder(family: str) -> Path:
        return save_tiny(family, tmp_path_factory.mktemp("pipelines") / family, with_transformer=True)

    return folder
