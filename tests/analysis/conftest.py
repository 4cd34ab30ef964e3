"""Figures of tests are coarse: `python -m analysis --check` draws every one in full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis.presentation import style


@pytest.fixture(autouse=True, scope="session")
def _coarse() -> Iterator[None]:
    save = style.save

    def coarse(figure: Figure, folder: str | Path, name: str, dpi: int = 160) -> list[Path]:
        return save(figure, folder, name, dpi // 4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", coarse)
        yield
