"""Break-even points and means of made-up rows; every figure of them can be drawn."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.methods.distance import break_even, means, still
from analysis.methods.distance_figures import error_against_steps, errors_of_clips
from analysis.outputs.distance import clips_table
from analysis.presentation.columns import typed


def rows(**columns: Any) -> pd.DataFrame:
    """A row for each S and picture of PipeFusion with error 0.2 / S, which is worse again at the largest S."""
    made = []
    for steps in (1, 2, 4, 8, 16):
        for picture in (0, 1):
            error = (0.2 / steps if steps < 16 else 0.04) * (1 if picture else 0.5)
            made.append({"steps": steps, "picture": picture, "relative_error": error, "pixel_error": error})
    same = {"model": "m", "method": "pipefusion", "parallel": "pipe 1", "patch_axis": None, "devices": 1}
    same |= {"patches": 4, "warmup": 1, "status": "ok", "reason": None}
    return pd.DataFrame(made).assign(**{**same, **columns})


def test_means_are_over_pictures() -> None:
    table = means(rows())
    assert table.pictures.tolist() == [2] * 5
    assert math.isclose(table[table.steps == 4].relative_error.item(), 0.0375)


def test_break_even_is_the_fewest_steps_from_which_on_all_are_near() -> None:
    # Means: S = 2 7.5 %, 4 3.75 %, 8 1.9 %, 16 3 %; S = 1 is all synchronous.
    (found,) = break_even(rows(), (0.1, 0.05, 0.03, 0.02)).to_dict("records")
    assert [found[f"steps_{percent}"] for percent in (10, 5, 3)] == [2, 4, 8]
    assert found["steps_2"] is None or math.isnan(found["steps_2"])
    assert (found["largest_steps"], round(found["smallest"], 4)) == (16, 0.0188)


def test_still_clips_are_those_whose_prompt_says_so() -> None:
    prompts = pd.DataFrame({"prompt": ["a lemon stands still", "a lemon falls"]})
    assert still(prompts).tolist() == [True, False]


def test_figures_have_a_line_for_each_method_and_axis() -> None:
    (axes,) = error_against_steps(rows()).axes
    assert axes.lines[0].get_label() == "PipeFusion, W = 1"
    left, middle, right = errors_of_clips(clips(), 16, cut=4).axes[:3]
    assert [len(axes.lines) for axes in (left, middle, right)] == [2, 2, 2]


def test_figures_of_clips_show_what_was_measured_at_one_m_or_one_s() -> None:
    above, _, _, below, _, by_picture = errors_of_clips(clips(), 8, cut=4).axes
    assert [*above.lines[0].get_xdata()] == [2, 4]
    assert [*below.lines[0].get_xdata()] == [1, 2, 4, 8, 16]
    assert [*by_picture.lines[0].get_ydata()] == [0.1, 0.2]


def test_what_was_skipped_stands_below_the_table_with_the_reason() -> None:
    why = {"patches": 16, "status": "skipped", "reason": "method.patches=16 is outside 1..8"}
    nothing = dict.fromkeys(
        ["picture", "prompt", "relative_error", "pixel_error", "psnr_db", "flicker", "network"]
    )
    skipped = clips().iloc[:1].assign(**why, **nothing)
    found = clips_table(typed(pd.concat([clips(), skipped], ignore_index=True)))
    assert found.text.rstrip().endswith("over frames was skipped: method.patches=16 is outside 1..8")
    assert "what a network sees" in found.text and "| 3.0 % | 4.0 % |" in found.text
    assert found.rows is not None and len(found.rows) == found.text.count("| PipeFusion |") + 1


def clips() -> pd.DataFrame:
    """The same rows of clips of two pictures, cut into two and four over both axes."""
    values = {"flicker": 0.1, "motion": 0.0, "psnr_db": 30.0, "prompt": "a lemon falls"}
    values |= {"network": "a network", "feature_error": 0.03, "feature_flicker": 0.04}
    cuts = [rows(patches=cut, patch_axis=axis, **values) for cut in (2, 4) for axis in ("frames", "rows")]
    found = pd.concat(cuts, ignore_index=True)
    return found.assign(frame_errors=[[0.1, 0.2]] * len(found))
