"""A committed picture as part of the page: whichever of its PNG and SVG is smaller, as a data URI."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

NOT_SEEN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
PIXELS_A_POINT = 96 / 72


def picture(paths: list[Path], alt: str) -> str:
    """An <img> of the same figure in one or more formats. A button shows it in its own size, for narrow screens."""
    smallest = min(paths, key=lambda path: len(data_uri(path)))
    width, height = size(smallest)
    return (
        '<div class="picture" role="group" tabindex="0">'
        f'<img src="{data_uri(smallest)}" width="{width}" height="{height}" alt="{escape(alt)}"></div>'
        '<button type="button" class="zoom" aria-pressed="false" hidden>Full size</button>'
    )


def data_uri(path: Path) -> str:
    """A file as an address that needs no other file. It holds nothing that HTML would have to escape."""
    if path.suffix == ".svg":
        return "data:image/svg+xml," + percent(lean(path.read_text()))
    if path.suffix == ".csv":
        return "data:text/csv;charset=utf-8," + percent(path.read_text())
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def percent(text: str) -> str:
    """Percent-encoded, less what HTML and addresses let stand between double quotes: much shorter than base64."""
    return quote(text, safe=" ',:;/=?@!$()*+-._~<>[]{}|^")


def lean(svg: str) -> str:
    """The same drawing without comments, metadata and line breaks."""
    short = re.sub(r"\s+", " ", NOT_SEEN.sub("", svg)).strip()
    return short if "'" in short else short.replace('"', "'")


def size(path: Path) -> tuple[int, int]:
    """Width and height in CSS pixels: a PNG's own, an SVG's points at 96 pixels an inch."""
    if path.suffix == ".png":
        header = path.read_bytes()[16:24]
        return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
    found = re.search(r'<svg[^>]*?\bviewBox="\S+ \S+ (\S+) (\S+)"', path.read_text())
    if found is None:
        raise ValueError(f"{path}: an SVG without a viewBox")
    return round(float(found[1]) * PIXELS_A_POINT), round(float(found[2]) * PIXELS_A_POINT)
