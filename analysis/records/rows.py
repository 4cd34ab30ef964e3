"""What a run or a study has written beside its record, read in one way: ValueError where it is not that."""

from __future__ import annotations

from collections.abc import Collection
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.files import read_text, read_yaml, require_file


def read_rows(path: Path, needed: Collection[str] = ()) -> pd.DataFrame:
    """The rows of a CSV or Parquet file. Raises OSError, and ValueError where it is broken or lacks columns."""
    try:
        rows = read_csv(path) if path.suffix == ".csv" else read_parquet(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:  # of pyarrow, which has both
        raise ValueError(f"{path} is not whole ({error})") from None
    missing = [name for name in needed if name not in rows]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}; allowed: {', '.join(needed)}, and others")
    return rows


def read_csv(path: Path) -> pd.DataFrame:
    """Rows as they were written, the last of them whole."""
    text = read_text(path)
    if not text.endswith("\n"):
        raise ValueError("its last line is cut")
    return pd.read_csv(StringIO(text), dtype={"layers": str})


def read_parquet(path: Path) -> pd.DataFrame:
    """Rows of a regular file."""
    require_file(path)
    return pd.read_parquet(path)


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run. Raises OSError, and ValueError where there is none in its config.yaml."""
    path = run_dir / "config.yaml"
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no configuration; allowed: a mapping")
    return content
