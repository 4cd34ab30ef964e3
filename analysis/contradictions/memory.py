"""Published bytes: peaks that are too low to be, figures on different sides of one device, sizes in different types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from analysis.contradictions.finding import Finding
from analysis.paper.facts import CONTRADICTION, METHODS, SP, model_of
from analysis.rows import Row, Rows
from analysis.versus.memory import GB, GIB, base_of

MEMORY = "memory"
KIN = {name: name for name in METHODS} | {SP: "SP-Ulysses"}
"""A method's name in one figure -> in the other."""


@dataclass(frozen=True)
class Peak:
    """A published peak of several devices, and that of one in the same figure."""

    row_id: str
    row: Row
    gb: float
    base_id: str
    base_gb: float

    @property
    def beyond(self) -> float:
        return self.gb / self.base_gb - 1


def peaks(rows: Rows) -> list[Peak]:
    """Those that fitted."""
    names = {id(row): row_id for row_id, row in rows.items()}
    found = []
    for row_id, row in rows.items():
        base = base_of(row, rows) if row.get("metric") in ("peak memory", "max memory") else None
        if base is not None and row["n_devices"] != "1" and row["value"] != "OOM":
            found.append(Peak(row_id, row, float(row["value"]), names[id(base)], float(base["value"])))
    return found


def mixed_types(rows: Rows) -> Iterator[Finding]:
    """Sizes on disk that the text puts side by side, with different numbers of bytes a parameter."""
    counts = of_metric("DiT params", rows)
    sizes = {model: one for model, one in of_metric("DiT on disk", rows).items() if model in counts}
    each = {model: gb / counts[model][0] for model, (gb, _) in sizes.items()}
    if each and max(each.values()) > (1 + CONTRADICTION) * min(each.values()):
        yield Finding(
            kind=MEMORY,
            what=f"size on disk of {', '.join(sizes)}, side by side",
            rows=tuple(row_id for model in sizes for row_id in (sizes[model][1], counts[model][1])),
            printed=", ".join(f"{gb:g} GB" for gb, _ in sizes.values()),
            expected="one type for all",
            size=max(each.values()) / min(each.values()) - 1,
            how="bytes a parameter: " + ", ".join(f"{model} {value:.1f}" for model, value in each.items()),
        )


def too_little(rows: Rows) -> Iterator[Finding]:
    """Peaks of `text encoder and DiT` below the text encoders and an N-th of the DiT, sizes as on disk.

    Only where one device's peak shows that they are held as on disk; the peak's GB may have been GiB.
    """
    transformers, encoders = of_metric("DiT on disk", rows), of_metric("text encoders on disk", rows)
    for peak in peaks(rows):
        model, n = peak.row["model"], peak.row["n_devices"]
        if peak.row["method"] != "PipeFusion" or model not in transformers or not n.isdecimal():
            continue
        (dit, dit_id), (text, text_id) = transformers[model], encoders[model]
        least = text + dit / int(n)
        if peak.base_gb >= text + dit and peak.gb * GIB / GB < least:
            yield Finding(
                kind=MEMORY,
                what=f"peak of PipeFusion on {n}, {model}, {peak.row['resolution']} px, with text encoders",
                rows=(peak.row_id, peak.base_id, text_id, dit_id),
                printed=f"{peak.gb:g} GB",
                expected=f"at least {least:.4g} GB",
                size=1 - peak.gb / least,
                how=f"text encoders {text:g} GB + DiT {dit:g} GB / {n}, as on disk, which one device's "
                f"{peak.base_gb:g} GB holds; GiB for GB would not explain it",
            )


def opposite_signs(rows: Rows) -> Iterator[Finding]:
    """Two figures of which one has a method above one device's memory, and the other below it."""
    groups: dict[tuple[str, str, str], list[Peak]] = {}
    for peak in peaks(rows):
        if peak.row["method"] in KIN:
            key = (model_of(peak.row), peak.row["resolution"], KIN[peak.row["method"]])
            groups.setdefault(key, []).append(peak)
    for (model, resolution, _), pair in groups.items():
        shares = [peak.beyond for peak in pair]
        if len(pair) == 2 and min(shares) < 0 < max(shares) and max(shares) - min(shares) > CONTRADICTION:
            names = " and ".join(dict.fromkeys(peak.row["method"] for peak in pair))
            yield Finding(
                kind=MEMORY,
                what=f"peak of {names} beside one device's, {model}, {resolution} px",
                rows=tuple(row_id for peak in pair for row_id in (peak.row_id, peak.base_id)),
                printed=", ".join(f"{100 * share:+.0f} %" for share in shares),
                expected="one sign",
                size=max(shares) - min(shares),
                how="; ".join(
                    f"{peak.gb:g} against {peak.base_gb:g} GB, N {peak.row['n_devices']} ({peak.row['version']})"
                    for peak in pair
                ),
            )


def of_metric(metric: str, rows: Rows) -> dict[str, tuple[float, str]]:
    """Model -> value and row."""
    return {row["model"]: (float(row["value"]), i) for i, row in rows.items() if row.get("metric") == metric}
