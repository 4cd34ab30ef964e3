"""The table and figure of what each device holds, from a made-up record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.memory import params
from tests.analysis.synthetic import write_study

LAYERS, REST, KV = 8, 20, 64
KVS = ["KV MiB, DistriFusion", "KV MiB, PipeFusion"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A model of 8 layers of 10 bytes and 20 bytes of everything else, on 1, 2, 4 devices; 4 is too many for ring."""
    folder = tmp_path / "records" / "params"
    folder.mkdir(parents=True)
    whole = LAYERS * 10 + REST
    rows: list[dict[str, Any]] = []
    for method in ("ring", "distrifusion", "pipefusion"):
        for devices in (1, 2, 4):
            place = {"model": "made_up", "resolution": 64, "method": method, "devices": devices}
            place |= {"warmup": None}
            if (method, devices) == ("ring", 4):
                rows.append(place | {"status": "skipped", "reason": "devices=4 is too many"})
                continue
            count = LAYERS // devices if method == "pipefusion" else LAYERS
            for rank in range(devices):
                held = count * 10 + REST
                first = rank * count if method == "pipefusion" else 0
                own = {"rank": rank, "status": "ok", "layers": f"{first}-{first + count - 1}"}
                own |= {"layer_count": count, "param_bytes": held, "model_share": held / whole}
                own |= {"block_param_bytes": count * 10, "block_share": count / LAYERS, "sent_bytes": 5}
                own |= {"replicated_param_bytes": REST if devices > 1 else 0, "predicted_param_bytes": held}
                rows.append(place | own | {"kv_bytes": KV * count * (method != "ring")})
            sums = {"devices_bytes": devices * held, "copies_bytes": devices * held - whole}
            sums |= {"model_bytes": whole, "copied": json.dumps({"AdaLN": (devices - 1) * REST})}
            sums |= {"reconciles": method != "ring", "agrees": True}
            rows[-devices:] = [row | sums for row in rows[-devices:]]
    record = {
        "note": "A note.",
        "models": {"made_up": {"layers": LAYERS, "parameters": whole // 2, "dtype": "float16", "tokens": 4}},
        "rows": [row | {"key": f"{row['method']} {row['devices']}"} for row in rows],
        "literal": {"model": "made_up", "devices": 2},
    }
    write_study(folder, record, "params")
    return tmp_path


def test_the_literal_case_is_one_row_a_device(results: Path) -> None:
    rows = params.literal(*params.load(results / "records/params"))
    assert rows.layers.tolist() == ["0-3", "4-7"]
    assert rows.model_share.tolist() == [0.6, 0.6]


def test_the_fullest_device_of_each_method_and_a_gap_where_it_was_skipped(results: Path) -> None:
    record, table = params.load(results / "records/params")
    rows = params.fullest(record, table, [2, 4])
    on = rows.set_index(["devices", "method"])
    assert on.loc[2].model_share[["ring", "distrifusion", "pipefusion"]].tolist() == [1.0, 1.0, 0.6]
    assert on.loc[(4, "pipefusion"), "model_share"] == 0.4 and on.loc[(4, "pipefusion"), "kv_bytes"] == KV * 2
    text = params.readable(rows)
    assert text["Ring"].tolist() == ["100.0 %", "–"]
    assert list(text) == ["model", "N", "Ring", "DistriFusion", "PipeFusion", *KVS]


def test_sums_are_said_and_what_does_not_add_up_is_not_hidden(results: Path) -> None:
    record, _ = params.load(results / "records/params")
    assert "50 parameters, float16" in params.sums(record)
    assert params.reconciled(record).startswith("In 6 of 8 cases")
    assert "(1 more are skipped" in params.reconciled(record)


def test_the_output_has_the_literal_case_and_two_figures(results: Path) -> None:
    assert main(["params"], results) == 0
    text = (results / "tables/params_per_device.md").read_text()
    assert "| 1 | 4-7 |" in text and "A note." in text
    stems = {path.stem for path in (results / "figures").iterdir()}
    assert stems == {"params_per_device", "params_per_device_kv"}


@pytest.mark.parametrize(("count", "words"), [(88_400, "88.4 k"), (611_349_152, "611 M"), (1.04e9, "1.04 B")])
def test_sizes_in_words(count: int, words: str) -> None:
    assert params.short(count) == words
