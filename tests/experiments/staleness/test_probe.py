"""What the probe finds against the closed forms of section 3 of the paper, and what it refuses to measure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from experiments.staleness.probe import ABSENT, NEVER, HollowView, Seen
from experiments.staleness.traced import Marked, TracedView
from pipefusion.core.dit import Given, Tokens
from pipefusion.core.split import split_rows
from tests.experiments.staleness.cases import SESSION, STEPS, case, seen, shape

ROWS = 8


def bands(found: Sequence[Seen], step: int) -> list[Seen]:
    """Of layer 0 in a step, by row."""
    chosen = [one for one in found if one.place.step == step and one.place.layer == 0]
    return sorted(chosen, key=lambda one: one.place.rows.start)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("patches", [1, 3, 4, 8])
@pytest.mark.fast_cases(4)
def test_pipefusion_sees_patches_up_to_its_own_fresh_and_the_rest_one_step_old(devices, patches):
    found = seen(case("pipefusion", devices, patches=patches, warmup=1))
    rows = split_rows(ROWS, patches)
    assert [one.place.rows for one in bands(found, 0)] == [range(ROWS)]
    for step in range(1, STEPS):
        jobs = bands(found, step)
        assert [one.place.rows for one in jobs] == rows
        for patch, one in enumerate(jobs):
            fresh = ROWS * rows[patch].stop  # tokens: 8 columns
            assert one.ages == [fresh, 64 - fresh] + [0] * (STEPS - 2)
            if patches in (1, 4, 8):
                assert one.ages[0] == 64 * (patch + 1) // patches
            assert one.origins == (step,) * rows[patch].stop + (step - 1,) * (ROWS - rows[patch].stop)
    every = {(one.place.step, one.place.rows, one.place.layer): tuple(one.ages) for one in found}
    layers = len({layer for _, _, layer in every})
    assert layers == 4 and len(every) == len(found), "each layer is on one device"
    for step, band, layer in every:
        assert every[step, band, layer] == every[step, band, 0], "layers see the same"


def test_pipefusion_without_warm_up_sees_zeros_in_the_first_step_only():
    found = seen(case("pipefusion", 2, patches=4, warmup=0))
    for patch, one in enumerate(bands(found, 0)):
        assert one.never == 64 - 16 * (patch + 1)
        assert one.origins == (0,) * 2 * (patch + 1) + (NEVER,) * 2 * (3 - patch)
    assert not any(one.never for one in found if one.place.step)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_distrifusion_sees_its_own_band_fresh_and_the_rest_one_step_old(devices):
    found = seen(case("distrifusion", devices, warmup=2))
    for one in found:
        fresh = 64 if one.place.step < 2 else 64 // devices
        assert one.ages[:2] == [fresh, 64 - fresh] and one.never == 0
    first = [one for one in seen(case("distrifusion", devices, warmup=0)) if one.place.step == 0]
    assert len(first) == 4 * devices
    assert all(one.never == 64 - 64 // devices for one in first)


def test_naive_patch_sees_the_last_synchronous_step_for_ever():
    for one in seen(case("naive_patch", 4, warmup=2)):
        step = one.place.step
        others = step if step < 2 else 1
        assert one.origins == tuple(step if row in one.place.rows else others for row in range(ROWS))
    assert all(one.never == 48 and one.ages[0] == 16 for one in seen(case("naive_patch", 4, warmup=0)))


def test_pcpp_sees_half_of_the_bands_next_to_its_own_one_step_old_and_no_other():
    for one in seen(case("pcpp", 4, warmup=1)):
        step, rows = one.place.step, one.place.rows
        near = range(rows.start - 1, rows.stop + 1)  # bands of two rows
        stale = [step if row in rows else step - 1 if row in near else ABSENT for row in range(ROWS)]
        assert one.origins == (tuple(stale) if step else (0,) * ROWS) and one.never == 0
    first = [one for one in seen(case("pcpp", 4, warmup=0)) if one.place.step == 0]
    assert {(one.place.rows.start, one.tokens, one.never) for one in first} == {
        (0, 24, 8), (2, 32, 16), (4, 32, 16), (6, 24, 8)
    }  # fmt: skip


@pytest.mark.parametrize("name", ["sd3_tiny", "flux_tiny"])
def test_the_tokens_of_the_prompt_are_not_counted(name):
    tokens = shape(name).tokens
    assert shape(name).joint_tokens
    for patch, one in enumerate(bands(seen(case("pipefusion", 1, patches=4, warmup=1, model=name)), 2)):
        fresh = tokens * (patch + 1) // 4
        assert one.ages[:2] == [fresh, tokens - fresh]


def test_jobs_are_numbered_in_the_order_that_a_rank_does_them():
    found = seen(case("pipefusion", 2, patches=4, warmup=1))
    for rank in range(2):
        mine = [one for one in found if one.place.rank == rank]
        jobs = dict.fromkeys((one.job, one.place.step, one.place.rows) for one in mine)
        assert [job for job, _, _ in jobs] == [*range(1 + 4 * (STEPS - 1))]


def test_attention_that_is_no_plain_mean_is_an_error():
    cfg = case("serial")
    view = HollowView(SESSION.view(cfg.model), torch.arange(STEPS), 0, cfg, [])
    rows, tokens = range(8), Tokens(torch.zeros(2, 64, shape().hidden))
    given = Given(None, Marked(1, None), Marked(rows, None), {}, range(0))

    def attend(factor: float):
        return lambda layer, q, k, v, prefix=0: factor * v.mean(1, keepdim=True).expand_as(q)

    view.block(0, tokens, given, attend(1))
    assert view.seen[0].ages[0] == 64
    for factor in (0.3, 2):
        with pytest.raises(ValueError, match="not the mean"):
            view.block(0, tokens, given, attend(factor))


def test_equal_timesteps_are_refused():
    with pytest.raises(ValueError, match="repeat"):
        TracedView(SESSION.view(case("serial").model), torch.tensor([9, 5, 5]), 0)
