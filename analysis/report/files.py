"""Committed files as parts of the page: data URIs, of a picture whichever of its PNG and SVG is smaller."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

NOT_SEEN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
PLACES = re.compile(r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*|(?<=translate\()[^)]*')
DECIMALS = re.compile(r"\d+\.\d{3,}")
PIXELS_A_POINT = 96 / 72


class Picture(NamedTuple):
    """A committed figure; width and height are in CSS pixels."""

    name: str
    uri: Markup
    width: int
    height: int


def picture(paths: list[Path]) -> Picture:
    """The smallest of the files of one figure, in its own size."""
    uris = {path: data_uri(path) for path in paths}
    smallest = min(paths, key=lambda path: len(uris[path]))
    return Picture(smallest.stem, uris[smallest], *size(smallest))


def data_uri(path: Path) -> Markup:
    """A file as an address that needs no other file; a PNG as lossless WebP, a third of its size. It holds nothing that
    ends an attribute."""
    if path.suffix == ".svg":
        return Markup("data:image/svg+xml," + percent(lean(path.read_text())))
    if path.suffix == ".csv":
        return Markup("data:text/csv;charset=utf-8," + percent(path.read_text()))
    stored = BytesIO()
    with Image.open(path) as image:
        image.save(stored, "WEBP", lossless=True, quality=30, method=1)  # quick, and near the smallest
    return Markup("data:image/webp;base64," + base64.b64encode(stored.getvalue()).decode())


def percent(text: str) -> str:
    """Percent-encoded, less what HTML and addresses let stand between double quotes: much shorter than base64."""
    return quote(text, safe=" ',:;/=?@!$()*+-._~<>[]{}|^")


def lean(svg: str) -> str:
    """The same drawing without comments, metadata and line breaks: places to a hundredth of a point, short names."""
    rounded = PLACES.sub(lambda at: DECIMALS.sub(lambda number: f"{float(number[0]):.2f}", at[0]), svg)
    short = re.sub(r"\s+", " ", NOT_SEEN.sub("", rounded)).strip()
    for long, brief in (("> <", "><"), ("xlink:href", "href"), ("DejaVuSans-", "D")):
        short = short.replace(long, brief)
    return short if "'" in short else short.replace('"', "'")


def size(path: Path) -> tuple[int, int]:
    """Width and height in CSS pixels: a PNG's own, an SVG's points at 96 pixels an inch."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return image.size
    found = re.search(r'<svg[^>]*?\bviewBox="\S+ \S+ (\S+) (\S+)"', path.read_text())
    if found is None:
        raise ValueError(f"{path}: an SVG without a viewBox")
    return round(float(found[1]) * PIXELS_A_POINT), round(float(found[2]) * PIXELS_A_POINT)
