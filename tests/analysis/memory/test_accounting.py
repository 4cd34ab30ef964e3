"""The tables and the figure of the full-size accounting, from a made-up record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.evidence.published import read
from analysis.memory import accounting, accounting_figure, table1
from analysis.records import committed as records
from tests.analysis.synthetic import write_study

LAYERS, BLOCK, SHARED, TOKENS, HIDDEN, BRANCHES, GIB = (
    8,
    1 << 30,
    1 << 20,
    {1024: 64, 2048: 256},
    1 << 16,
    2,
    2**30,
)
WHOLE = LAYERS * BLOCK + SHARED
PARTS = ["param_bytes", "kv_bytes", "buffer_bytes", "comm_bytes", "given_bytes", "activation_bytes"]
TABLE1 = """\
source,version,method,attn_KV,communication_per_timestep,overlap,param_memory,activation_memory,KV_or_buffer_memory
here,README-c,TP,fresh,4O(p*hs)L,no,P/N,(2/N)A=QO/N,(2/N)A=KV/N
here,README-c,SP-Ring,fresh,2O(p*hs)L,yes,P,(2/N)A=QO/N,(2/N)A=KV/N
here,README-c,PipeFusion,stale,2O(p*hs),yes,P/N,(2/M)A=QO/M,(2L/N)A=(KV)L/N
there,older,PipeFusion,stale,nothing at all,yes,P/N,-,-
"""


def planted_row(method: str, devices: int, warmup: int | None, size: int) -> dict[str, Any]:
    """What each of the devices holds: PipeFusion its layers and the shared part, K, V of these, half of 2 A sent."""
    a = TOKENS[size] * HIDDEN * BRANCHES * 2
    mine = LAYERS // devices if method == "pipefusion" else LAYERS
    row: dict[str, Any] = {"branches": BRANCHES, "layer_count": mine}
    row["patches"] = devices if method == "pipefusion" else None
    row |= {"replicated_param_bytes": SHARED, "param_bytes": mine * BLOCK + SHARED}
    row |= {"kv_bytes": 2 * a * mine if method == "pipefusion" else 0, "buffer_bytes": 3, "comm_bytes": 2}
    row |= {"given_bytes": 1, "activation_bytes": 10 * a // (devices if warmup != 1 else 1)}
    row["peak_bytes"] = sum(row[part] for part in PARTS)
    sent = a if method == "pipefusion" else 2 * a * LAYERS * (devices - 1) // devices
    return row | {"step_sent_bytes": sent, "step_recv_bytes": sent}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A model on 1, 4 and 8 devices under three methods; ring cannot do 8, serial only 1."""
    rows: list[dict[str, Any]] = []
    grid: list[tuple[str, int, int | None]] = [("serial", 1, None), ("ring", 4, None), ("ring", 8, None)]
    grid += [("pipefusion", n, warmup) for warmup in (1, 0) for n in (4, 8)]
    for size in TOKENS:
        for method, devices, warmup in grid:
            place = {
                "model": "made_up",
                "resolution": size,
                "height": size,
                "method": method,
                "devices": devices,
            }
            place |= {"warmup": warmup}
            if (method, devices) == ("ring", 8):
                rows.append(place | {"status": "skipped", "reason": "devices=8 is too many"})
                continue
            found = [planted_row(method, devices, warmup, size) for _ in range(devices)]
            held = sum(row["param_bytes"] for row in found)
            sums = {"devices_bytes": held, "copies_bytes": held - WHOLE, "model_bytes": WHOLE}
            sums |= {"copied": json.dumps({"AdaLN": held - WHOLE}), "agrees": True}
            sums |= {"reconciles": method != "serial"}
            rows += [
                place | {"rank": rank, "status": "ok", "layers": "0-7"} | row | sums
                for rank, row in enumerate(found)
            ]
    facts: dict[str, Any] = dict.fromkeys(("parameters", "diffusers_parameters"), WHOLE // 2)
    facts |= {"param_bytes": WHOLE, "layers": LAYERS}
    facts |= {"hidden": HIDDEN, "class": "MadeUp", "tokens": {str(size): p for size, p in TOKENS.items()}}
    keys = ("resolution", "method", "devices", "warmup")
    rows = [row | {"key": " ".join(str(row[key]) for key in keys)} for row in rows]
    record = {"note": "A note.", "dtype": "bfloat16", "models": {"made_up": facts}, "rows": rows}
    for name in ("accounting", "accounting_2026"):
        write_study(tmp_path / "records" / name, record, "accounting")
    write_whole(tmp_path / records.WHOLE)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "table1_costs.csv").write_text(TABLE1)
    return tmp_path


def write_whole(folder: Path) -> None:
    """The record of tensor parallelism as Table 1 counts it, on 8 devices: two all-reduces a layer."""
    place = {"model": "made_up", "method": "tensor", "devices": 8, "warmup": None, "rank": 0, "status": "ok"}
    rows = []
    for size, tokens in TOKENS.items():
        sent = 4 * tokens * HIDDEN * BRANCHES * 2 * LAYERS * 7 // 8
        rows.append(
            place
            | planted_row("tensor", 8, None, size)
            | {"resolution": size, "height": size, "step_sent_bytes": sent, "reason": None, "key": str(size)}
            | dict.fromkeys(accounting.TOTALS)
        )
    write_study(folder, {"rows": rows}, "accounting")


def test_each_method_at_eight_devices_or_the_most_that_it_can_do(results: Path) -> None:
    _, table = accounting.load(results / "records/accounting")
    cases = accounting.shown(accounting.fullest(table))
    assert set(zip(cases.method, cases.devices, strict=True)) == {
        ("serial", 1),
        ("ring", 4),
        ("pipefusion", 8),
    }
    words = accounting.memory(cases, "made_up").set_index("method")
    assert words.loc["PipeFusion", "params GiB"] == "1.00"
    assert words.loc["Ring", "KV GiB, 1024 px"] == "0"
    kv = 2 * TOKENS[2048] * HIDDEN * BRANCHES * 2 / GIB
    assert words.loc["PipeFusion", "KV GiB, 2048 px"] == f"{kv:.3f}"


def test_sums_are_said_and_what_does_not_add_up_is_not_hidden(results: Path) -> None:
    record, _ = accounting.load(results / "records/accounting")
    assert accounting.reconciled(record).startswith("In 10 of 12 cases")
    assert "in 12 of 12 parameters" in accounting.reconciled(record)
    row = accounting.sums(record).iloc[0]
    assert row["cases that add up"] == "10 of 12"
    assert row["parameters in diffusers"] == f"{WHOLE // 2:,}"
    assert (row["PipeFusion N"], row["- copies"], row["copied"]) == ("8", f"{7 * SHARED:,}", "AdaLN")
    assert accounting.skipped(record).to_dict("records") == [
        {"model": "made_up", "methods": "Ring", "px": "1024, 2048", "reason": "devices=8 is too many"}
    ]
    assert [*accounting.copies(record, "made_up")] == ["PipeFusion: AdaLN 7.00 MiB"]


def test_table_1_is_held_against_the_bytes(results: Path) -> None:
    record, table = accounting.load(results / "records/accounting")
    cases = accounting.as_printed(accounting.fullest(table), results)
    found = table1.claims(record, cases, read(results / "published"), 8)
    words = table1.readable(found)
    ratios = {(row["method"], row["what"]): row["all models"] for row in words.to_dict("records")}
    assert ratios["PipeFusion, W=1", "sent a step"] == "0.50"
    assert ratios["PipeFusion, W=1", "parameters"] == "1.00"
    assert ratios["PipeFusion, W=1", "K, V"] == "1.00"
    assert ratios["PipeFusion, W=1", "activations"] == "40.00"
    assert ratios["PipeFusion, W=0", "activations"] == "5.00"
    assert ("PipeFusion, W=0", "K, V") not in ratios
    assert ratios["Tensor parallel", "sent a step"] == "0.88"
    assert len(words) == 9  # ring does not run on 8


def test_tensor_parallelism_is_judged_in_the_form_that_was_printed(results: Path) -> None:
    _, table = accounting.load(results / "records/accounting")
    cases = accounting.fullest(table)
    split = cases[cases.method == "ring"].assign(method="tensor", step_sent_bytes=1)
    elsewhere = split.assign(model="no cross-attention")
    printed = accounting.as_printed(pd.concat([cases, split, elsewhere]), results)
    tensor = printed[printed.method == "tensor"]
    assert not tensor[tensor.model == "made_up"].step_sent_bytes.isin([1]).any()
    assert set(tensor[tensor.model == "made_up"].devices) == {8}
    assert (tensor[tensor.model == "no cross-attention"].step_sent_bytes == 1).all()
    assert len(printed) == len(cases) + 2 + len(elsewhere)


def test_nothing_kept_and_a_range_in_words() -> None:
    ends = [table1.between(pd.Series(values)) for values in ([], [0.0, 0.0], [1.0, 1.001], [0.5, 123.4])]
    assert ends == ["–", "none kept", "1.00", "0.50 to 123"]


def test_the_output_has_every_case(results: Path) -> None:
    assert main(["accounting", "accounting_2026"], results) == 0
    rows = (results / "tables/accounting_2026_models.md").read_text().splitlines()[2:]
    assert len(rows) == 2 and rows[0].startswith("| made_up | 4,295,491,584 | 8 | 1024 px | 64 | 2 |")
    assert "A note." in (results / "tables/accounting.md").read_text()
    cases = pd.read_csv(results / "tables/accounting.csv")
    assert len(cases) == 14
    assert set(cases[cases.status == "skipped"].reason) == {"devices=8 is too many"}


def test_a_bar_of_fewer_devices_says_so() -> None:
    """Of Wan's 21 latent frames no N of the methods that cut them takes a whole share, so that they stay at N = 1."""
    committed = accounting.load(Path(__file__).resolve().parents[3] / "results" / records.ACCOUNTING_2026)
    panels = {
        axes.get_title("left").split(",")[0]: axes for axes in accounting_figure.figure(*committed).axes
    }
    texts = [text.get_text() for text in panels["wan21_14b"].texts]
    assert "720 x 1280 px, 81 pictures" in panels["wan21_14b"].get_title("left")
    assert texts.count("44.8 (N=1)") == 3 and "44.8" in texts and "37.1" in texts
