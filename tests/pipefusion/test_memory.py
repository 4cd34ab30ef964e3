"""The peak tracker against sizes known by hand."""

from dataclasses import fields

import pytest
import torch

from experiments.methods import METHODS
from pipefusion.core import attention
from pipefusion.core.memory import PeakTracker, sampling_peak
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.plan import META
from tests.cases import Case, case_model, case_scheduler, case_view, inputs
from tests.sampling import planned


def program(device: str) -> None:
    a = torch.empty(1000, dtype=torch.float32, device=device)  # 4000 alive
    b = a + 1  # 8000 alive
    c = b.view(10, 100)[2:]  # a view holds no bytes of its own
    del a, b  # 4000 alive: c keeps b's storage
    d = c * 2  # 7200 alive
    del c, d
    torch.empty(100, dtype=torch.float64, device=device)


def test_peak_is_the_largest_sum_of_live_storages():
    for device in ("cpu", "meta"):
        with PeakTracker() as tracker:
            program(device)
        assert tracker.peak_bytes == 8000
        assert tracker.live_bytes == 0


def test_what_is_held_before_counts_and_what_is_ignored_does_not():
    held, ignored = torch.zeros(25), torch.zeros(1000)
    with PeakTracker([held], [ignored]) as tracker:
        out = held + ignored[:25]
        ignored.add_(1)
    assert tracker.peak_bytes == 100 + out.nbytes


def test_tensors_of_the_host_are_no_load_of_the_device():
    with PeakTracker(device_type="meta") as tracker:
        torch.empty(25, device="meta").mul_(torch.ones(1000)[0] + 1)
    assert tracker.peak_bytes == 100


@pytest.mark.parametrize("kernel", ["flash", "efficient"])
@pytest.mark.parametrize("name", ["serial", "pipefusion", "ring", "distrifusion"])
@pytest.mark.fast_cases(3)
def test_kernels_of_cuda_hold_no_more_than_a_float_a_score_row_above_the_plan(monkeypatch, name, kernel):
    """Their log-sum-exp, of queries in blocks of 32, and the state of their random numbers."""
    keys = {key.name for key in fields(METHODS[name].Config)}
    method = {key: value for key, value in {"patches": 3, "warmup": 1}.items() if key in keys}
    case = Case(
        name, method, steps=2, architecture={"num_attention_heads": 6, "attention_head_dim": 8}, guidance=4.5
    )
    devices = 1 if name == "serial" else 2
    model, module = case_model(case), METHODS[name]
    cfg, noise_and_cond = module.Config(**case.method), inputs(case, model)
    noise, cond = (part.to(META) for part in noise_and_cond)
    plans = planned(case, devices)
    monkeypatch.setattr(attention, "pick_kernel", lambda device, dtype: kernel)
    for rank, plan in enumerate(plans):
        dit, scheduler = case_view(case), case_scheduler(case)
        sampler = module.build(dit, SilentFabric(module.parallel(devices).mesh(), rank, META), cfg)
        with torch.inference_mode():
            peak = sampling_peak(sampler, dit.model, scheduler, noise, cond)
        rows = 2 * model.shape.heads * (model.shape.tokens + 31)
        more = peak - plan.meter.peak_bytes
        assert 0 <= more <= 4 * rows + 64
        assert (more > 0) == (name == "distrifusion")  # the others' peaks are elsewhere
