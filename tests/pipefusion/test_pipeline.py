"""The order of jobs, and what PipeFusion attends to, by counting."""

from hypothesis import given
from hypothesis import strategies as st

from pipefusion.core.jobs import make_jobs
from pipefusion.core.split import split_rows


@given(st.integers(1, 12), st.integers(1, 16), st.data())
def test_every_patch_of_every_step_is_done_once_and_in_order(steps, patches, data):
    warmup = data.draw(st.integers(0, steps))
    bands = split_rows(16, patches)
    jobs = make_jobs(steps, warmup, bands)
    done = [(job.step, patch) for job in jobs for patch in job.patches]
    assert done == [(step, patch) for step in range(steps) for patch in range(patches)]
    assert len(jobs) == warmup + (steps - warmup) * patches
    assert all(job.rows == range(bands[job.patches[0]].start, bands[job.patches[-1]].stop) for job in jobs)


def test_the_whole_image_has_no_patch_number_in_the_ledger():
    warm, stale = make_jobs(2, 1, split_rows(4, 2))[0], make_jobs(2, 1, split_rows(4, 2))[2]
    assert warm.at == (0, -1, -1)
    assert stale.at == (1, -1, 1)
