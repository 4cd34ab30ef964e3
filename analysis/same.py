"""Whether a table or figure made again is the committed one.

Tables and sidecars must be the same bytes. Figures are too on the CPU that made them, but floating point differs in
its last digits between CPUs, and a curve may then end a millionth of a point further: an SVG may differ by that much in
every number. In a PNG a line whose place is on the border of two pixels may be drawn in the next one: every pixel has
to be found in the other picture within one pixel of its place, so that a single speck is seen.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

POINTS_APART = 0.02
"""The most that a coordinate in an SVG may differ by, in points of 1/72 inch."""
SHARE_APART = 1e-6
"""The same for large numbers, as a share."""
SHADES_APART = 2
"""The most that a pixel's channel may be outside what the other picture has there and next to it, of 255."""

PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
NAME = re.compile(r"\b[a-z][0-9a-f]{10}\b")
"""Ids in an SVG, made from what they name: other digits there are other names."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def difference(made: Path, committed: Path) -> str:
    """What is different, in a few words; empty when they are the same."""
    if not committed.exists():
        return "is not there"
    ours, theirs = made.read_bytes(), committed.read_bytes()
    if ours == theirs:
        return ""
    if made.suffix == ".svg":
        return _drawings(ours.decode(), theirs.decode())
    if made.suffix == ".png":
        return _pictures(ours, theirs)
    return _lines(ours.decode(errors="replace"), theirs.decode(errors="replace"))


def _lines(ours: str, theirs: str) -> str:
    """The first line that differs."""
    pairs = zip(ours.splitlines(), theirs.splitlines(), strict=False)
    for number, (one, other) in enumerate(pairs, start=1):
        if one != other:
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            cut = slice(max(at - 10, 0), at + 20)
            return f"line {number} is {one[cut]!r} by its records, and {other[cut]!r} as committed"
    return f"has {len(theirs.splitlines())} lines, and by its records {len(ours.splitlines())}"


def _drawings(ours: str, theirs: str) -> str:
    """The number that is furthest off, or that the rest is not the same."""
    inside = zip(PICTURE.findall(ours), PICTURE.findall(theirs), strict=False)
    ours, theirs = (NAME.sub("#", PICTURE.sub("picture", text)) for text in (ours, theirs))
    if NUMBER.sub("0", ours) != NUMBER.sub("0", theirs):
        return "is another drawing than its records give"
    mine, other = (np.array(NUMBER.findall(text), dtype=float) for text in (ours, theirs))
    apart = np.abs(mine - other) - SHARE_APART * np.abs(other)
    if apart.size and apart.max() > POINTS_APART:
        at = int(apart.argmax())
        return f"has {other[at]:g} where its records give {mine[at]:g}"
    found = (_pictures(base64.b64decode(one), base64.b64decode(two)) for one, two in inside)
    return next((words for words in found if words), "")


def _pictures(ours: bytes, theirs: bytes) -> str:
    """The box of pixels that are not in the other picture."""
    mine, other = (Image.open(io.BytesIO(content)).convert("RGBA") for content in (ours, theirs))
    if mine.size != other.size:
        return f"has {other.size} pixels, and by its records {mine.size}"
    apart = ImageChops.lighter(_outside(mine, other), _outside(other, mine))
    box = apart.point(lambda shade: 255 * (shade > SHADES_APART)).getbbox(alpha_only=False)
    if box is None:
        return ""
    left, top, right, bottom = box
    return f"differs from what its records give in columns {left}-{right - 1}, rows {top}-{bottom - 1}"


def _outside(mine: Image.Image, other: Image.Image) -> Image.Image:
    """How far each channel of a picture is outside what the other has at that pixel and the eight around it."""
    over = ImageChops.subtract(mine, other.filter(ImageFilter.MaxFilter(3)))
    return ImageChops.lighter(over, ImageChops.subtract(other.filter(ImageFilter.MinFilter(3)), mine))
