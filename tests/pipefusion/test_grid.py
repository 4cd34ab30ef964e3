"""Tokens of pictures and videos: taken, split, joined and put in line without a loss, over either axis."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipefusion.core.cut import axis_fits
from pipefusion.core.grid import Band, Strips, TokenGrid
from pipefusion.core.parallel import Parallel
from pipefusion.core.split import split_rows
from pipefusion.method import Config, check
from tests.pipefusion.test_layout import SHAPE

GRIDS = {
    "picture": TokenGrid(6, 5, 2),
    "video over frames": TokenGrid(6, 5, 2, frames=4, axis="frames"),
    "video over rows": TokenGrid(6, 5, 2, frames=4, axis="rows"),
}
VIDEO = replace(SHAPE, frames=9, patch_axis="frames")  # of 24 x 2 tokens


@pytest.fixture(params=GRIDS)
def grid(request) -> TokenGrid:
    return GRIDS[request.param]


def random_latent(grid: TokenGrid) -> torch.Tensor:
    frames = () if grid.frames is None else (grid.frames,)
    return torch.randn(2, 3, *frames, grid.rows * grid.patch_size, grid.cols * grid.patch_size)


def test_bands_of_a_latent_join_to_the_latent(grid):
    latent = random_latent(grid)
    bands: list[Band] = [Strips((range(1), range(3, grid.lines))), range(1, 3)]
    assert sum(map(grid.tokens, bands)) == grid.rows * grid.cols * (grid.frames or 1)
    taken = [grid.take_latent(latent, band) for band in bands]
    assert torch.equal(grid.join_latents(bands, taken), latent)
    parts = split_rows(grid.lines, 3)
    for part, piece in zip(parts, grid.split_latent(latent, parts), strict=True):
        assert torch.equal(piece, grid.take_latent(latent, part))


def test_one_range_of_a_latent_is_a_view(grid):
    latent = random_latent(grid)
    grid.take_latent(latent, range(1, 3)).zero_()
    assert not grid.take_latent(latent, range(1, 3)).any() and latent.any()


@pytest.mark.parametrize("axis", ["frames", "rows"])
def test_a_band_of_tokens_in_line_is_that_band_of_the_video(axis):
    grid = TokenGrid(6, 5, 1, frames=4, axis=axis)
    video = torch.randn(2, 3, 4, 6, 5)
    tokens = grid.in_line(video.movedim(1, -1))  # [b, t, C]
    assert torch.equal(grid.in_frames(tokens).movedim(-1, 1), video)
    for band in (range(1, 3), Strips((range(1), range(2, 4)))):
        own = grid.in_line(grid.take_latent(video, band).movedim(1, -1))
        assert torch.equal(own, grid.take_tokens(tokens, band, 1))
        assert torch.equal(grid.in_frames(own).movedim(-1, 1), grid.take_latent(video, band))


def test_what_cannot_be_cut_so_is_refused_in_one_line():
    problem = axis_fits(SHAPE, "frames")
    assert problem is not None and problem.key == "method.patch_axis" and "allowed: rows" in problem.message
    assert axis_fits(VIDEO, "rows") is axis_fits(VIDEO, "frames") is axis_fits(SHAPE, None) is None
    problem = axis_fits(VIDEO, "cols")
    assert problem is not None and problem.message == "'cols' is unknown; allowed: frames, rows"
    problem = check(VIDEO, Parallel(ulysses=2), 4, Config())
    assert problem is not None and "does not divide the 9 latent frames; allowed: 1, 3, 9" in problem.message
    assert check(VIDEO.cut("rows"), Parallel(ulysses=2), 4, Config()) is None
    problem = check(VIDEO, Parallel(pipe=2), 4, Config(patches=10))
    assert problem is not None and problem.message.endswith("(9: the latent frames); allowed: 1..9")
