"""What the published rows contradict: each other, their own settings, and the text about them. All by computation.

No finding is typed in. The thresholds are those of `facts`: for rounding, for reading off a curve, for a contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from analysis import tables
from analysis.contradictions import bounds, labels, memory, settings, table1, text, warmup
from analysis.contradictions.finding import CONTRADICTS, FOLLOWS, UNCHECKED, UNLIKE, Finding
from analysis.paper.facts import Latency, latencies, published
from analysis.rows import Rows
from analysis.tables import as_text, percent
from analysis.versus import latency as ours
from analysis.versus import memory as account

VERDICTS = {
    CONTRADICTS: "these rows do not go together as they are printed",
    UNLIKE: "nothing in the sources speaks against it, our prediction does",
    FOLLOWS: "what is printed is what its numbers give",
    UNCHECKED: "the numbers that it comes from are not printed",
}
KINDS = [bounds.BOUND, bounds.UNCUT, bounds.LINEAR, warmup.CONVENTION, labels.SWAPPED, labels.ONE_NUMBER]
KINDS += [settings.TWO_NUMBERS, labels.MISLABELLED, settings.IMPOSSIBLE, settings.SLOWER, memory.MEMORY]
KINDS += [text.TEXT, table1.VERSIONS]


@dataclass(frozen=True)
class Sources:
    """The published rows, and what is needed to judge them: layers of the models, our predicted seconds by row."""

    rows: Rows
    latencies: list[Latency]
    layers: dict[str, int]
    ours: dict[str, float]


def load(results: Path) -> Sources:
    """From the results folder."""
    rows, models = published(results / "published"), account.models(results)
    layers = {name: int(facts["layers"]) for name, facts in models.items()}
    return Sources(rows, latencies(rows), layers, ours.seconds(results))


def findings(sources: Sources) -> Iterator[Finding]:
    """All of them."""
    rows, found = sources.rows, sources.latencies
    yield from bounds.below_bound(found)
    yield from bounds.whole_layers(found, sources.layers)
    yield from bounds.communication(found, rows)
    yield from bounds.superlinear(found)
    yield from bounds.speedups(rows)
    yield from warmup.synchronous_steps(found, sources.layers)
    yield from labels.swapped(found, sources.ours)
    yield from labels.one_number(found)
    yield from labels.one_curve(found)
    yield from settings.two_numbers(found)
    yield from labels.copied(found, rows)
    yield from settings.other_gpu(found)
    yield from settings.too_many_devices(found, rows)
    yield from settings.other_steps(found, rows)
    yield from settings.slower(found, sources.ours)
    yield from memory.mixed_types(rows)
    yield from memory.too_little(rows)
    yield from memory.opposite_signs(rows)
    yield from text.claims(found, rows)
    yield from text.shares(rows)
    yield from table1.versions(rows, sources.layers[settings.PIXART])


def table(sources: Sources) -> pd.DataFrame:
    """One row a finding: contradictions first, by kind, the largest first."""
    lines = [asdict(one) | {"rows": " ".join(one.rows)} for one in findings(sources)]
    columns = ["verdict", "kind", "what", "rows", "printed", "expected", "size", "how"]
    found = pd.DataFrame(lines, columns=columns).astype({"size": float})
    found = found.sort_values(["size", "rows"], ascending=[False, True], kind="stable")
    order = [*VERDICTS, *KINDS]
    by = ["verdict", "kind"]
    return found.sort_values(by, key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def counts_text(found: pd.DataFrame) -> pd.DataFrame:
    """How many of each kind, by verdict."""
    wide = pd.crosstab(found.kind, found.verdict).reindex(index=KINDS, fill_value=0).reset_index()
    columns: tables.Columns = {"kind": ("kind", str)}
    columns |= {
        verdict: (verdict, lambda count: str(count or "–")) for verdict in VERDICTS if verdict in wide
    }
    return as_text(wide, columns)


def words(found: pd.DataFrame) -> pd.DataFrame:
    """The findings as words."""
    columns: tables.Columns = {
        "kind": ("kind", str),
        "what": ("what", str),
        "printed": ("printed", str),
        "expected": ("from the rest", str),
        "size": ("off by", percent),
        "how": ("how", str),
        "rows": ("rows", str),
    }
    return as_text(found, columns)


def save(found: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """NAME.csv, all findings; NAME.md, how many, and then those of each verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    found.to_csv(csv, index=False, lineterminator="\n")
    parts = [tables.markdown(counts_text(found))]
    for verdict, meaning in VERDICTS.items():
        part = found[found.verdict == verdict]
        if len(part):
            parts.append(f"**{verdict}** ({len(part)}): {meaning}.\n\n{tables.markdown(words(part))}")
    md.write_text("\n".join(parts))
    return [csv, md]
