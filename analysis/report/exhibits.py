"""What is on the page: each committed output with its tables and pictures, its caption and where it is from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from analysis.presentation.columns import COLUMNS, NOTHING
from analysis.presentation.looks import LABEL
from analysis.report.files import Picture, data_uri, picture
from analysis.report.origin import Group, grouped

SIDECAR = ".sources.json"
PICTURES, TEXTS = (".png", ".svg"), (".csv", ".md")
CAPITALS = {"cpu", "fid", "kv", "l20", "l40", "a100", "sd3", "pcie"}
WORDS = {"params": "parameters", "vs": "and", "bench": "benchmark of the"}
"""What a part of a name is in a title, where it is no word."""
WHOLE_UP_TO = 500
"""Rows of a CSV that are shown; a longer one is a link."""
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass(frozen=True)
class Table:
    """A committed table: its text as HTML, all its rows where they are more than the text has, and its CSV."""

    text: Markup
    whole: pd.DataFrame | None
    rows: int
    csv: str | None
    uri: Markup | None


@dataclass(frozen=True)
class Exhibit:
    """An output as its sidecar has it, with its files."""

    name: str
    caption: str = ""
    paper: str = ""
    commands: tuple[str, ...] = ()
    records: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name in words, a word and its number apart: `Table 1`."""
        parts = self.name.removeprefix("paper_").split("_")
        spaced = (WORDS.get(part) or re.sub(r"(?<=[a-z])(?=\d)", " ", part) for part in parts)
        known = [
            part.upper() if part in CAPITALS else LABEL.get(part, text)
            for part, text in zip(parts, spaced, strict=True)
        ]
        return known[0][:1].upper() + " ".join(known)[1:]

    @property
    def groups(self) -> list[Group]:
        """Its records, those that say the same of themselves together."""
        return grouped(self.records)


def exhibits(results: Path) -> list[Exhibit]:
    """Every output that has a sidecar, by name."""
    found = [json.loads(path.read_text()) for path in results.glob(f"*/*{SIDECAR}")]
    return [exhibit(entry, results) for entry in sorted(found, key=lambda entry: str(entry["name"]))]


def paper_order(one: Exhibit) -> tuple[int, int]:
    """Numbered figures of the paper, then its numbered tables, then what has no number, as it came."""
    found = re.search(r"\b(fig|tab)\w*\.? ?(\d+)", one.paper, re.IGNORECASE)
    return (2, 0) if found is None else (int(found[1].lower() == "tab"), int(found[2]))


def exhibit(entry: dict[str, Any], results: Path) -> Exhibit:
    """What a sidecar says, and the tables and pictures that it lists."""
    commands = (*entry["commands_of_records"], entry["command"])
    one = Exhibit(entry["name"], entry["caption"], entry["paper"], commands, entry["records"])
    stems: dict[str, list[Path]] = {}
    for name in entry["made"]:
        stems.setdefault(Path(name).stem, []).append(results / name)
    for paths in stems.values():
        drawn, written = ([path for path in paths if path.suffix in kinds] for kinds in (PICTURES, TEXTS))
        if drawn:
            one.pictures.append(picture(drawn))
        if written:
            one.tables.append(table({path.suffix: path for path in written}, one.title))
    return one


def table(paths: dict[str, Path], title: str) -> Table:
    """The committed text; the raw rows too where the text is a digest of them."""
    text = html(paths[".md"].read_text(), title) if ".md" in paths else Markup()
    if ".csv" not in paths:
        return Table(text, None, 0, None, None)
    csv = paths[".csv"]
    rows = pd.read_csv(csv, dtype_backend="numpy_nullable")
    more = text.count("<tr>") - text.count("<thead>") < len(rows) <= WHOLE_UP_TO
    whole = rows.map(short).rename(columns=heading) if more else None
    return Table(text, whole, len(rows), csv.name, data_uri(csv))


def heading(name: str) -> str:
    """A column of a CSV in words, with its raw unit."""
    text = COLUMNS[name].heading if name in COLUMNS else re.sub(r"_(s|bytes)$", "", name).replace("_", " ")
    unit = re.search(r"_(s|bytes|db|gb)$", name)
    return f"{text}, {unit[1]}" if unit else text


def short(cell: Any) -> str:
    """A raw cell as read: a float in four of its digits, a dash for nothing."""
    if pd.isna(cell):
        return NOTHING
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def html(text: str, title: str) -> Markup:
    """Committed Markdown as HTML: its headings below an exhibit's, every table in a box that scrolls."""
    tokens = MARKDOWN.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"
        token.attrs.pop("style", None)  # alignment, which the page's script decides by what a column says
    page = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    box = f'<div class="sortable"><div class="box" role="region" tabindex="0" aria-label="{escape(title)}">'
    return Markup(page.replace("<table>", f"{box}\n<table>").replace("</table>", "</table></div></div>"))
