"""What is on the page: each committed output with its tables and pictures, its caption and where it is from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from analysis.columns import NOTHING
from analysis.looks import LABEL
from analysis.output import Output
from analysis.report.files import Picture, data_uri, picture
from analysis.report.origin import Group, grouped

SIDECAR = ".sources.json"
PICTURES, TEXTS = (".png", ".svg"), (".csv", ".md")
CAPITALS = {"cpu", "fid", "kv", "l20", "l40", "a100", "sd3", "pcie"}
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
    """An output as it lies in the results folder."""

    name: str
    caption: str = ""
    paper: str = ""
    commands: tuple[str, ...] = ()
    records: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name as words, a word and its number apart: `Table 1`."""
        parts = self.name.removeprefix("paper_").split("_")
        spaced = (re.sub(r"(?<=[a-z])(?=\d)", " ", part) for part in parts)
        known = [
            part.upper() if part in CAPITALS else LABEL.get(part, text)
            for part, text in zip(parts, spaced, strict=True)
        ]
        return known[0][:1].upper() + " ".join(known)[1:]

    @property
    def groups(self) -> list[Group]:
        """Its records, those that say the same of themselves together."""
        return grouped(self.records)


def exhibits(results: Path, outputs: Sequence[Output]) -> list[Exhibit]:
    """Those of `outputs` that have files, in their order, then files that no output owns."""
    sidecars = {said["name"]: said for said in map(_read, sorted(results.glob(f"*/*{SIDECAR}")))}
    rows = {output.name: output for output in outputs}
    owned: dict[str, list[list[Path]]] = {name: [] for name in [*rows, *sorted(sidecars)]}
    for stem, paths in committed(results).items():
        owned.setdefault(owner(stem, owned, sidecars), []).append(paths)
    return [
        exhibit(name, files, rows.get(name), sidecars.get(name)) for name, files in owned.items() if files
    ]


def committed(results: Path) -> dict[str, list[Path]]:
    """Every table and figure by the stem of its files, in order."""
    stems: dict[str, list[Path]] = {}
    for path in (*sorted((results / "tables").glob("*")), *sorted((results / "figures").glob("*"))):
        if path.suffix in PICTURES + TEXTS:
            stems.setdefault(path.stem, []).append(path)
    return dict(sorted(stems.items()))


def owner(stem: str, names: dict[str, Any], sidecars: dict[str, dict[str, Any]]) -> str:
    """The output a file belongs to: whose sidecar lists it, else the longest name that it begins with, else none's."""
    listed = [name for name, said in sidecars.items() if stem in {Path(file).stem for file in said["made"]}]
    begins = [name for name in names if stem == name or stem.startswith(f"{name}_")]
    return (listed or sorted(begins, key=len)[-1:] or [stem])[0]


def paper_order(one: Exhibit) -> tuple[int, int]:
    """Numbered figures of the paper, then its numbered tables, then what has no number, as it came."""
    found = re.search(r"\b(fig|tab)\w*\.? ?(\d+)", one.paper, re.IGNORECASE)
    return (2, 0) if found is None else (int(found[1].lower() == "tab"), int(found[2]))


def exhibit(
    name: str, files: list[list[Path]], row: Output | None = None, said: dict[str, Any] | None = None
) -> Exhibit:
    """What the sidecar says of these files, those of one table or figure together, or else the row."""
    one = Exhibit(name)
    if said is not None:
        commands = (*said["commands_of_records"], said["command"])
        one = Exhibit(name, said["caption"], said["paper"], commands, said["records"])
    elif row is not None:
        commands = (*row.commands, f"python -m analysis {name}")
        records = [{"record": None, "files": dict.fromkeys(row.records)}]
        one = Exhibit(name, row.caption, row.paper, commands, records)
    for paths in files:
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
    return Table(text, rows.map(short) if more else None, len(rows), csv.name, data_uri(csv))


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


def _read(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text())
    return said
