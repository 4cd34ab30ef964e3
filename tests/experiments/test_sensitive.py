"""`method.sync_layers=k` on the shipped model and its record."""

from __future__ import annotations

from itertools import pairwise

import pytest

from experiments.config import RunConfig
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.sensitive import with_layers


@pytest.mark.parametrize("name", ["distrifusion", "naive_patch"])
@pytest.mark.fast_cases(1)
def test_a_number_is_that_many_layers(name: str) -> None:
    """The larger number has the layers of the smaller; none is none, all are all."""

    def layers(count: int) -> list[int]:
        cfg = RunConfig(model=model_config("emoji64"), method=METHODS[name].Config(sync_layers=count))
        own: list[int] = with_layers(cfg).method.sync_layers
        assert own == sorted(own) and len(own) == count
        return own

    found = [layers(count) for count in (0, 1, 2, 7, 12)]
    assert found[0] == [] and found[-1] == [*range(12)]
    assert all({*few} < {*more} for few, more in pairwise(found))


def test_a_list_stays() -> None:
    cfg = RunConfig(
        model=model_config("pixart_tiny"), method=METHODS["distrifusion"].Config(sync_layers=[3, 1])
    )
    assert with_layers(cfg) is cfg
