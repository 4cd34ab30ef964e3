"""The table and figure of latency and memory against N, from a made-up record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.predicted import points, scaling
from analysis.presentation import style
from tests.analysis.synthetic import write_study

GIB = 2**30


def row(
    method: str, devices: int, seconds: float | None, patches: int | None = None, **more: Any
) -> dict[str, Any]:
    """A predicted point of the made-up cluster; no seconds: it does not fit."""
    return {
        "cluster": "c", "resolution": 64, "method": method, "devices": devices, "patches": patches, "warmup": None,
        "status": "ok" if seconds else "oom", "reason": None, "predicted_latency_s": seconds,
        "peak_bytes": GIB // devices, "fastest": True,
    } | more  # fmt: skip


def published(row_id: str, method: str, devices: int, seconds: float | None, **more: Any) -> dict[str, Any]:
    """A published point of the made-up cluster."""
    return {
        "row_id": row_id, "cluster": "c", "resolution": 64, "method": method, "devices": devices,
        "published_s": seconds, "oom": seconds is None, "digitized": False, "flags": [], "duplicate_of": None,
    } | more  # fmt: skip


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "predicted": True,
        "models": {"made_up": {"steps": 4}},
        "clusters": {"c": {"device": "d", "room_bytes": 2 * GIB, "calibrated_on": ["p:1"]}},
        "rows": [
            row("serial", 1, 8.0),
            row("ring", 2, 5.0),
            row("ring", 4, None),
            row("pipefusion", 2, 4.5, 2, fastest=False),
            row("pipefusion", 2, 4.0, 8),
            row("pipefusion", 4, 2.0, 4, peak_bytes=GIB // 8),
        ],
        "published": [
            published("p:4", "ring", 2, 6.0, flags=["cannot be"]),
            published("p:2", "serial", 1, 9.0, duplicate_of="p:1"),
            published("p:1", "serial", 1, 9.0),
            published("p:3", "pipefusion", 2, 4.1),
            published("p:6", "pipefusion", 2, 4.3),
            published("p:5", "ring", 4, None),
        ],
    }


@pytest.fixture
def results(tmp_path: Path, record: dict[str, Any]) -> Path:
    (tmp_path / "run").mkdir()
    write_study(tmp_path / "run", record)
    assert main(["keep", str(tmp_path / "run"), "scaling"], tmp_path) == 0
    return tmp_path


def test_only_the_fastest_setting_of_each_n_is_shown(record: dict[str, Any]) -> None:
    table = scaling.predicted(record)
    assert table.method.tolist() == ["serial", "ring", "ring", "pipefusion", "pipefusion"]
    words = scaling.latency(table).set_index("N")
    assert words["PipeFusion"].tolist() == ["–", "4.00 (8)", "2.00 (4)"]
    assert words["Ring"].tolist() == ["–", "5.00", "oom"]
    memory = scaling.memory(table).set_index("N")
    assert memory.loc["4", ["Ring", "PipeFusion"]].tolist() == ["0.250", "0.125"]


def test_what_a_profile_was_fitted_on_is_marked_and_a_repetition_is_shown_once(
    record: dict[str, Any],
) -> None:
    table = points.published(record).set_index("row_id")
    roles = {"p:1": "calibration", "p:4": "doubt"} | dict.fromkeys(("p:3", "p:5", "p:6"), "prediction")
    assert table.role.to_dict() == roles
    record["published"] = [one for one in record["published"] if one["row_id"] != "p:1"]
    record["clusters"]["c"]["calibrated_on"] = ["p:1"]
    assert points.published(record).set_index("row_id").loc["p:2", "role"] == "calibration"


def test_every_prediction_stands_beside_all_its_published_numbers(record: dict[str, Any]) -> None:
    table = scaling.joined(record)
    two = table[(table.method == "pipefusion") & (table.devices == 2)]
    assert two.published_s.tolist() == [4.1, 4.3] and two.predicted_latency_s.tolist() == [4.0, 4.0]
    assert table[(table.method == "pipefusion") & (table.devices == 4)].row_id.isna().all()


def test_the_figure_says_that_it_is_predicted_and_shows_each_published_point(record: dict[str, Any]) -> None:
    sheets = scaling.latency_figure(record, "c"), scaling.memory_figure(record)
    assert all(sheet.get_suptitle().startswith("PREDICTED") for sheet in sheets)
    (latency,), (memory,) = (sheet.axes for sheet in sheets)
    points = {
        (line.get_color(), *line.get_xydata()[0]) for line in latency.lines if line.get_linestyle() == "None"
    }
    assert len(points) == 5
    assert "published: out of memory" in [text.get_text() for text in latency.texts]
    assert [text.get_text() for text in memory.texts] == ["D has 2 GiB"]
    piped = [line for line in memory.lines if line.get_color() == style.COLOUR["pipefusion"]]
    assert list(piped[0].get_ydata()) == [0.5, 0.125]


def test_a_cluster_has_a_figure_and_memory_another(results: Path) -> None:
    assert main(["scaling"], results) == 0
    figures = {path.name for path in (results / "figures").iterdir()}
    assert figures == {f"scaling_{name}.{kind}" for name in ("c", "memory") for kind in ("png", "svg")}
    assert "**Predicted**" in (results / "tables" / "scaling.md").read_text()


def test_a_record_may_be_kept_in_a_folder_of_records(tmp_path: Path, record: dict[str, Any]) -> None:
    for name in ("latency", "overlap"):
        (tmp_path / name).mkdir()
        write_study(tmp_path / name, record | {"models": {name: {"steps": 4}}})
        assert main(["keep", str(tmp_path / name), f"paper/{name}"], tmp_path) == 0
        kept = scaling.load(tmp_path / "records" / "paper" / name)
        assert [*kept["models"]] == [name] and len(kept["rows"]) == len(record["rows"])
