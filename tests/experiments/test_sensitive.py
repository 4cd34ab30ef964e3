"""`method.sync_layers=k` on the shipped model and its record."""

from __future__ import annotations

import pytest

from experiments.config import RunConfig
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.sensitive import with_layers


@pytest.mark.parametrize("name", ["distrifusion", "naive_patch"])
@pytest.mark.fast_cases(1)
def test_a_number_is_that_many_layers(name: str) -> None:
    """Each number has one layer more than the one before; none is none, all are all."""

    def layers(count: int) -> list[int]:
        cfg = RunConfig(model=model_config("emoji64"), method=METHODS[name].Config(sync_layers=count))
        found: list[int] = with_layers(cfg).method.sync_layers
        assert found == sorted(found) and len(found) == count
        return found

    assert layers(0) == [] and layers(12) == [*range(12)]
    assert all({*layers(k)} < {*layers(k + 1)} for k in range(12))


def test_a_list_stays() -> None:
    cfg = RunConfig(
        model=model_config("pixart_tiny"), method=METHODS["distrifusion"].Config(sync_layers=[3, 1])
    )
    assert with_layers(cfg) is cfg
