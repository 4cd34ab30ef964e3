"""Scores of samples, and the cards that print them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from experiments.recipes.cards import model_facts, render, write_model_card
from experiments.recipes.score import ranks

SHIPPED = Path("results/models/emoji64")


def test_ranks_on_planted_answers() -> None:
    closer = torch.zeros(4, 8)
    closer[0, 3] = 1.0  # first
    closer[1] = torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1])  # third
    closer[2] = torch.arange(8.0)  # last
    # Row 3: all equal, which counts as last.
    found = ranks(closer, torch.tensor([3, 2, 0, 0]))
    assert found == {"top1": 0.25, "top5": 0.5, "median_rank": 3.0}


def test_a_smaller_pool_is_an_expectation_over_draws() -> None:
    closer = torch.arange(1001.0).expand(2, -1)
    # First of 1,001; second, so found unless the one nearer picture is among the 255 drawn of 1,000.
    found = ranks(closer, torch.tensor([1000, 999]))
    assert found["top1_of_few"] == pytest.approx((1 + (1 - 255 / 1000)) / 2, abs=1e-4)
    assert "top1_of_few" not in ranks(closer[:, :256], torch.tensor([255, 254]))


def test_the_shipped_card_is_made_of_its_files(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    write_model_card(folder)
    for name in ("README.md", "NOTICE"):
        assert (folder / name).read_text() == (SHIPPED / name).read_text()


def test_the_card_says_what_is_found_among_fewer() -> None:
    found = model_facts(SHIPPED)["score"]
    assert "drawn at random" not in render("score.md", score=found)  # all of its pictures are 256
    found["few"] = 256
    found["train"]["features"]["top1_of_few"], found["train"]["pixels"]["top1_of_few"] = 0.123, 0.456
    text = render("score.md", score=found)
    assert "one and 255 other real pictures" in text
    assert "12.3% by features, 45.6% by pixels" in text
