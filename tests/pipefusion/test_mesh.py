import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipefusion.core.mesh import Mesh


def test_axes_of_a_two_axis_mesh():
    mesh = Mesh({"guidance": 2, "pipe": 3})
    assert mesh.size == 6
    assert mesh.axis("pipe", 4).ranks == (3, 4, 5)
    assert mesh.axis("pipe", 4).index == 1
    assert mesh.axis("guidance", 4).ranks == (1, 4)
    assert mesh.axis("guidance", 4).index == 1


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_lines_of_an_axis_partition_the_ranks(sizes):
    mesh = Mesh({f"axis{i}": size for i, size in enumerate(sizes)})
    for name, size in mesh.axes.items():
        lines = {mesh.axis(name, rank).ranks for rank in range(mesh.size)}
        assert sorted(rank for line in lines for rank in line) == list(range(mesh.size))
        assert all(len(line) == size for line in lines)
        assert all(
            mesh.axis(name, rank).ranks[mesh.axis(name, rank).index] == rank for rank in range(mesh.size)
        )


def test_an_axis_that_the_mesh_does_not_have_is_the_rank_alone():
    axis = Mesh({"pipe": 2}).axis("tensor", 1)
    assert (axis.index, axis.size, axis.ranks) == (0, 1, (1,))


def test_a_rank_is_named_with_its_place_where_there_are_several_axes():
    assert Mesh({"cfg": 2, "pipe": 3}).name(5) == "rank 5 (cfg 1, pipe 2)"
    assert Mesh({"pipe": 3}).name(2) == "rank 2"


def test_empty_axis_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Mesh({"pipe": 0})
