"""Who is faster than whom on eight GPUs, and by how much: published bars beside predictions."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.claims.claim import Claim, Comparison, about, faster, weakest
from analysis.claims.evidence import ALL, PREDICTIONS, Evidence
from analysis.style import label

FITTED = "The profile was fitted on this row"
L20, L40, A100 = (
    "legacy/scripts/plots/L20-latency.py",
    "performance/pixart/hybrid-pixart",
    "Table 4",
)
"""Where the bars of all methods on eight GPUs stand."""
BARS = {"8 L20 over PCIe": L20, "8 L40 over PCIe": L40, "8 A100 over NVLink": A100}
SIZES = (1024, 2048, 4096)
PUBLISHED = {"TP": "tensor", "SP-Ulysses": "ulysses", "SP-Ring": "ring", "DistriFusion": "distrifusion"}
OURS = {**PUBLISHED, "PipeFusion": "pipefusion"}


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for place, source in BARS.items():
        for px in SIZES:
            yield fastest(evidence, place, source, px)
    for place, source in BARS.items():
        yield alone(evidence, place, source)
    for px in SIZES:
        yield ring_or_ulysses(evidence, "8 L40 over PCIe", L40, px)
    yield nvlink_ulysses(evidence)
    for place, source in (("8 L20 over PCIe", L20), ("8 L40 over PCIe", L40)):
        yield tensor_gains_nothing(evidence, place, source)
    yield overlapped(evidence)


def bars(evidence: Evidence, source: str, px: int) -> dict[str, str]:
    """Method as published -> its row among the bars of eight GPUs."""
    return {
        method: row_id
        for method in OURS
        for row_id in evidence.pick("latency", source=source, resolution=px, n_devices=8, method=method)
    }


def ratio(evidence: Evidence, over: str, under: str, px: int) -> Comparison:
    """Seconds of one row over another's; no value of ours where a profile was fitted on one of them."""
    ours = evidence.predicted(over), evidence.predicted(under)
    value = ours[0] / ours[1] if ours[0] and ours[1] else None
    methods = (OURS[evidence.rows[row_id]["method"]] for row_id in (over, under))
    published = evidence.value(over) / evidence.value(under)
    return faster(value, published, evidence.error(px, *methods))


def fastest(evidence: Evidence, place: str, source: str, px: int) -> Claim:
    """PipeFusion against each of the other four; where print has it behind, that the two are level."""
    rows = bars(evidence, source, px)
    mine = rows.pop("PipeFusion")
    out = [method for method, row_id in rows.items() if evidence.rows[row_id]["value"] == "OOM"]
    tests = {
        method: ratio(evidence, row_id, mine, px) for method, row_id in rows.items() if method not in out
    }
    unfitted = {method: test for method, test in tests.items() if test.value is not None}
    best = min(unfitted, key=lambda method: unfitted[method].published or 0.0)
    each = ", ".join(f"{label(OURS[method])} {test.value:.2f}" for method, test in unfitted.items())
    note = f"Predicted seconds over PipeFusion's: {each}" + (
        f" ({' and '.join(out)}: published OOM)" if out else ""
    )
    published = unfitted[best].published or 0.0
    task = f"on {place}, PixArt, {px} px"
    if published >= 1:
        statement = f"PipeFusion is the fastest of the five methods {task}; {label(OURS[best])} is second."
        test = weakest(unfitted.values())
    else:
        ours = unfitted[best]
        statement = f"{label(OURS[best])} takes {published:.3g} of PipeFusion's time {task}."
        test = about(ours.value, published, evidence.error(px, OURS[best], "pipefusion"), "×")
    sources = (mine, *rows.values())
    notes = ". ".join(part for part in (note, evidence.doubts(*sources)) if part)
    slug = place.split()[1].lower()
    return Claim(f"fastest-{slug}-{px}", statement, sources, "predicted", (PREDICTIONS,), test, notes)


def alone(evidence: Evidence, place: str, source: str) -> Claim:
    """How many times one GPU PipeFusion is on eight, at the largest size."""
    px = SIZES[-1]
    many = bars(evidence, source, px)["PipeFusion"]
    cluster = evidence.prediction(many)["cluster"]
    table = evidence.predictions
    ones = table[(table.cluster == cluster) & (table.method == "serial") & (table.resolution == px)]
    one = str(ones.index[0])
    seconds = evidence.predicted(many)
    published = evidence.value(one) / evidence.value(many)
    value = evidence.serial(one) / seconds if seconds else None
    test = about(value, published, evidence.error(px, "pipefusion"), "×")
    statement = f"PipeFusion is {published:.2f} times as fast as one GPU on {place}, PixArt, {px} px."
    slug = place.split()[1].lower()
    return Claim(
        f"speedup-{slug}", statement, (one, many), "predicted", (PREDICTIONS,), test, evidence.doubts(many)
    )


def ring_or_ulysses(evidence: Evidence, place: str, source: str, px: int) -> Claim:
    """Point to point beats all-to-all where every GPU shares one host's PCIe."""
    rows = bars(evidence, source, px)
    ulysses, ring = rows["SP-Ulysses"], rows["SP-Ring"]
    test = ratio(evidence, ulysses, ring, px)
    statement = f"Ring is faster than Ulysses on {place}, PixArt, {px} px."
    blocked = f"{FITTED} ({ulysses})" if test.value is None else ""
    return Claim(
        f"ring-ulysses-{px}", statement, (ulysses, ring), "predicted", (PREDICTIONS,), test, "", blocked
    )


def nvlink_ulysses(evidence: Evidence) -> Claim:
    """The same on NVLink, as Table 4 prints it."""
    pairs = [(bars(evidence, A100, px), px) for px in SIZES]
    ids = [(rows["SP-Ulysses"], rows["SP-Ring"], px) for rows, px in pairs]
    test = weakest(ratio(evidence, ulysses, ring, px) for ulysses, ring, px in ids)
    statement = "Ring is faster than Ulysses on 8 A100 over NVLink at every size (PixArt)."
    sources = tuple(row_id for one in ids for row_id in one[:2])
    return Claim(
        "ring-ulysses-nvlink",
        statement,
        sources,
        "predicted",
        (PREDICTIONS,),
        test,
        evidence.doubts(*sources),
    )


def tensor_gains_nothing(evidence: Evidence, place: str, source: str) -> Claim:
    """One GPU over eight tensor-parallel ones at the smallest size."""
    px = SIZES[0]
    many = bars(evidence, source, px)["TP"]
    (one,) = evidence.pick("latency", source=source, resolution=px, n_devices=1)
    published, seconds = evidence.value(one) / evidence.value(many), evidence.predicted(many)
    value = evidence.serial(one) / seconds if seconds else None
    test = about(value, published, evidence.error(px, "tensor"), "×")
    statement = (
        f"Eight tensor-parallel GPUs are {published:.2f} times as fast as one on {place}, PixArt, {px} px."
    )
    slug = place.split()[1].lower()
    return Claim(f"tensor-{slug}", statement, (one, many), "predicted", (PREDICTIONS,), test)


def overlapped(evidence: Evidence) -> Claim:
    """DistriFusion's exchange under its computation, as Table 1 says, against its published latency on PCIe."""
    px = SIZES[1]
    row_id = bars(evidence, L40, px)["DistriFusion"]
    table = evidence.pick("table1_costs", version="NeurIPS2025/v4", method="DistriFusion")
    published = evidence.value(row_id)
    # The interval is that of all methods: the method's own is made of this very gap.
    test = about(evidence.predicted(row_id), published, evidence.error(px, ALL), "s")
    statement = (
        f"DistriFusion hides its exchange and takes {published:g} s on 8 L40 over PCIe (PixArt, {px} px)."
    )
    note = "The prediction hides the exchange; docs/predictions.md says what the difference looks like"
    return Claim("overlap", statement, (*table, row_id), "predicted", (PREDICTIONS,), test, note)
