"""Values at which several errors are zero at once, as a fit of terms needs them."""

from __future__ import annotations

from itertools import permutations

import pytest

from experiments.calibration.roots import solve


def test_terms_are_found_together_in_any_order():
    """Every row waits for all terms, most for its own: the planted ones are found, whichever comes first."""
    planted = [2e-5, 7e-4, 0.6, 3.0]
    shares = [[0.6, 0.3, 0.0, 0.1], [0.2, 0.7, 0.1, 0.0], [0.0, 0.3, 0.5, 0.2], [0.1, 0.0, 0.3, 0.6]]

    def seconds(row, values):
        return sum(
            share * value / want for share, value, want in zip(shares[row], values, planted, strict=True)
        )

    for order in permutations(range(4)):

        def error(index, values, order=order):
            return seconds(order[index], [values[order.index(term)] for term in range(4)]) - 1

        found = solve(error, [(0.0, 5 * planted[term]) for term in order])
        assert found == pytest.approx([planted[term] for term in order], rel=1e-3)


def test_a_term_whose_row_no_value_explains_is_at_the_nearer_end():
    """The first row takes longer than with any value of its term; the second makes up for it."""

    def error(index, values):
        return values[0] / 10 - 1 if index == 0 else (values[0] + values[1]) / 5 - 1

    assert solve(error, [(0.0, 3.0), (0.0, 4.0)]) == pytest.approx([3.0, 2.0])


def test_terms_that_move_for_ever_are_an_error():
    """Two rows that want the same sum to be two numbers."""

    def error(index, values):
        return sum(values) - 1 - index / 10

    with pytest.raises(ValueError, match="still move"):
        solve(error, [(-1000.0, 1000.0), (-1000.0, 1000.0)])
