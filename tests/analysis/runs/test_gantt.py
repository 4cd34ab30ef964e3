"""The chart of a timeline: what is drawn where, that all of it can be read, and the command that writes it."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from analysis.__main__ import main, steps_in
from analysis.runs.gantt import first_steps, gantt
from analysis.runs.timeline import Run, read
from tests.analysis.schedule import pipeline, span, write_pipeline

SIZES = [
    (2, 4, 1, 80),
    (4, 4, 1, 8),
    (8, 16, 1, 20),
    (2, 32, 4, 30),
    (8, 3, 1, 20),
    (1, 1, 0, 2),
    (12, 4, 2, 2),
]


def drawn(folder: Path, *sizes: int, steps: range | None = None, world: str = "sim") -> tuple[Run, Figure]:
    run, spans = read(write_pipeline(folder, *sizes, world=world))
    return run, gantt(run, spans, steps)


def texts(figure: Figure) -> list[Text]:
    """Everything written, as it will be drawn: not the labels of ticks outside of their axis."""
    figure.draw_without_rendering()
    outside: set[Text] = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        outside |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    found = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text()
    )
    return [text for text in found if text not in outside]


def test_as_many_bars_as_jobs_and_steps_begin_on_rank_0(tmp_path: Path) -> None:
    _, figure = drawn(tmp_path, 4, 4, 1, 8)
    axes = figure.axes[0]
    whole, bars = [shape for shape in axes.collections if isinstance(shape, PolyCollection)][1:3]
    assert len(whole.get_paths()) == 4
    assert len(bars.get_paths()) == 4 * 4 * 7
    corners = bars.get_paths()[0].vertices
    assert [corners[:, 0].min(), corners[:, 0].max()] == pytest.approx([0.16, 0.17])
    assert len({tuple(colour) for colour in bars.get_facecolor()}) == 4
    borders = axes.collections[3].get_segments()
    assert [line[0][0] for line in borders] == pytest.approx([0, *(0.16 + 0.04 * np.arange(7))])


@pytest.mark.parametrize("patches", [2, 4, 16, 32])
def test_patches_keep_their_order_in_grey(tmp_path: Path, patches: int) -> None:
    _, figure = drawn(tmp_path, 2, patches, 1, 3)
    colours = figure.axes[-1].images[0].cmap(np.arange(patches))[:, :3]
    grey = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all()


@pytest.mark.parametrize("sizes", SIZES)
def test_nothing_is_cut_off_and_no_words_overlap(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    _, figure = drawn(tmp_path, *sizes)
    page = figure.bbox
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, text
        boxes.append((text.get_text(), box.padded(-0.5)))
    for at, (words, box) in enumerate(boxes):
        for other, place in boxes[at + 1 :]:
            assert not box.overlaps(place), f"{words!r} on {other!r}"


def test_a_long_run_has_a_second_panel_with_the_first_steps(tmp_path: Path) -> None:
    _, figure = drawn(tmp_path, 8, 16, 1, 20)
    assert any(text.get_text() == "Steps 1 to 2 (framed above)" for text in texts(figure))
    low, high = figure.axes[1].get_xlim()
    assert low < 8 * 16 * 0.01 and high > (8 * 16 + 2 * 16 + 7) * 0.01


def test_the_steps_asked_for_are_shown(tmp_path: Path) -> None:
    _, figure = drawn(tmp_path, 4, 4, 1, 8, steps=range(3, 4))
    low, high = figure.axes[1].get_xlim()
    assert low < 0.24 and 0.31 < high < 0.32  # rank 0 begins it at 0.24, rank 3 ends it at 0.31


@pytest.mark.parametrize(
    ("world", "words"), [("local", "Measured wall"), ("sim", "Virtual time"), ("plan", "PREDICTED")]
)
def test_the_title_says_whose_clock_and_the_ideal(tmp_path: Path, world: str, words: str) -> None:
    _, figure = drawn(tmp_path, 4, 4, 1, 8, world=world)
    title, clock, *rest = [text.get_text() for text in figure.texts]
    assert title.split() == ["PipeFusion", "N", "=", "4", "M", "=", "4", "W", "=", "1", "S", "=", "8"]
    assert clock.startswith(words) and "470.0 ms" in clock
    assert "= 9.7 %, with equal stages" in rest[1]


def test_a_method_without_patches_has_lanes_too(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path, 2, 1, 0, 3)
    rows = [span(rank, "compute", step, -1, step, step + 0.8) for rank in (0, 1) for step in range(3)]
    rows += [span(rank, "wait", step, -1, step + 0.8, step + 1) for rank in (0, 1) for step in range(3)]
    pd.DataFrame(rows).to_parquet(folder / "timeline.parquet")
    run, spans = read(folder)
    assert run.patches is None
    figure = gantt(run, spans)
    assert not any("patch" in text.get_text() for text in texts(figure))


def test_what_is_too_narrow_to_see_keeps_its_share_of_ink(tmp_path: Path) -> None:
    """A method that computes a fifth of the time in slices narrower than a pixel is pale, not full."""
    folder = write_pipeline(tmp_path, 2, 1, 0, 2)
    edges = [(step, at / 2000) for step in (0, 1) for at in range(2000 * step, 2000 * step + 2000)]
    rows = [span(rank, "compute", step, -1, t, t + 1e-4) for rank in (0, 1) for step, t in edges]
    rows += [span(rank, "wait", step, -1, t + 1e-4, t + 5e-4) for rank in (0, 1) for step, t in edges]
    pd.DataFrame(rows).to_parquet(folder / "timeline.parquet")
    run, spans = read(folder)
    assert first_steps(run, spans) == range(1)
    figure = gantt(run, spans)
    figure.savefig(tmp_path / "chart.png", dpi=100)
    lane = figure.axes[0].get_window_extent().padded(-8)
    pixels = imread(tmp_path / "chart.png")[..., 0][::-1]
    ink = 1 - pixels[int(lane.y0 + 8) : int(lane.y0 + 16), int(lane.x0) : int(lane.x1)].mean()
    full = 1 - 0xB4 / 255
    assert 0.2 * full < ink < 0.6 * full  # a fifth, and the hatches


def test_the_command_writes_into_the_run_the_same_bytes_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pipeline(tmp_path, 4, 4, 1, 8)
    names = ["timeline.png", "timeline.svg", "trace.json"]
    assert main(["timeline", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [str(folder / name) for name in names]
    first = [(folder / name).read_bytes() for name in names]
    with mpl.rc_context({"font.size": 20}):  # what the caller likes is not what is written
        assert main(["timeline", str(folder)]) == 0
    assert [(folder / name).read_bytes() for name in names] == first
    assert main(["timeline", str(folder), "--steps", "2:4"]) == 0
    assert (folder / "timeline.png").read_bytes() != first[0]


@pytest.mark.parametrize(
    "arguments", [["{}/none"], ["{}/pipefusion", "--steps", "5:3"], ["{}/pipefusion", "--steps"]]
)
def test_what_is_wrong_is_one_line_and_exit_2(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pipeline(tmp_path, 2, 2, 1, 4)
    assert main(["timeline", *[text.format(tmp_path) for text in arguments]]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_steps_are_half_open_and_may_be_left_out() -> None:
    assert pipeline(2, 2, 1, 4)[0].step.max() == 3
    assert steps_in("0:4", 4) == range(4)
    assert steps_in("2:", 4) == range(2, 4)
    assert steps_in(":1", 4) == range(1)
    for wrong in ("4:", "0:5", "-1:2", "a:b", "2", ""):
        with pytest.raises(ValueError, match="allowed"):
            steps_in(wrong, 4)
