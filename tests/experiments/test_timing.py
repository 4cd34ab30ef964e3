"""Samples of many calls: how many, against a clock that is made up, and what is in them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from experiments import timing
from experiments.calibration import profiles
from experiments.timing import MOST_CALLS, SAMPLE_S, copies, elapsed_on, timed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("seconds", "calls"), [(5e-6, 2048), (SAMPLE_S / 4, 4), (SAMPLE_S / 3, 4), (1.0, 1), (0.0, MOST_CALLS)]
)
def test_a_sample_is_as_many_calls_as_fill_it(seconds, calls):
    asked: list[int] = []

    def elapsed(call, number):
        asked.append(number)
        return number * seconds

    found = timed(lambda: None, 5, elapsed)
    assert (found.calls, found.seconds) == (calls, pytest.approx(seconds))
    assert found.samples_s == [calls * seconds] * 5
    assert asked[0] == 2 and asked[-5:] == [calls] * 5  # the first calls are not counted


def test_the_median_of_samples_counts():
    times = iter([0.0, SAMPLE_S, 3.0, 1.0, 2.0])
    assert timed(lambda: None, 3, lambda call, calls: next(times)).seconds == 2.0


def test_every_call_is_made():
    made = []
    assert elapsed_on(CPU)(lambda: made.append(1), 7) >= 0
    assert len(made) == 7


@pytest.mark.parametrize(("one", "cache", "number"), [(10, 0, 1), (1000, 10, 1), (10, 10, 4), (9, 10, 5)])
def test_working_sets_reach_beyond_the_cache(one, cache, number):
    assert copies(one, cache) == number
    assert number == 1 or number * one >= timing.BEYOND_CACHE * cache > (number - 1) * one


def test_rates_are_work_over_seconds(monkeypatch):
    """With a clock of one second a call a rate is the work itself: of four images where one fills the cache."""
    tokens, hidden = 16, 8
    monkeypatch.setattr(profiles, "cache_bytes", lambda device: 2 * tokens * hidden * 4)
    found, how = profiles.device_profile(CPU, tokens, hidden, 2, 3, lambda call, calls: float(calls))
    image = tokens * hidden
    # cache: 2 images of float32. Products move 3 images (read 1, write 2), attention 4, elementwise 2.
    assert found["matmul_flops_32"] == 4 * 3 * image * hidden
    assert found["matmul_flops_16"] == 4 * 6 * image * hidden
    assert found["attention_flops_32"] == 4 * 2 * tokens * image
    assert found["attention_flops_16"] == 4 * 4 * tokens * image
    assert found["bandwidth"] == 2 * 4 * 4 * image
    for name, one in how["timings"].items():
        assert one["working_set_bytes"] >= 4 * how["cache_bytes"], name
        assert (one["calls"], one["samples_s"]) == (1, [1.0] * 3)


class TwoRanks:
    """Two ranks' calls of torch.distributed, in the order each makes them."""

    def __init__(self, rank):
        self.rank, self.calls = rank, []

    def get_rank(self):
        return self.rank

    def __getattr__(self, name):
        def call(buffer, peer):
            self.calls.append((name.removeprefix("i"), peer))
            return self

        return call

    def wait(self):
        return None


@pytest.mark.parametrize("program", ["ping", "call_seconds"])
def test_no_two_ranks_send_first(program, monkeypatch):
    made = []
    for rank in (0, 1):
        group = TwoRanks(rank)
        monkeypatch.setattr(timing, "dist", group)
        monkeypatch.setattr(profiles, "dist", group)
        if program == "ping":
            timing.ping(0, 1, 64, CPU)()
        else:
            profiles.call_seconds(CPU, 3)
        made.append([name for name, _ in group.calls])
    assert len(made[0]) == len(made[1]) > 0
    assert all({*pair} == {"send", "recv"} for pair in zip(*made, strict=True))
    assert Counter(made[0])["send"] == Counter(made[0])["recv"]  # both directions
