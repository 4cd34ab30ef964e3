"""What is on the page: each committed output with its files, its caption and where it is from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.output import Output
from analysis.style import LABEL

SIDECAR = ".sources.json"
PICTURES, TEXTS = (".png", ".svg"), (".csv", ".md")
CAPITALS = {"cpu", "fid", "kv", "l20", "l40", "a100", "sd3", "pcie"}


@dataclass(frozen=True)
class Exhibit:
    """An output as it lies in the results folder. `stems` are its tables and figures by the name of their files."""

    name: str
    stems: dict[str, list[Path]]
    caption: str = ""
    paper: str = ""
    commands: tuple[str, ...] = ()
    records: tuple[dict[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """The name as words."""
        words = self.name.removeprefix("paper_").split("_")
        known = [word.upper() if word in CAPITALS else LABEL.get(word, _spaced(word)) for word in words]
        return known[0][:1].upper() + " ".join(known)[1:]

    def files(self, suffixes: Sequence[str]) -> list[list[Path]]:
        """The files that end so, those of one table or figure together."""
        chosen = [[path for path in paths if path.suffix in suffixes] for paths in self.stems.values()]
        return [paths for paths in chosen if paths]


def _spaced(word: str) -> str:
    """A word and its number apart: table 1."""
    return re.sub(r"(?<=[a-z])(?=\d)", " ", word)


def exhibits(results: Path, outputs: Sequence[Output]) -> list[Exhibit]:
    """Those of `outputs` that have files, in their order, then files that no output owns."""
    found = committed(results)
    sidecars = {said["name"]: said for said in map(_read, _sidecars(results))}
    rows = {output.name: output for output in outputs}
    owned: dict[str, dict[str, list[Path]]] = {name: {} for name in [*rows, *sorted(sidecars)]}
    for stem, paths in found.items():
        owned.setdefault(owner(stem, owned, sidecars), {})[stem] = paths
    return [
        _exhibit(name, stems, rows.get(name), sidecars.get(name)) for name, stems in owned.items() if stems
    ]


def committed(results: Path) -> dict[str, list[Path]]:
    """Every table and figure by the stem of its files, in order."""
    paths = [
        path
        for folder in ("tables", "figures")
        for path in sorted((results / folder).glob("*"))
        if path.suffix in PICTURES + TEXTS
    ]
    stems: dict[str, list[Path]] = {}
    for path in paths:
        stems.setdefault(path.stem, []).append(path)
    return dict(sorted(stems.items()))


def owner(stem: str, names: dict[str, Any], sidecars: dict[str, dict[str, Any]]) -> str:
    """The output a file belongs to: whose sidecar lists it, else the longest name that it begins with, else none's."""
    listed = [name for name, said in sidecars.items() if stem in {Path(file).stem for file in said["made"]}]
    begins = [name for name in names if stem == name or stem.startswith(f"{name}_")]
    return (listed or sorted(begins, key=len)[-1:] or [stem])[0]


def paper_order(exhibit: Exhibit) -> tuple[int, int]:
    """Numbered figures of the paper, then its numbered tables, then what has no number, as it came."""
    found = re.search(r"\b(fig|tab)\w*\.? ?(\d+)", exhibit.paper, re.IGNORECASE)
    if found is None:
        return (2, 0)
    return (int(found[1].lower() == "tab"), int(found[2]))


def _exhibit(
    name: str, stems: dict[str, list[Path]], row: Output | None, said: dict[str, Any] | None
) -> Exhibit:
    """What the sidecar says, or else the row."""
    if said is not None:
        commands = (*said["commands_of_records"], said["command"])
        return Exhibit(name, stems, said["caption"], said["paper"], commands, tuple(said["records"]))
    if row is not None:
        commands = (*row.commands, f"python -m analysis {name}")
        records = {"files": dict.fromkeys(row.records)}
        return Exhibit(name, stems, row.caption, row.paper, commands, (records,))
    return Exhibit(name, stems)


def _sidecars(results: Path) -> list[Path]:
    return sorted(results.glob(f"*/*{SIDECAR}"))


def _read(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text())
    return said
