"""Plans, read: fronts, crossovers and the answer in words, on made-up rows whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.predicted import known, planning
from analysis.presentation.columns import GIB, typed
from analysis.records.committed import QUALITY
from analysis.records.study import load_study

RESULTS = Path(__file__).resolve().parents[3] / "results"


def row(method: str, parallel: str, latency_s: float | None, gib: float, **more: Any) -> dict[str, Any]:
    """A setting of a request; without seconds it does not fit."""
    exact = method != "pipefusion"
    return {
        "height": 1024, "width": 1024, "asked": 8, "steps": 20, "images": 1, "front": True, "devices": 8,
        "method": method, "parallel": parallel, "patches": None if exact else 4, "warmup": None if exact else 1,
        "exact": exact, "cluster": "l40_pcie", "status": "ok" if latency_s else "oom",
        "predicted_latency_s": latency_s, "peak_bytes": int(gib * GIB), "missing_bytes": GIB,
        "kernels_s": latency_s and 0.75 * latency_s, "exchange_s": latency_s and 0.25 * latency_s,
        "bubble_s": 0.0, "host_s": 0.0, "low_s": latency_s and 0.9 * latency_s, "high_s": latency_s and 1.1 * latency_s,
        "relative_error": 0.0 if exact else 0.02, "text_encoder_bytes": None, "vae_bytes": None,
    } | more  # fmt: skip


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return typed(pd.DataFrame(rows))


def test_the_front_has_what_nothing_is_better_than_in_every_respect():
    rows = frame(
        row("ulysses", "ulysses 8", 2.0, 8.0),
        row("pipefusion", "pipe 8", 2.5, 1.0),
        row("ring", "ring 8", 3.0, 8.0),  # slower than Ulysses, no leaner
        row("tensor", "tensor 8", 4.0, 1.0),  # as lean as PipeFusion, and exact
        row("pipefusion", "cfg 2 x pipe 4", 5.0, 0.5, relative_error=None),  # leaner
        row("pipefusion", "ring 2 x pipe 4", 6.0, 0.5, relative_error=None),
        row("tensor", "tensor 4", None, 0.1),
    )
    assert [one["parallel"] for one in planning.front(rows)] == [
        "ulysses 8",
        "pipe 8",
        "tensor 8",
        "cfg 2 x pipe 4",
    ]


def test_crossovers_tell_where_another_product_wins():
    other = {"steps": 40, "front": False}
    rows = frame(
        row("ulysses", "ulysses 8", 2.0, 8.0),
        row("pipefusion", "pipe 8", 3.0, 1.0),
        row("ulysses", "ulysses 8", 4.0, 8.0, **other),
        row("pipefusion", "pipe 8", 3.2, 1.0, **other),
        row("ulysses", "ulysses 8", None, 90.0, images=4, front=False),
    )
    first, second, third = planning.crossovers(rows).to_dict("records")
    assert (first["wins"], first["changes"], first["behind"]) == (
        "exact, ulysses 8",
        False,
        pytest.approx(0.5),
    )
    assert (second["wins"], second["changes"]) == ("PipeFusion, pipe 8, M = 4", True)
    assert (second["exact_wins"], second["exact_behind"]) == ("exact, ulysses 8", pytest.approx(0.25))
    assert (third["wins"], third["changes"]) == ("nothing fits", True)
    text = planning.answers(rows)
    assert "What would change it: 1024 px, N = 8, S = 40, 1 image: PipeFusion, pipe 8, M = 4;" in text


def test_a_request_that_does_not_fit_is_changed_by_one_that_does():
    other = {"steps": 40, "front": False}
    rows = frame(row("ring", "ring 8", None, 99.0), row("ulysses", "ulysses 8", 4.0, 8.0, **other))
    assert [*planning.crossovers(rows).changes] == [False, True]
    assert "S = 40, 1 image: exact, ulysses 8." in planning.answers(rows)


def test_what_cannot_be_run_is_not_what_does_not_fit():
    why = {"status": "skipped", "reason": "devices=8 does not divide the 12 heads", "missing_bytes": None}
    rows = frame(row("ulysses", "ulysses 8", None, 1.0)).assign(**why)
    assert planning.answers(rows).endswith("no setting can be run: devices=8 does not divide the 12 heads.")


@pytest.mark.parametrize(
    ("parallel", "method"),
    [
        ("ring 2 x tensor 2", "tensor"),
        ("pipe 2 x tensor 2", "sync_pipeline"),
        ("cfg 2 x ring 2 x ulysses 2", "ulysses"),
        ("data 2 x cfg 2", "serial"),
    ],
)
def test_an_exact_product_has_the_errors_of_its_axes_whatever_made_it(parallel, method):
    for name in ("ring", "tensor"):
        assert known.family({"exact": True, "method": name, "parallel": parallel}) == method
    assert known.family({"exact": False, "method": "pcpp", "parallel": parallel}) == "pcpp"
    made_by = [known.beside(frame(row(name, parallel, 2.0, 1.0)), RESULTS) for name in ("ring", "tensor")]
    assert made_by[0].low_s.item() == made_by[1].low_s.item() < 2.0


def test_the_answer_says_who_wins_why_and_by_how_much():
    serial = row("serial", "1 device", 9.0, 60.0, devices=1)
    near = frame(row("ulysses", "ulysses 8", 2.0, 8.0), row("pipefusion", "pipe 8", 2.1, 1.0), serial)
    text = planning.answers(near)
    assert text.startswith(
        "1024 px, N = 8, S = 20, 1 image: exact, ulysses 8 is predicted to be the fastest: 2.00 s"
    )
    assert "75.0 % computing, 25.0 % exchange" in text and "bubble" not in text
    assert (
        "5.0 % slower (0.075 s more for computing), the intervals overlap" in text
        and "1.0 GiB per device" in text
    )
    far = frame(row("ulysses", "ulysses 8", 2.0, 8.0), row("pipefusion", "pipe 8", 4.0, 9.0))
    assert "the intervals are apart" in planning.answers(far) and "Least memory" not in planning.answers(far)
    stale = planning.answers(frame(row("pipefusion", "pipe 8", 1.0, 1.0), row("ring", "ring 8", 2.0, 2.0)))
    assert "It is not exact (latents 2.0e-02 from serial's); the fastest that is: exact, ring 8" in stale
    whole = row("ring", "ring 8", 2.0, 8.0, text_encoder_bytes=4 * GIB, vae_bytes=GIB)
    assert "8.0 GiB per device (13.0 with text encoders and VAE)." in planning.answers(frame(whole))
    assert planning.answers(frame(row("ring", "ring 8", None, 99.0))).endswith(
        "is short of 1.0 GiB per device."
    )


def test_distances_are_those_of_the_quality_record():
    recorded, rows = known.distances(RESULTS), load_study(RESULTS / QUALITY).rows
    rows = rows[(rows.metric == "latent_error") & (rows.steps == 20) & (rows.guidance_scale == 2.0)]
    (two,) = rows[(rows.method == "pipefusion") & (rows.patches == 2) & (rows.scheduler == "shipped")].value
    (band,) = rows[
        (rows.method == "distrifusion") & (rows.devices == 8) & (rows.scheduler == "shipped")
    ].value
    assert recorded["pipefusion", 2, 1] == two and recorded["distrifusion", 8, 1] == band
    assert recorded["pipefusion", 1, 1] == 0 and ("pipefusion", 32, 1) not in recorded
