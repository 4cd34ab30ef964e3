"""A small results folder with everything the page knows: tables, a figure, a sidecar, verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.presentation import style

CLAIMS = """claim,published,ours,verdict
<b>fast</b> & small,2.5,2.25,confirmed
slow,10,-1e-3,not confirmed
steady,,,not testable: no such hardware
large,9,30,confirmed
"""
NUMBERS = """| method | seconds | share |
| --- | ---: | ---: |
| Ring | 9.5 | 12.3 % |
| Serial | 10.25 | – |
| Tensor | – | 1.5 % |
| Ulysses | -1.0e-02 | 100.0 % |
"""


def write(results: Path, rows: int = 40) -> Path:
    """The folder's files, among them a table of `rows` numbers."""
    figure = Figure(figsize=(9, 4))
    figure.subplots().plot([1, 3, 2])
    style.save(figure, results / "figures", "curve")
    tables = results / "tables"
    tables.mkdir(parents=True)
    (tables / "claims.csv").write_text(CLAIMS)
    (tables / "numbers.md").write_text(f"# Numbers\n\nOf **one** run.\n\n{NUMBERS}\n- a note\n")
    (tables / "numbers.csv").write_text("method,seconds\nring,9.51234567\n")
    long = "".join(f"row {at},{(at * 7) % rows},{'word ' * 20}{at}\n" for at in range(rows))
    (tables / "published_vs_ours.csv").write_text(f"name,value,reason\n{long}")
    for name, more in SIDECARS.items():
        (tables / f"{name}.sources.json").write_text(json.dumps(SOURCES | {"name": name} | more))
    return results


SIDECARS: dict[str, dict[str, Any]] = {
    "claims": {},
    "curve": {
        "made": ["figures/curve.png", "figures/curve.svg"],
        "caption": "A line & <no> tag.",
        "paper": "Fig. 3",
    },
    "numbers": {"made": ["tables/numbers.csv", "tables/numbers.md"]},
    "published_vs_ours": {"made": ["tables/published_vs_ours.csv"]},
}
SOURCES = {
    "name": "claims",
    "paper": "",
    "caption": "Every claim.",
    "command": "python -m analysis claims",
    "made": ["tables/claims.csv"],
    "commands_of_records": ["python run.py experiment=claims"],
    "records": [
        {
            "record": f"records/one/{name}.json",
            "command": "run.py experiment=claims",
            "created": "2026-01-02T03:04:05+00:00",
            "git_commit": "c0ffee" * 6 + "beef-dirty",
            "predicted": False,
            "hardware": {"cpu": "a <CPU>", "cores": 2, "gpu": None, "memory_bytes": 4 * 2**30},
            "torch": "2.13.0",
            "files": {f"records/one/{name}.json": digit * 64},
        }
        for name, digit in (("a", "1"), ("b", "2"))
    ]
    + [{"record": None, "files": {"published/latency.csv": "3" * 64}}],
}
