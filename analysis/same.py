"""Whether a table or figure made again is the committed one.

Tables and sidecars must be the same bytes. Figures are too on the CPU that made them, but floating point differs in
its last digits between CPUs (order of vectorised sums, fused multiply-adds), and a curve may then end a millionth of
a point further. So an SVG may differ by that much in every number, and a PNG in the shade of a few pixels.
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
GREY_APART = 0.05
"""The most that two pictures may differ by, in the mean over pixels and channels, of 255."""

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
    mine, other = (imread(io.BytesIO(content), format="png") for content in (ours, theirs))
    if mine.shape != other.shape:
        return f"has {other.shape} pixels, and by its records {mine.shape}"
    apart = 255 * float(np.abs(mine.astype(float) - other.astype(float)).mean())
    return (
        "" if apart <= GREY_APART else f"differs by {apart:.3g} of 255 in the mean from what its records give"
    )
