"""The order of layers by sensitivity, from rows whose means can be worked out by hand."""

from __future__ import annotations

import pandas as pd

from analysis.staleness.layers import most_sensitive
from analysis.staleness.tables import Record

USUAL = {"model": "ours", "method": "distrifusion", "warmup": 1, "step": 2}
ROWS = [
    USUAL | {"layer": 0, "rows": 1, "attention_error": 0.6},  # with the next one 0.3
    USUAL | {"layer": 0, "rows": 3, "attention_error": 0.2},
    USUAL | {"layer": 1, "rows": 2, "attention_error": 0.1},
    USUAL | {"layer": 2, "rows": 2, "attention_error": 0.4},
    USUAL | {"layer": 1, "rows": 2, "attention_error": 9.0, "step": 0},  # of the warm-up
    USUAL | {"layer": 1, "rows": 2, "attention_error": 9.0, "method": "naive_patch"},
    USUAL | {"layer": 1, "rows": 2, "attention_error": 9.0, "model": "another"},
]


def test_layers_by_their_mean_error_over_rows() -> None:
    none = pd.DataFrame()
    record = Record({}, none, none, none, none, pd.DataFrame(ROWS), none, none)
    assert most_sensitive(record, "ours", "distrifusion") == [2, 0, 1]
    assert most_sensitive(record, "another", "naive_patch") == []
