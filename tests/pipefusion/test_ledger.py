"""What the ledger counts."""

from __future__ import annotations

import pytest

from pipefusion.core.ledger import Ledger, wire_bytes


def test_bytes_of_a_buffer_are_recounted_under_another_kind():
    ledger = Ledger()
    ledger.buffer_bytes["comm"] += 10
    ledger.move("comm", "kv", 4)
    assert ledger.buffer_bytes == {"kv": 4, "buffer": 0, "comm": 6}


@pytest.mark.parametrize(
    ("op", "sent"), [("broadcast", 36), ("all_gather", 36), ("all_to_all", 9), ("all_reduce", 18)]
)
def test_wire_bytes_of_four_ranks_and_of_one(op, sent):
    assert wire_bytes(op, 12, 4) == sent
    assert wire_bytes(op, 12, 1) == 0
