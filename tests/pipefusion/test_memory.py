"""The peak tracker against sizes known by hand."""

import torch

from pipefusion.core.memory import PeakTracker


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
