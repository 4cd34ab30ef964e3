"""The paper's predicted figures, from made-up records whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.outputs import paper
from analysis.paper import communication, latency, memory, memory_published, overlap, panels
from analysis.predicted import scaling
from analysis.records.committed import LATENCY, OVERLAP, PREDICTIONS
from tests.analysis.synthetic import write_study

GB = 10**9
BYTES = ["peak_bytes", "param_bytes", "kv_bytes", "sent_bytes"]
HEADING = (
    "source,version,hardware,interconnect,model,resolution,steps,n_devices,method,setting,metric,value,unit\n"
)


def row(method: str, seconds: float | None, warmup: int | None = None, **more: Any) -> dict[str, Any]:
    """A predicted point; no seconds: it does not fit."""
    return {
        "model": "pixart_alpha", "steps": 20, "cluster": "l40_pcie", "resolution": 4096, "method": method,
        "devices": 1 if method == "serial" else 8, "patches": None, "warmup": warmup, "split": None,
        "status": "ok" if seconds else "oom", "reason": None, "predicted_latency_s": seconds, "compute_s": seconds,
        "wait_s": 0.0, "peak_bytes": 4 * GB, "param_bytes": GB, "kv_bytes": GB, "sent_bytes": GB, "missing_bytes": 0,
        "fastest": True,
    } | more  # fmt: skip


def published(
    row_id: str, method: str, seconds: float | None, warmup: int | None = None, **more: Any
) -> dict[str, Any]:
    """A published point."""
    return {
        "row_id": row_id, "model": "pixart_alpha", "cluster": "l40_pcie", "resolution": 4096, "method": method,
        "devices": 1 if method == "serial" else 8, "steps": 20, "warmup": warmup, "published_s": seconds,
        "oom": seconds is None, "digitized": False, "flags": [], "duplicate_of": None,
    } | more  # fmt: skip


def record(*rows: dict[str, Any], published: Any = ()) -> dict[str, Any]:
    cluster = {"device": "l40", "room_bytes": 10 * GB, "calibrated_on": ["latency.csv:2"]}
    facts = {
        "models": {"pixart_alpha": {"steps": 20}},
        "clusters": {"l40_pcie": cluster},
        "git_commit": "0123456789abcdef",
    }
    return facts | {"rows": [*rows], "published": [*published]}


@pytest.fixture
def planned() -> dict[str, Any]:
    return record(
        row("serial", 80.0, peak_bytes=4 * GB, kv_bytes=0),
        row("distrifusion", None, 1, peak_bytes=16 * GB, missing_bytes=6 * GB),
        row("pipefusion", 30.0, 1, patches=4),
        row("pipefusion", 20.0, 1, patches=8, compute_s=15.0, peak_bytes=3 * GB),
        row("ring", None, status="skipped", reason="devices: 7 heads", **dict.fromkeys(BYTES)),
        published=[
            published("latency.csv:2", "serial", 90.0),
            published("latency.csv:3", "pipefusion", 25.0, 1),
            published("latency.csv:4", "pipefusion", 35.0, 2),
            published("latency.csv:5", "distrifusion", None, 1),
        ],
    )  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, planned: dict[str, Any]) -> Path:
    """A results folder with what the outputs read."""
    ways = [row("serial", 80.0), row("pipefusion", 82.0, 20), row("pipefusion", 20.5, 1)]
    own = published("latency.csv:4", "pipefusion", 35.0, 2) | {
        "status": "ok",
        "predicted_s": 28.0,
        "patches": 8,
    }
    records = {
        LATENCY: planned,
        PREDICTIONS: {
            "rows": [
                {key: value for key, value in one.items() if key != "oom"} | {"published_oom": one["oom"]}
                for one in (own, published("warmup.csv:3", "pipefusion", 50.0, 3) | {"predicted_s": 1.0})
            ]
        },
        OVERLAP: record(*ways),
    }
    for name, content in records.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_study(tmp_path / name, content)
    (tmp_path / "published").mkdir()
    cell, peak = "s,v,8xL40-48GB,PCIe Gen4x16,PixArt,4096,20,8", "text encoder+DiT,max memory"
    claim = "(T8-T1/8)/T8,communication share"
    (tmp_path / communication.CLAIMS).write_text(
        f"{HEADING}{cell},PipeFusion,{claim},4.6,%\n{cell},SP,{claim},17.9,%\n{cell},SP,other,cost,1,s\n"
    )
    (tmp_path / memory_published.PUBLISHED).write_text(
        f"{HEADING}{cell},Original,{peak},15,GB\n{cell},PipeFusion,{peak},13.5,GB\n"
        f"{cell},DistriFusion,{peak},OOM,GB\n{cell},hybrid(cfg+pp),{peak},12,GB\n"
    )
    return tmp_path


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def bars(axes: Axes) -> list[float]:
    return [patch.get_width() for patch in axes.patches]


def points(axes: Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "None"]


def shown(sheet: Figure) -> list[Axes]:
    return [axes for axes in sheet.axes if axes.axison]


def test_of_every_case_and_w_the_fastest_m_counts_and_serial_stands_beside(planned: dict[str, Any]) -> None:
    table = panels.predicted(planned)
    assert table.method.tolist() == ["serial", "ring", "distrifusion", "pipefusion"]
    piped = table.iloc[-1]
    assert (piped.predicted_latency_s, piped.patches, piped.serial_s) == (20.0, 8, 80.0)
    planned["rows"].append(row("pipefusion", 5.0, 2))
    assert panels.predicted(planned).predicted_latency_s.tolist()[-2:] == [20.0, 5.0]


def test_a_prediction_stands_beside_the_published_number_of_its_own_w(planned: dict[str, Any]) -> None:
    table = latency.joined(planned).set_index("method")
    piped = table.loc["pipefusion"]
    assert (piped.row_id, piped.speedup) == ("latency.csv:3", 4.0)
    assert piped.error == pytest.approx(20 / 25 - 1)
    assert table.loc["serial", "role"] == "calibration" and table.loc["distrifusion", "oom"]


def test_a_printed_w_that_is_not_planned_comes_from_its_own_prediction(results: Path) -> None:
    table = latency.joined(latency.load(results))
    two = table[(table.method == "pipefusion") & (table.warmup == 2)]
    assert two[["predicted_latency_s", "published_s"]].to_numpy().tolist() == [[28.0, 35.0]]
    assert not table.row_id.fillna("").str.startswith("warmup").any()


def test_predicted_latencies_are_dots_beside_perfect_scaling(planned: dict[str, Any]) -> None:
    sheet = latency.figure(planned, "pixart_alpha")
    (axes,) = shown(sheet)
    assert sheet.get_suptitle().startswith("Predicted latency of pixart_alpha on 8 devices")
    assert not axes.patches and "no zero" in axes.get_xlabel()
    assert {80.0, 20.0, 90.0, 25.0} <= set(points(axes))
    assert {"80.0", "20.0 (8)", "OOM", "predicted: OOM", "cannot be"} <= set(words(axes))


def test_the_table_of_latency_says_why_a_setting_was_not_run(planned: dict[str, Any]) -> None:
    made = latency.tabulate(planned)
    assert "pixart_alpha, Ring, N = 8: devices: 7 heads." in made.text
    assert made.rows is not None and made.rows.set_index("method").loc["ring", "status"] == "skipped"


def test_memory_is_stacked_to_the_peak_and_what_does_not_fit_is_named(planned: dict[str, Any]) -> None:
    table = memory.peaks(planned).set_index("method")
    assert table.loc["distrifusion", "full"] == "l40" and table.loc["pipefusion", "full"] == ""
    assert table.loc["serial", "rest_bytes"] == 3 * GB and "ring" not in table.index
    (axes,) = shown(memory.figure(planned))
    assert sum(bars(axes)) == pytest.approx((4 + 16 + 3) * GB / 2**30)
    assert "does not fit: L40" in words(axes)


def test_text_encoders_cancel_in_the_difference_to_one_device(planned: dict[str, Any], results: Path) -> None:
    table = memory_published.joined(planned, results / memory_published.PUBLISHED).set_index("method")
    assert table.loc["pipefusion", ["published_more_gb", "predicted_more_gb"]].tolist() == [-1.5, -1.0]
    assert table.loc["distrifusion", "predicted_more_gb"] == 12 and set(table.index) == {
        "pipefusion",
        "distrifusion",
    }
    (axes,) = shown(memory_published.figure(planned, results / memory_published.PUBLISHED))
    assert {"−1.00, −1.50", "+12.00, OOM"} <= set(words(axes)) and -1.5 in points(axes)


def test_the_share_of_communication_is_the_papers_formula(planned: dict[str, Any], results: Path) -> None:
    table = communication.joined(planned, results / communication.CLAIMS)
    assert table[["method", "lost_s", "share", "idle"]].to_numpy().tolist() == [
        ["pipefusion", 10.0, 0.5, 0.25]
    ]
    assert (
        table.loc[0, "published_share"] == pytest.approx(0.046) and table.loc[0, "row_id"] == "claims.csv:2"
    )
    share = shown(communication.figure(planned, results / communication.CLAIMS))[0]
    assert {"4.6", "17.9"} == set(words(share))


def test_what_asynchrony_saves_is_of_the_synchronous_seconds(results: Path) -> None:
    found = scaling.load(results / OVERLAP)
    piped = overlap.compared(found).set_index("method").loc["pipefusion"]
    assert (piped.saved, piped.bound_s) == (pytest.approx(0.75), 10.0)
    (axes,) = shown(overlap.figure(found))
    assert bars(axes) == [82.0, 20.5] and words(axes) == ["82.0", "20.5  −75.0 %"]


@pytest.mark.parametrize("output", paper.OUTPUTS, ids=lambda output: output.name)
def test_an_output_writes_files_under_its_own_name(output: Any, results: Path) -> None:
    made = output.write(results)
    assert {path.suffix for path in made} == {".csv", ".md", ".png", ".svg"}
    assert all(path.name.startswith(output.name) for path in made)
