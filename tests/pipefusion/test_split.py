"""Splits of layers and rows, over everything hypothesis can think of."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipefusion.core.split import balanced_sizes, ceil_sizes, even_sizes, ranges, split_layers, split_rows


@given(st.integers(1, 200), st.integers(1, 64), st.sampled_from(["ceil", "even"]))
def test_stages_cover_the_layers_in_order(layers, devices, how):
    stages = split_layers(layers, devices, how)
    assert len(stages) == devices
    assert [layer for stage in stages for layer in stage] == list(range(layers))


@given(st.integers(1, 200), st.integers(1, 64))
def test_even_sizes_differ_by_at_most_one(total, parts):
    sizes = even_sizes(total, parts)
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 64), st.data())
def test_patches_cover_the_rows_and_none_is_empty(rows, data):
    patches = data.draw(st.integers(1, rows))
    bands = split_rows(rows, patches)
    assert [row for band in bands for row in band] == list(range(rows))
    assert all(len(band) >= 1 for band in bands)


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.data())
def test_balanced_sizes_are_the_best_there_are(costs, data):
    parts = data.draw(st.integers(1, len(costs)))
    first, last = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))

    def worst(sizes: list[int]) -> int:
        totals = [sum(costs[i] for i in group) for group in ranges(sizes)]
        totals[0] += first
        totals[-1] += last
        return max(totals)

    cuts = combinations(range(1, len(costs)), parts - 1)
    best = min(
        worst([stop - start for start, stop in zip((0, *cut), (*cut, len(costs)), strict=True)])
        for cut in cuts
    )
    assert worst(balanced_sizes(costs, parts, first, last)) == best


def test_published_split_leaves_the_last_stage_empty():
    assert ceil_sizes(28, 8) == [4, 4, 4, 4, 4, 4, 4, 0]
    assert split_layers(48, 4, "even") == [range(12), range(12, 24), range(24, 36), range(36, 48)]


@pytest.mark.parametrize("patches", [0, 17])
def test_rows_cannot_be_cut_finer_than_rows(patches):
    with pytest.raises(ValueError, match=r"allowed: 1\.\.16"):
        split_rows(16, patches)
