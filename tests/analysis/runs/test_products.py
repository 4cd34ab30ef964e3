"""Places on a mesh, and what a rank has of a product."""

import pytest

from analysis.runs import mesh, products
from pipefusion.core.parallel import AXES, Parallel


@pytest.mark.parametrize("given", [Parallel(cfg=2, pipe=3, ulysses=2), Parallel(pipe=2, ring=2, tensor=2)])
def test_places_and_groups_are_those_of_the_mesh(given: Parallel) -> None:
    core = given.mesh()
    for rank in range(given.world):
        found = mesh.place(given.axes, rank)
        assert found == {axis: core.axis(axis, rank).index for axis in given.axes}
        for axis in given.axes:
            assert [*core.axis(axis, rank).ranks] in mesh.groups(given.axes, axis)


def test_axes_are_those_of_the_core() -> None:
    assert products.AXES == AXES


@pytest.mark.parametrize(
    ("degrees", "rank", "own"),
    [
        ({"cfg": 2, "pipe": 2}, 1, [{2, 3}, {0, 1, 2}, {0}, {0}]),
        ({"pipe": 2, "ulysses": 2}, 1, [{2, 3}, {1, 3, 5}, {1}, {0, 1}]),
        ({"pipe": 2, "ring": 2}, 1, [{2, 3}, {1, 3, 5}, {0}, {0, 1}]),
        ({"pipe": 2, "tensor": 2}, 1, [{2, 3}, {0, 1, 2}, {1}, {0, 1}]),
    ],
)
def test_what_a_rank_has(degrees: dict[str, int], rank: int, own: list[set[int]]) -> None:
    """Ring and Ulysses share tokens, Ulysses and tensor heads, cfg the branches."""
    assert [part.own for part in mesh.parts(degrees, rank, [2, 3], 4, 3)] == own


@pytest.mark.parametrize(("text", "layers"), [("3-5", [3, 4, 5]), ("3", [3]), ("-", [])])
def test_layers_are_read_back(text: str, layers: list[int]) -> None:
    assert mesh.numbers(text) == layers


def test_bytes_by_axis_in_one_cell() -> None:
    row = {f"sent_{axis}_bytes_per_step": float("nan") for axis in AXES}
    assert products.sent(row | {"status": "ok"}) == "0.00"
    assert products.sent(row | {"status": "skipped"}) is None
    row |= {"sent_pipe_bytes_per_step": 2.0**20, "sent_cfg_bytes_per_step": 2.0**19}
    assert products.sent(row | {"status": "ok"}) == "cfg 0.50, pipe 1.00"
