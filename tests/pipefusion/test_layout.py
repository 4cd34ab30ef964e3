"""Which part of a model and of an image each rank computes: the order of jobs, shares of patches, slots of buffers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipefusion.core.grid import ranges_in
from pipefusion.core.layout import Layout, make_layout
from pipefusion.core.ledger import Where
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import BlockShape, DiTShape

SHAPE = DiTShape(4, 8, 8, 24, 2, 2, 1, 1, (BlockShape(0, 0, 0, 0, 0),) * 8, 0, 0, (), ())


def layouts(parallel: Parallel, patches: int = 1, shape: DiTShape = SHAPE) -> list[Layout]:
    """The layout of every rank."""
    mesh = parallel.mesh()
    return [
        make_layout(shape, lambda name, rank=rank: mesh.axis(name, rank), patches)
        for rank in range(mesh.size)
    ]


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2]), st.data())
def test_every_patch_of_every_step_is_done_once_and_in_order(steps, patches, lanes, data):
    warmup = data.draw(st.integers(0, steps))
    for layout in layouts(Parallel(ulysses=lanes), patches):
        jobs = layout.jobs(steps, warmup)
        done = [(job.step, patch) for job in jobs for patch in job.patches]
        assert done == [(step, patch) for step in range(steps) for patch in range(patches)]
        assert len(jobs) == warmup + (steps - warmup) * patches
        assert all(len(job.rows) * 2 == job.tokens for job in jobs)


@given(st.integers(2, 8), st.integers(2, 12), st.integers(1, 5), st.integers(1, 3))
def test_stages_in_rotation_are_always_busy(stages, patches, steps, warmup):
    """All are in the same step at the same place of it: job k of a stage reads what job k - 1 of the one before made.

    One input a step has not come, and the latents come back in the order in which the first stage posts them.
    """
    warmup = min(warmup, steps)
    found = [layout.jobs(steps, warmup, None, True) for layout in layouts(Parallel(pipe=stages), patches)]
    for before, jobs in pairwise(found):
        assert {(job.step, *job.patches) for job in before} == {(job.step, *job.patches) for job in jobs}
        assert [job.step for job in before] == [job.step for job in jobs]
        messages = dict.fromkeys(job.origin for job in jobs)  # in the order of their first use
        assert [*messages] == [job.at for job in before if job.read]
        for k, job in enumerate(jobs[warmup:], warmup):
            assert job.origin == before[k - 1].at and job.late == ((k - warmup) % patches == 0)
    assert [job.returned for job in found[0]] == [job.patches for job in found[-1]]


@pytest.mark.parametrize(("stages", "patches"), [(2, 2), (4, 4), (4, 2), (8, 3), (3, 8)])
def test_age_of_the_latents_behind_a_prediction_in_rotation(stages, patches):
    """floor((m + N - 1) / M) steps for patch m: none of the first M - N + 1, at most one where M >= N."""
    jobs = [layout.jobs(9, 1, None, True) for layout in layouts(Parallel(pipe=stages), patches)]
    for m in range(patches):
        at = Where(8, -1, m)
        for own in reversed(jobs[1:]):
            at = next(job.origin for job in own if job.at == at)
        assert 8 - at.step == (m + stages - 1) // patches


def test_the_whole_image_has_no_patch_number_in_the_ledger():
    warm, _, stale = layouts(Parallel(), 2)[0].jobs(2, 1)
    assert (warm.at, stale.at) == (Where(0), Where(1, patch=1))


PRODUCTS = [
    (Parallel(ulysses=2, ring=3), 4),
    (Parallel(patch=2, ulysses=2), 1),
    (Parallel(patch=3, ring=2, ulysses=2), 1),
    (Parallel(pipe=4, ring=2), 5),
    (Parallel(cfg=2, data=2, pipe=2, ulysses=2, tensor=2), 3),
]


@pytest.mark.parametrize(("parallel", "patches"), PRODUCTS)
def test_ranks_of_a_stage_share_all_rows_once(parallel: Parallel, patches: int) -> None:
    """And ranks that differ in other axes have the same."""
    found = layouts(parallel, patches)
    rows = [row for band in found[0].bands for part in ranges_in(band) for row in part]
    assert sorted(rows) == list(range(24))
    mesh = parallel.mesh()
    for rank, layout in enumerate(found):
        places = [mesh.axis(name, rank).index for name in ("patch", "ring", "ulysses")]
        number = (places[0] * parallel.ring + places[1]) * parallel.ulysses + places[2]
        own = [row for part in layout.shares for row in part]
        assert own == [row for part in ranges_in(layout.bands[number]) for row in part]
        assert layout.stage == mesh.axis("pipe", rank).index


@pytest.mark.parametrize("tokens", [0, 1, 7, 8])
@pytest.mark.parametrize("parallel", [Parallel(ulysses=5), Parallel(pipe=2, ring=2, ulysses=4, tensor=2)])
def test_ulysses_ranks_share_the_prompt_and_ring_ranks_have_it_whole(parallel: Parallel, tokens: int) -> None:
    shape = replace(SHAPE, token_rows=40, joint=True, prompt=(("prompt_embeds", (tokens, 1)),))
    found, mesh = layouts(parallel, shape=shape), parallel.mesh()
    for rank in range(mesh.size):
        group = [found[other].prompt for other in mesh.axis("ulysses", rank).ranks]
        assert [token for own in group for token in own] == [*range(tokens)]
        assert max(map(len, group)) == -(-tokens // parallel.ulysses)


@pytest.mark.parametrize(("parallel", "patches"), PRODUCTS)
def test_slots_hold_every_token_once_and_a_patch_where_it_was(parallel: Parallel, patches: int) -> None:
    """Filled in a synchronous step, refreshed patch by patch, a buffer has each token in one place, whoever sent it."""
    for layout in layouts(parallel, patches):
        same = [other for other in layouts(parallel, patches) if other.patches == layout.patches]
        by_lane = list({other.shares: other for other in same}.values())
        buffer = torch.full((layout.band_tokens,), -1)
        for job in layout.jobs(2, 1):
            sent = []
            for lane in by_lane:
                tokens = torch.arange(24 * 2)
                sent.append(lane.grid.take_tokens(tokens, lane.jobs(2, 1)[0].rows)[job.own])
            arrived, start = torch.cat(sent), 0
            before = buffer.clone()
            for slot in layout.slots(job, layout.lanes):
                buffer[slot] = arrived[start : (start := start + slot.stop - slot.start)]
            assert start == len(arrived)
            if job.step:
                assert torch.equal(buffer, before)  # the very same places as in the synchronous step
        assert len(set(buffer.tolist())) == layout.band_tokens
        assert min(buffer.tolist()) >= 0


def test_patches_are_cut_in_units_of_what_shares_them():
    layout = layouts(Parallel(ring=2, ulysses=2), 4)[3]
    assert [len(patch) for patch in layout.patches] == [8, 8, 4, 4]
    assert [list(share) for share in layout.shares] == [[6, 7], [14, 15], [19], [23]]
    with pytest.raises(ValueError, match=r"7 patches of multiples of 4 of 24 token rows; allowed: 1\.\.6"):
        layouts(Parallel(ring=2, ulysses=2), 7)
    with pytest.raises(ValueError, match="evenly"):
        layouts(Parallel(patch=4, ulysses=2), shape=replace(SHAPE, token_rows=28))
