"""Whether a table or figure made again is the committed one.

Tables and sidecars must be the same bytes. Figures are too on the CPU that made them, but floating point differs in
its last digits between CPUs (order of vectorised sums, fused multiply-adds), and a curve may then end a millionth of
a point further. So an SVG may differ by that much in every number. In a PNG a line, or a letter, whose place is on the
border of two pixels may then be drawn in the next one: every pixel has to be found in the other picture within one
pixel of its place, so that a speck of one pixel is seen and no average hides it.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from matplotlib.image import imread

POINTS_APART = 0.02
"""The most that a coordinate in an SVG may differ by, in points of 1/72 inch."""
SHARE_APART = 1e-6
"""The same for large numbers, as a share."""
SHADES_APART = 2
"""The most that a pixel's channel may be outside what the other picture has there and next to it, of 255."""
REACH = 1
"""So many pixels around a place are next to it."""

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
    ours_pictures, theirs_pictures = PICTURE.findall(ours), PICTURE.findall(theirs)
    ours, theirs = (NAME.sub("#", PICTURE.sub("", text)) for text in (ours, theirs))
    if NUMBER.sub("0", ours) != NUMBER.sub("0", theirs) or len(ours_pictures) != len(theirs_pictures):
        return "is another drawing than its records give"
    mine = np.array(NUMBER.findall(ours), dtype=float)
    other = np.array(NUMBER.findall(theirs), dtype=float)
    apart = np.abs(mine - other) - SHARE_APART * np.abs(other)
    if apart.size and apart.max() > POINTS_APART:
        at = int(apart.argmax())
        return f"has {other[at]:g} where its records give {mine[at]:g}"
    found = (
        _pictures(base64.b64decode(one), base64.b64decode(two))
        for one, two in zip(ours_pictures, theirs_pictures, strict=True)
    )
    return next((words for words in found if words), "")


def _pictures(ours: bytes, theirs: bytes) -> str:
    mine, other = (shades(content) for content in (ours, theirs))
    if mine.shape != other.shape:
        return f"has {other.shape} pixels, and by its records {mine.shape}"
    apart = np.maximum(outside(mine, other), outside(other, mine))
    if not (apart > SHADES_APART).any():
        return ""
    row, column = np.unravel_index(int(apart.argmax()), apart.shape)
    count = int((apart > SHADES_APART).sum())
    return f"differs in {count} pixels from what its records give, the most at column {column}, row {row}"


def shades(content: bytes) -> np.ndarray:
    """The channels of a PNG [H, W, C], 0 to 255, with a sign so that differences have one."""
    found = np.rint(255 * imread(io.BytesIO(content), format="png")).astype(np.int16)
    return found.reshape(*found.shape[:2], -1)


def outside(mine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far each pixel of one picture [H, W] is, in its worst channel, outside what the other has around there."""
    padded = np.pad(other, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    height, width = mine.shape[:2]
    side = range(2 * REACH + 1)
    around = [padded[down : down + height, across : across + width] for down in side for across in side]
    over = mine - np.maximum.reduce(around)
    under = np.minimum.reduce(around) - mine
    return np.maximum(over, under).max(axis=-1)
