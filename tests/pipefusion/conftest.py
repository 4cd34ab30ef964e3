"""A fabric of one rank, and tiny pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch.distributed as dist

from pipefusion import Parallel, init
from pipefusion.core.local import LocalFabric
from tests.experiments.tiny_pipelines import save_tiny, stock


@pytest.fixture(scope="module")
def fabric() -> Iterator[LocalFabric]:
    """One rank, a group of its own."""
    yield init(Parallel(), "cpu")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def tiny_pipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    return cache(lambda family: stock(save_tiny(family, tmp_path_factory.mktemp("tiny") / family, True)))
