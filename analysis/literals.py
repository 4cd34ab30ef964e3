"""Numbers in the code of tables and figures that look like results: there must be none, all come from records.

A number is suspicious when it has three significant digits or more: written with a decimal point it always is, a whole
one when it is a published value or stands in a committed table (a power of two is a size and never suspicious). In the
text of a string it is suspicious when it is such a value, rounded as it is written, or a hundred times it (per cent).
A suspicious number is let pass when it is layout:

- what it is given to has a name for a place or a size (`Figure(...)`, `set_xlim(...)`, `fontsize=`, `WIDTH = `), or
- it is a factor or summand in arithmetic, or a constant in capitals with a comment that says what it is,
  and not a published value.

Three or more such numbers in one list, tuple, set or dict are a series, and that is never layout; nor are three or more
published values with two digits. Docstrings are exempt.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIGITS, SERIES = 3, 3
"""From how many significant digits a number may be a result, and from how many numbers a list may be a series."""
PLACES = re.compile(
    r"figure|figsize|sheet|panels|inches|axes|adjust|anchor|text|annotate|[xy]lim|\w*width|\w*height|"
    r"left|right|top|bottom|across|down|head|foot|sides?|room|\w*pad|\w*spac(e|ing)|(font|label|marker|title)size",
)
"""The last word of a name for a place or a size."""
NUMBER = re.compile(r"(?<![\w.#:/%-])\d+(?:\.\d+)?(?![\w.]*\d)(?!\.\w)")
"""A number in a text that is no part of a word, colour, version, row id or format."""
NESTS = (ast.List, ast.Tuple, ast.Set, ast.Dict)
Parents = dict[ast.AST, ast.AST]


@dataclass(frozen=True)
class Values:
    """What is known: published values, and those of the committed tables."""

    published: frozenset[float]
    tables: np.ndarray

    def has(self, text: str) -> bool:
        """Whether some value, or a hundred times it, is this number when rounded to as many decimals."""
        decimals = len(text.partition(".")[2])
        every = np.concatenate([np.array(sorted(self.published)), self.tables])
        every = np.concatenate([every, 100 * every]) if decimals else every
        rounded = np.round(every, decimals) if decimals else every
        return bool((np.abs(rounded - float(text)) < 0.1 ** (decimals + 3)).any())


def known(results: Path) -> Values:
    """All values in published/*.csv and tables/*.csv."""
    published = {
        float(row["value"])
        for path in sorted((results / "published").glob("*.csv"))
        for row in csv.DictReader(path.read_text().splitlines())
        if is_number(row.get("value"))
    }
    cells = {
        float(cell)
        for path in sorted((results / "tables").glob("*.csv"))
        for row in csv.reader(path.read_text().splitlines())
        for cell in row
        if is_number(cell)
    }
    return Values(frozenset(published), np.array(sorted(cells)))


def is_number(cell: str | None) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell or "") is not None


def findings(source: str, values: Values) -> list[str]:
    """`LINE: what is found there`, in order."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    lines = source.splitlines()
    found: set[tuple[int, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, NESTS):
            found |= {(node.lineno, words) for words in series(node, source, values)}
        if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
            continue
        if isinstance(node.value, str) and not is_docstring(node, parents):
            found |= {(node.lineno, f"{text} in a string") for text in in_text(node.value, values)}
        elif isinstance(node.value, int | float):
            text = written(node, source)
            if suspicious(text, values) and not is_layout(node, parents, lines, values):
                found.add((node.lineno, text))
    return [f"{line}: {words}" for line, words in sorted(found)]


def in_text(text: str, values: Values) -> Iterator[str]:
    """The numbers in a text that are known values."""
    for match in NUMBER.finditer(text):
        number = match[0]
        if significant(number) >= DIGITS and not is_size(number) and values.has(number):
            yield number


def in_config(text: str, values: Values) -> list[str]:
    """`LINE: number` of the published values in a configuration, comments included."""
    return [
        f"{at}: {match[0]}"
        for at, line in enumerate(text.splitlines(), 1)
        for match in NUMBER.finditer(line)
        if significant(match[0]) >= DIGITS and float(match[0]) in values.published and not is_size(match[0])
    ]


def suspicious(text: str, values: Values) -> bool:
    """Whether a number as written may be a result."""
    if significant(text) < DIGITS or is_size(text):
        return False
    return "." in text or values.has(text)


def significant(text: str) -> int:
    """Digits of a number as written, without zeros at either end."""
    digits = text.partition("e")[0].replace(".", "").lstrip("0")
    return len(digits.rstrip("0"))


def is_size(text: str) -> bool:
    """Whether it is a power of two."""
    value = float(text)
    return value.is_integer() and value > 0 and int(value).bit_count() == 1


def written(node: ast.Constant, source: str) -> str:
    return (ast.get_source_segment(source, node) or str(node.value)).replace("_", "").lower()


def is_docstring(node: ast.AST, parents: Parents) -> bool:
    """A string that stands alone: of a module, class or function, or below a constant."""
    return isinstance(parents.get(node), ast.Expr)


def is_layout(node: ast.AST, parents: Parents, lines: list[str], values: Values) -> bool:
    """Whether a number is for a place or a size, or part of a calculation, see above."""
    own = isinstance(node, ast.Constant) and isinstance(node.value, int | float) and float(node.value)
    published, arithmetic, inner = own in values.published, False, node
    while inner in parents:
        outer = parents[inner]
        if isinstance(outer, ast.JoinedStr):  # it will be read
            return False
        if any(is_place(name) for name in names_of(outer, inner)) and not is_bar(outer, parents):
            return True
        if isinstance(outer, ast.BinOp) and not all(
            isinstance(side, ast.Constant) for side in (outer.left, outer.right)
        ):
            arithmetic = True
        if isinstance(outer, ast.Assign | ast.AnnAssign):
            names = [
                one.id
                for one in ast.walk(outer)
                if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            ]
            commented = "#" in lines[outer.lineno - 1] or '"""' in "".join(lines[outer.end_lineno or 0 :][:1])
            arithmetic |= bool(names) and all(name.isupper() for name in names) and commented
        if isinstance(outer, ast.stmt):
            break
        inner = outer
    return arithmetic and not published


def is_place(name: str) -> bool:
    """Whether a name ends with a word for a place or a size."""
    return PLACES.fullmatch(re.split(r"[_.]", name.lower())[-1]) is not None


def is_bar(outer: ast.AST, parents: Parents) -> bool:
    """Whether it is an argument of `bar` or `barh`, whose width and height are data."""
    call = parents.get(outer)
    return isinstance(call, ast.Call) and getattr(call.func, "attr", "").startswith("bar")


def names_of(outer: ast.AST, inner: ast.AST) -> list[str]:
    """What `inner` is given to, by name: a called function, an argument, a key or a variable."""
    if isinstance(outer, ast.keyword):
        return [outer.arg or ""]
    if isinstance(outer, ast.Call):
        function = outer.func
        return [getattr(function, "attr", getattr(function, "id", ""))] if inner is not function else []
    if isinstance(outer, ast.Dict):
        keys = [key for key, value in zip(outer.keys, outer.values, strict=True) if value is inner]
        return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    if isinstance(outer, ast.Assign | ast.AnnAssign):
        targets = outer.targets if isinstance(outer, ast.Assign) else [outer.target]
        names = [one for target in targets for one in ast.walk(target)]
        return [getattr(one, "id", getattr(one, "attr", "")) for one in names]
    return []


def series(node: ast.expr, source: str, values: Values) -> Iterator[str]:
    """What a list, tuple, set or dict says when it has several numbers that may be results."""
    if isinstance(node, ast.Dict):
        inside = node.values
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        inside = node.elts
    else:
        return
    numbers = [
        written(one, source)
        for one in inside
        if isinstance(one, ast.Constant)
        and isinstance(one.value, int | float)
        and not isinstance(one.value, bool)
    ]
    many = [text for text in numbers if significant(text) >= DIGITS and not is_size(text)]
    taken = [
        text for text in numbers if significant(text) >= 2 and "." in text and float(text) in values.published
    ]
    for group in (many, taken):
        if len(group) >= SERIES:
            yield f"a series, {', '.join(group)}"
            return
