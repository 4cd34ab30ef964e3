"""`measure=bandwidth`: crossings of curves whose answer is known, and the study on the small model."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from analysis.predicted.bandwidth import (
    crossings,
    curves,
    fastest,
    flat_from,
    interpolated,
    meeting,
    sentences,
)
from analysis.records.study import load_study
from experiments.command.compose import plan as compose
from experiments.config import from_hydra
from experiments.runner import study_cells
from experiments.session import Session
from experiments.studies.bandwidth import BANDWIDTH, measure
from experiments.studies.scaling import planned_row
from pipefusion.sim.network import TopologyConfig
from tests.experiments.commands import command

SPEEDS = [1.0, 4.0, 16.0, 64.0, 256.0]


def power(coefficient: float, exponent: float) -> list[tuple[float, float]]:
    """A straight line in logarithms: what lies between its points is exact."""
    return [(speed, coefficient * speed**exponent) for speed in SPEEDS]


def test_curves_meet_where_their_powers_are_equal():
    assert meeting(power(20, -0.5), power(2, 0)) == pytest.approx(100)  # 20 / sqrt(B) = 2
    assert meeting(power(20, -1), power(10, -0.5)) == pytest.approx(4)  # at a point of both
    assert meeting(power(1, 0), power(2, 0)) is None
    assert interpolated(power(20, -0.5), 100) == pytest.approx(2)


def test_a_curve_is_flat_from_where_it_is_a_tenth_above_its_last_point():
    assert flat_from(power(3, 0)) is None
    assert flat_from(power(16, -0.5)) == pytest.approx(256 / 1.1**2)


def made(
    method: str, curve: list[tuple[float, float]], patches: int | None = None
) -> list[dict[str, object]]:
    keys = {"method": method, "patches": patches, "status": "ok"}
    return [keys | {"bandwidth": speed, "predicted_latency_s": seconds} for speed, seconds in curve]


def test_crossings_are_of_the_fastest_patches():
    rows = pd.DataFrame(
        [
            *made("pipefusion", power(2, 0), 4),
            *made("pipefusion", power(9, 0), 8),
            *made("ulysses", power(20, -0.5)),
            *made("tensor", power(9, 0)),
        ]
    )
    assert (fastest(rows).groupby("method").size() == len(SPEEDS)).all() and curves(rows)[
        "pipefusion"
    ] == power(2, 0)
    found = crossings(rows).set_index("method")
    assert found.leaves["ulysses"] == pytest.approx(256 / 1.1**2) and pd.isna(found.leaves["tensor"])
    assert found.meets["ulysses"] == pytest.approx(100) and pd.isna(found.meets["tensor"])
    lines = {line.partition(":")[0]: line for line in sentences(crossings(rows))}
    assert "faster than PipeFusion only above 100 GB/s" in lines["Ulysses"]
    assert "slower than PipeFusion at every bandwidth" in lines["Tensor parallel"]
    assert lines["PipeFusion"].startswith("PipeFusion: flat (2.00 s at 256 GB/s, 2.00 at 1)")


def test_one_bandwidth_has_no_crossing_and_nothing_that_fits_is_said():
    (line,) = sentences(crossings(pd.DataFrame(made("ulysses", [(4.0, 2.5)]))))
    assert line == "Ulysses: 2.50 s at 4 GB/s."
    short = pd.DataFrame(made("ulysses", power(2, 0))).assign(status="oom")
    assert [*sentences(crossings(short))] == ["Nothing fits, whatever the links."]


def test_faster_links_are_never_slower_and_move_the_same_bytes(tmp_path, monkeypatch, capsys):
    keys = ["experiment=bandwidth", "model=pixart_tiny", "cluster=l40_pcie", "model.resolution=64", "steps=3"]
    keys += ["devices=4", "measure.bandwidths=[0.001,1,900]", "measure.methods=[ulysses,pipefusion]"]
    keys += [
        "measure.patches=[2]",
        "measure.workers=1",
        "log.wandb.mode=disabled",
        f"hydra.run.dir={tmp_path}",
    ]
    assert command(monkeypatch, *keys) == 0
    record = load_study(tmp_path)
    for _, part in record.rows.groupby("method"):
        slow, middle, fast = part.sort_values("bandwidth").predicted_latency_s
        assert slow > middle >= fast
        assert part.sent_bytes.nunique() == part.peak_bytes.nunique() == 1
    assert record.facts["links"]["nvlink4"] == 450
    assert "GB/s" in capsys.readouterr().out


def test_a_programs_time_on_another_link_is_that_of_a_plan_there():
    keys = ["measure=bandwidth", "model=pixart_tiny", "cluster=l40_pcie", "model.resolution=32", "steps=3"]
    cfg = from_hydra(
        compose([*keys, "devices=2", "measure.bandwidths=[0.01,5]", "measure.methods=[ring]"]).jobs[0]
    )
    session = Session()
    (cell,) = study_cells(BANDWIDTH, cfg, session)
    found = [row["predicted_latency_s"] for row in measure(cell, session)]
    for speed, seconds in zip(cfg.measure.bandwidths, found, strict=True):
        port = replace(cell.cfg.cluster.topology.port, bandwidth=speed * 1e9)
        cluster = replace(cell.cfg.cluster, topology=TopologyConfig(2, port))
        assert planned_row(replace(cell.cfg, cluster=cluster), session)["predicted_latency_s"] == seconds


def test_a_bandwidth_of_nothing_is_refused(monkeypatch, capsys):
    assert command(monkeypatch, "experiment=bandwidth", "measure.bandwidths=[0]") == 2
    assert "measure.bandwidths.0=0.0 is too small" in capsys.readouterr().err
