"""Settings of different numbers of pictures, compared on the ones that they have in common."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.quality import paired


def table(**errors: list[float]) -> pd.DataFrame:
    rows = [
        {"key": key, "picture": picture, "latent_error": value}
        for key, values in errors.items()
        for picture, value in enumerate(values)
    ]
    return pd.DataFrame(rows).set_index(paired.INDEX)


HARD = [0.1, 0.2, 0.4, 0.8]


def test_a_ratio_is_of_common_pictures_and_free_of_what_they_share() -> None:
    """The other setting has easy pictures as well, which would turn the order."""
    found = paired.ratio(
        table(one=[2 * x for x in HARD], other=[*HARD, *[0.01] * 400]), "one", "other", "latent_error"
    )
    assert found.n == 4
    assert (found.value, found.low, found.high) == (
        pytest.approx(2.0),
        pytest.approx(2.0),
        pytest.approx(2.0),
    )
    reverse = paired.ratio(
        table(one=[2 * x for x in HARD], other=[*HARD, *[5.0] * 400]), "other", "one", "latent_error"
    )
    assert reverse.value == pytest.approx(0.5)


def test_the_interval_is_of_pairs_and_the_same_twice() -> None:
    draw = np.random.default_rng(1)
    base, noise = draw.uniform(0.1, 10, 40), draw.normal(1.2, 0.05, 40)
    made = table(one=list(base * noise), other=list(base))
    found = paired.ratio(made, "one", "other", "latent_error")
    assert found == paired.ratio(made, "one", "other", "latent_error")
    assert 1.15 < found.low < found.value < found.high < 1.25  # means alone would be 30 % apart by chance


def test_without_a_common_picture_there_is_no_ratio() -> None:
    made = table(one=[1.0, 2.0], other=[1.0, 2.0])
    apart = made[[key == "one" or picture > 5 for key, picture in made.index]]
    with pytest.raises(KeyError):
        paired.ratio(apart, "one", "other", "latent_error")
    with pytest.raises(ValueError, match="no picture in common"):
        paired.ratio(made[[(k == "one") == (p == 0) for k, p in made.index]], "one", "other", "latent_error")


def test_a_record_over_common_pictures_leaves_everything_else_as_it_is() -> None:
    rows = pd.DataFrame(
        [
            ["one", "latent_error", 0.4, 0.1, 0.9, 4],
            ["many", "latent_error", 9.0, 8.0, 10.0, 2000],
            ["many", "frechet", 3.0, 2.0, 4.0, 2000],
            ["else", "latent_error", 7.0, 6.0, 8.0, 2000],
        ],
        columns=["key", "metric", "value", "low", "high", "n"],
    ).assign(what=None, n_reference=None)
    made = table(one=HARD, many=[*HARD, *[20.0] * 9], **{"else": [7.0] * 9})
    found = paired.on_common({"rows": rows}, made, ["one", "many", "unknown"])["rows"]
    pd.testing.assert_frame_equal(found[2:], rows[2:], check_dtype=False)
    for row in found[:2].itertuples():
        assert (row.n, row.n_reference, row.value) == (4, 4, pytest.approx(np.mean(HARD)))
        assert 0.1 <= row.low < row.value < row.high <= 0.8
    equal = paired.on_common({"rows": rows}, table(one=[math.inf] * 3), ["one"])["rows"].iloc[0]
    assert (equal.value, equal.low, equal.high) == (math.inf,) * 3


def test_the_values_of_pictures_are_those_of_settings_and_not_of_floors() -> None:
    content = {"key": ["a", "b", "a"], "metric": ["ssim"] * 3, "what": [None, None, "floor"]}
    rows = pd.DataFrame(content).assign(values=[[0.5, 0.25], None, [0.75]])
    found = paired.values({"rows": rows})
    assert [*found.index] == [("a", 0), ("a", 1)] and [*found.ssim] == [0.5, 0.25]
    assert paired.values({"rows": rows[1:2]}).empty
