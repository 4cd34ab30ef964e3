"""`measure=distance`: errors by their closed forms, and a study of a tiny video in pixel space by command."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from analysis.records.study import load_study
from experiments.clips import pack
from experiments.studies.distance import clip_features, compare, compare_features
from tests.experiments.commands import command

VIDEO = [
    "model=wan_tiny",
    "++model.architecture.pixel_space=true",
    *(f"++model.architecture.{name}=6" for name in ("in_channels", "out_channels")),
    "++model.architecture.frame_factor=2",
    "++model.architecture.frames=8",
    "++model.architecture.resolution=[8,8]",
]


def test_an_error_that_stays_does_not_flicker_and_one_that_alternates_does() -> None:
    level = torch.linspace(-0.5, 0.5, 4).view(1, 1, 4, 1, 1).expand(2, 3, 4, 8, 8)
    gap = torch.full((2, 1, 4, 1, 1), 0.2)
    gap[1, :, 1::2] = -0.2
    first, second = compare(pack(level + gap, 2), pack(level, 2), ["a", "b"], 2)
    for row in (first, second):
        assert row["pixel_error"] == pytest.approx(0.1)
        assert row["psnr_db"] == pytest.approx(20)
        assert row["frame_errors"] == pytest.approx([0.1] * 4)
        assert row["motion"] == pytest.approx(1 / 6)
        assert row["relative_error"] == pytest.approx(0.2 / math.sqrt((0.5**2 + (0.5 / 3) ** 2) / 2))
    assert first["flicker"] == pytest.approx(0, abs=1e-6)
    assert second["flicker"] == pytest.approx(0.2)


def test_pictures_have_neither_flicker_nor_motion() -> None:
    (row,) = compare(torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.7), ["a"], 1)
    assert row["pixel_error"] == pytest.approx(0.1)
    assert not {"flicker", "motion", "frame_errors"} & row.keys()


def test_errors_of_features_are_shares_of_serials() -> None:
    """Serial's features have length 5; one clip's are off by (0.3, 0.4) in all pictures, one's with changing sign."""
    theirs = torch.tensor([3.0, 4.0]).expand(3, 4, 2)
    gap = torch.tensor([0.3, 0.4]).expand(3, 4, 2) * torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    gap = torch.cat([gap[:2], gap[2:] * torch.tensor([1.0, -1.0] * 2).view(1, 4, 1)])
    same, still, flickering = compare_features(theirs + gap, theirs)
    assert (same["feature_error"], same["feature_flicker"]) == (0, 0)
    assert (still["feature_error"], still["feature_flicker"]) == pytest.approx((0.1, 0), abs=1e-6)
    assert (flickering["feature_error"], flickering["feature_flicker"]) == pytest.approx((0.1, 0.2))


def test_each_picture_of_a_clip_has_features_of_its_own() -> None:
    clips = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    clips[:, :, 2] = clips[:, :, 0]
    seen = clip_features(clips)
    assert seen.shape[:2] == (2, 3)
    assert torch.equal(seen[:, 0], seen[:, 2]) and not torch.equal(seen[:, 0], seen[:, 1])


@pytest.mark.slow
def test_a_video_study_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shared = [
        "measure=distance",
        "cluster=sim",
        "log.wandb.mode=disabled",
        "hydra.run.dir=run",
        "steps=3",
        "measure.workers=1",
    ]
    grid = ["measure.patch_axes=[frames,rows]", "measure.methods=[pipefusion]", "measure.patches=[1,2]"]
    asked = [*shared, *grid, "devices=1", "prompt=[one,two]", "seed=3"]
    assert command(monkeypatch, *asked, *VIDEO) == 0
    rows = load_study(tmp_path / "run").rows
    assert len(rows) == 8 and set(rows.patch_axis) == {"frames", "rows"}
    assert (rows[rows.patches == 1].relative_error < 1e-5).all()
    assert (rows[rows.patches == 2].relative_error > 1e-4).all()
    assert (rows[rows.patches == 2].feature_error > rows[rows.patches == 1].feature_error.max()).all()
    assert set(rows.network) == {"efficientnet_lite0"}
    capsys.readouterr()
    assert command(monkeypatch, *shared, "model=wan_tiny") == 2
    assert "model=wan_tiny has latents that are no pixels; allowed: " in capsys.readouterr().err
