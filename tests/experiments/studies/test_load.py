"""`measure=load`: queues in virtual time against closed forms, and the study on the small model."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.predicted.load import best, sentences
from analysis.records.study import load_study
from experiments.errors import ConfigError
from experiments.studies.queue import latencies, poisson, read_trace
from tests.experiments.commands import command

KEYS = [
    "experiment=load",
    "model=pixart_tiny",
    "model.resolution=32",
    "cluster=l40_pcie",
    "log.wandb.mode=disabled",
]
KEYS += ["steps=2", "devices=2", "measure.workers=1", "measure.methods=[serial,tensor]"]


def test_requests_join_the_queue_that_is_empty_first():
    assert latencies([0.0, 0.0, 1.0], 2.0, 1).tolist() == [2.0, 4.0, 5.0]
    assert latencies([0.0, 0.0, 1.0], 2.0, 2).tolist() == [2.0, 2.0, 3.0]
    assert latencies([0.0, 0.0, 1.0], 2.0, 3).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_replica_has_the_mean_wait_of_md1(busy):
    service_s = 2.0
    rate = busy / service_s
    waits = latencies(poisson(200_000, seed=1) / rate, service_s, 1) - service_s
    assert waits.mean() == pytest.approx(busy * service_s / (2 * (1 - busy)), rel=0.03)


def test_more_replicas_wait_less_than_one_as_busy():
    """Pooling: the same share of time busy, and less wait."""
    arrivals = poisson(20_000, seed=0)
    one, four = latencies(arrivals / 0.4, 2.0, 1).mean(), latencies(arrivals / 1.6, 2.0, 4).mean()
    assert 2.0 < four < one


def test_arrivals_are_those_of_their_seed_at_the_rate():
    assert poisson(1000, 3).tolist() == poisson(1000, 3).tolist() != poisson(1000, 4).tolist()
    assert np.diff(poisson(100_000, 0)).mean() == pytest.approx(1, rel=0.02)


def test_every_cut_of_the_devices_serves_every_rate_or_says_that_it_is_saturated(
    tmp_path, monkeypatch, capsys
):
    keys = [*KEYS, "measure.loads=[0.2,1.5]", "measure.requests=400", f"hydra.run.dir={tmp_path}"]
    assert command(monkeypatch, *keys) == 0
    rows = load_study(tmp_path).rows
    assert sorted(zip(rows.replicas, rows.devices, strict=True)) == [(1, 2), (1, 2), (2, 1), (2, 1)]
    ran, rest = rows[rows.status == "ok"], rows[rows.status == "skipped"]
    assert len(ran) == 2 and (rest.busy >= 1).all() and rest.reason.str.startswith("saturated").all()
    assert (
        (ran.p50_s <= ran.p95_s) & (ran.p95_s <= ran.p99_s) & (ran.p50_s >= ran.service_s * (1 - 1e-9))
    ).all()
    assert (ran.requests == 360).all() and ran.in_time.between(0, 1).all()
    assert best(rows).p95_s.tolist() == [ran.p95_s.min()]
    text = capsys.readouterr().out
    assert "the least p95 is that of" in text and "PREDICTED" in text


def test_a_trace_is_served_as_it_is(tmp_path, monkeypatch):
    trace = tmp_path / "arrivals.csv"
    trace.write_text("user,arrival_s\na,1700000005\nb,1700000000\nc,1700000000\n")
    assert read_trace(str(trace)) == [1.7e9, 1.7e9, 1.7e9 + 5]
    assert command(monkeypatch, *KEYS, f"measure.trace={trace}", f"hydra.run.dir={tmp_path / 'run'}") == 0
    rows = load_study(tmp_path / "run").rows.set_index("replicas")
    assert rows.loc[1, "mean_s"] == pytest.approx(4 / 3 * rows.loc[1, "service_s"])  # s, 2 s, s
    assert rows.loc[2, "mean_s"] == pytest.approx(rows.loc[2, "service_s"])
    assert (rows.requests == 3).all() and rows.rate.tolist() == [0.4, 0.4]  # two gaps in 5 s


def test_requests_at_one_moment_have_no_rate(tmp_path, monkeypatch):
    trace = tmp_path / "arrivals.csv"
    trace.write_text("arrival_s\n7\n7\n")
    assert command(monkeypatch, *KEYS, f"measure.trace={trace}", f"hydra.run.dir={tmp_path / 'run'}") == 0
    rows = load_study(tmp_path / "run").rows
    (line,) = sentences(rows)
    assert rows.rate.isna().all() and line.startswith("Of requests at one moment the least p95 is that of ")
    assert " or more" not in line and " to " not in line


@pytest.mark.parametrize(
    "content", ["", "seconds\n1\n", "arrival_s\nsoon\n", "arrival_s\n-1\n", "arrival_s\n", "arrival_s\nnan\n"]
)
def test_what_is_no_trace_is_refused_in_a_line(tmp_path, content):
    trace = tmp_path / "t.csv"
    trace.write_text(content)
    with pytest.raises(
        ConfigError, match=r"^measure\.trace='.*; allowed: a CSV file with a column arrival_s"
    ):
        read_trace(str(trace))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("measure.trace=none.csv", "measure.trace='none.csv' cannot be read"),
        ("measure.replicas=[3]", "measure.replicas=3 does not divide 2 devices"),
        ("measure.deadline_s=0", "measure.deadline_s=0.0 is too small"),
        ("cluster=local", "cluster=local has no costs"),
    ],
)
@pytest.mark.fast_cases(2)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, key, message):
    assert command(monkeypatch, *KEYS, key, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
