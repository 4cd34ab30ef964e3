"""Text of files of any content: read, or refused without the end of the process."""

from pathlib import Path

import pytest

from analysis.records.files import MOST_LEVELS, read_json, read_yaml


@pytest.mark.parametrize("text", ["[" * 1_000_000, "{a: " * 1_000_000, "- " * 100_000])
def test_what_is_nested_without_end_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_yaml(path)


def test_what_is_nested_as_configurations_are_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("[" * MOST_LEVELS + "]" * MOST_LEVELS)
    assert read_yaml(path) == read_json(path)


def test_what_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(ValueError, match="is not whole"):
        read_yaml(path)
