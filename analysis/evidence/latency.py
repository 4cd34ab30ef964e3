"""Who is faster than whom on eight GPUs, and with more of them: published bars and curves beside predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from analysis.evidence.claim import Claim, Comparison, about, faster, make_claim, weakest
from analysis.evidence.published import HYBRID, METHODS, TABLE1
from analysis.evidence.records import Evidence
from analysis.presentation.style import label
from analysis.records.committed import PREDICTIONS

L20, L40, A100 = "legacy/scripts/plots/L20-latency.py", "performance/pixart/hybrid-pixart", "Table 4"
"""Where the bars of all methods on eight GPUs stand."""
BARS = {"8 L20 over PCIe": L20, "8 L40 over PCIe": L40, "8 A100 over NVLink": A100}
SIZES = SMALL, MIDDLE, LARGE = 1024, 2048, 4096
NETWORK = "Pixart-16L40"
"""The curves against N that cross Ethernet at N = 16."""


predicted = partial(make_claim, "predicted", (PREDICTIONS,))
"""A claim that predictions of published rows are held against."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for place, source in BARS.items():
        for px in SIZES:
            yield fastest(evidence, place, source, px)
    for place, source in BARS.items():
        pair = (one_gpu(evidence, source, LARGE), bars(evidence, source, LARGE)["PipeFusion"])
        sentence = f"PipeFusion is {{:.2f}} times as fast as one GPU on {place}, PixArt, {LARGE} px."
        yield compared(evidence, f"speedup-{gpu(place)}", sentence, [pair], equal=True)
    for px in SIZES:
        rows = bars(evidence, L40, px)
        sentence = f"Ring is faster than Ulysses on 8 L40 over PCIe, PixArt, {px} px."
        yield compared(evidence, f"ring-ulysses-{px}", sentence, [(rows["SP-Ulysses"], rows["SP-Ring"])])
    pairs = [(rows["SP-Ulysses"], rows["SP-Ring"]) for rows in (bars(evidence, A100, px) for px in SIZES)]
    sentence = "Ring is faster than Ulysses on 8 A100 over NVLink at every size (PixArt)."
    yield compared(evidence, "ring-ulysses-nvlink", sentence, pairs)
    for place, source in list(BARS.items())[:2]:
        pair = (one_gpu(evidence, source, SMALL), bars(evidence, source, SMALL)["TP"])
        sentence = (
            f"Eight tensor-parallel GPUs are {{:.2f}} times as fast as one on {place}, PixArt, {SMALL} px."
        )
        yield compared(evidence, f"tensor-{gpu(place)}", sentence, [pair], equal=True)
    yield overlapped(evidence)
    for method in METHODS:
        if method != "PipeFusion":
            yield over_network(evidence, method)
    ids = [point(evidence, "SP-Ulysses", n, SMALL) for n in (2, 4, 8)]
    values = " < ".join(f"{evidence.value(row_id):g} s" for row_id in ids)
    sentence = f"Ulysses gets slower from 2 to 4 to 8 L40 over PCIe ({values}; PixArt, {SMALL} px)."
    yield compared(evidence, "ulysses-slows", sentence, [(more, fewer) for fewer, more in pairwise(ids)])
    pair = (point(evidence, "PipeFusion", 4, LARGE), point(evidence, "PipeFusion", 8, LARGE))
    sentence = f"PipeFusion is {{:.2f}} times as fast on 8 L40 as on 4 (PixArt, {LARGE} px)."
    note = "Layers that do not divide by N make a stage longer than the mean"
    yield compared(evidence, "four-to-eight", sentence, [pair], note, equal=True)
    pair = (point(evidence, HYBRID, 1, LARGE), point(evidence, HYBRID, 16, LARGE))
    sentence = (
        f"The hybrid is {{:.1f}} times as fast as one GPU on 16 L40 over Ethernet (PixArt, {LARGE} px)."
    )
    note = f"Its degrees are not printed; the fastest predicted has {degrees(evidence, pair[1])}"
    yield compared(evidence, "network-hybrid", sentence, [pair], note, equal=True)


def compared(
    evidence: Evidence,
    name: str,
    sentence: str,
    pairs: Sequence[tuple[str, str]],
    *notes: str,
    equal: bool = False,
) -> Claim:
    """That rows take longer than others, or so many times as long as printed: all pairs have to hold."""
    tests = [ratio(evidence, *pair, equal) for pair in pairs]
    sources = [row_id for pair in pairs for row_id in pair]
    lacking = [row_id for row_id in sources if evidence.predicted(row_id) is None]
    fitted = [row_id for row_id in lacking if row_id in evidence.made]
    blocked = f"Not measured: the record has no prediction of {', '.join(lacking)}" if lacking else ""
    blocked = f"The profile was fitted on this row ({', '.join(fitted)})" if fitted else blocked
    statement = sentence.format(tests[0].published)
    notes = () if blocked else (*notes, evidence.doubts(*sources))
    return predicted(name, statement, sources, weakest(tests), *notes, blocked=blocked)


def ratio(evidence: Evidence, over: str, under: str, equal: bool = False) -> Comparison:
    """Seconds of one row over another's; no value of ours where a profile was fitted on one of them."""
    ours = evidence.predicted(over), evidence.predicted(under)
    one, other = evidence.rows[over], evidence.rows[under]
    value, published = ours[0] / ours[1] if ours[0] and ours[1] else None, one.value / other.value
    error = evidence.error(one.px or 0, one.method, other.method)
    return about(value, published, error, "×") if equal else faster(value, published, error)


def gpu(place: str) -> str:
    return place.split()[1].lower()


def degrees(evidence: Evidence, row_id: str) -> str:
    """The degrees that a product was predicted with, beside its own axis."""
    return evidence.made.get(row_id, {}).get("product") or ""


def bars(evidence: Evidence, source: str, px: int) -> dict[str, str]:
    """Method as published -> its row among the bars of eight GPUs."""
    return {
        method: row_id
        for method in METHODS
        for row_id in evidence.pick("latency", source=source, resolution=px, n_devices=8, method=method)
    }


def one_gpu(evidence: Evidence, source: str, px: int) -> str:
    """The row of one GPU in a figure; of a table without one, the first of the same cluster."""
    found = evidence.pick("latency", source=source, resolution=px, n_devices=1)
    table, many = evidence.predictions, bars(evidence, source, px)["PipeFusion"]
    same = (
        table[["cluster", "model", "resolution"]] == table.loc[many, ["cluster", "model", "resolution"]]
    ).all(axis=1)
    return found[0] if found else str(table[same & (table.devices == 1)].index[0])


def fastest(evidence: Evidence, place: str, source: str, px: int) -> Claim:
    """PipeFusion against each of the other four; where print has it behind, that the two are level."""
    rows = bars(evidence, source, px)
    mine = rows.pop("PipeFusion")
    out = [method for method, row_id in rows.items() if evidence.rows[row_id].oom]
    tests = {METHODS[name]: ratio(evidence, row_id, mine) for name, row_id in rows.items() if name not in out}
    known = {method: test for method, test in tests.items() if test.value is not None}
    best = min(known, key=lambda method: known[method].published or 0.0)
    each = ", ".join(f"{label(method)} {test.value:.2f}" for method, test in known.items())
    note = f"Predicted seconds over PipeFusion's: {each}"
    note += f" ({' and '.join(out)}: published OOM)" if out else ""
    published, task = known[best].published or 0.0, f"on {place}, PixArt, {px} px"
    if published >= 1:
        statement = f"PipeFusion is the fastest of the five methods {task}; {label(best)} is second."
        test = weakest(known.values())
    else:
        statement = f"{label(best)} takes {published:.3g} of PipeFusion's time {task}."
        test = about(known[best].value, published, evidence.error(px, best, "pipefusion"), "×")
    sources = (mine, *rows.values())
    return predicted(f"fastest-{gpu(place)}-{px}", statement, sources, test, note, evidence.doubts(*sources))


def overlapped(evidence: Evidence) -> Claim:
    """DistriFusion's exchange under its computation, as Table 1 says, against its published latency on PCIe."""
    row_id = bars(evidence, L40, MIDDLE)["DistriFusion"]
    table = evidence.pick(TABLE1, version="NeurIPS2025/v4", method="DistriFusion")
    published = evidence.value(row_id)
    test = about(evidence.predicted(row_id), published, evidence.error(MIDDLE, "distrifusion"), "s")
    statement = (
        f"DistriFusion hides its exchange and takes {published:g} s on 8 L40 over PCIe (PixArt, {MIDDLE} px)."
    )
    fitted = evidence.predicted(row_id) is None
    blocked = f"The contention of exchange and computing was fitted on this row ({row_id})" if fitted else ""
    return predicted("overlap", statement, (*table, row_id), test, blocked=blocked)


def point(evidence: Evidence, method: str, devices: int, px: int) -> str:
    """The row of a point on a curve."""
    return evidence.one("scalability", source=NETWORK, resolution=px, n_devices=devices, method=method)


def over_network(evidence: Evidence, method: str) -> Claim:
    """From one node of eight to two nodes: slower for everything that exchanges in every layer, but for Ulysses."""
    points = {n: evidence.pick("scalability", source=NETWORK, n_devices=n, method=method) for n in (16, 8)}
    near = {evidence.rows[row_id].px: row_id for row_id in points[8]}
    ids = [(far, near[px]) for far in points[16] if (px := evidence.rows[far].px) in near]
    tests = [ratio(evidence, *pair) for pair in ids]
    slower = all((test.published or 0.0) > 1 for test in tests)
    relation = "more" if slower else "less"
    usable = [replace(test, relation=relation) for test in tests if test.value is not None]
    sizes, change = ", ".join(str(evidence.rows[far].px) for far, _ in ids), "slower" if slower else "faster"
    where = f"on 16 L40 over Ethernet than on 8 in one node (PixArt, {sizes} px)"
    ratios = ", ".join(f"{test.value:.3g} (published {test.published:.3g})" for test in usable)
    note = f"Latency on 16 over that on 8: {ratios}"
    left = "Sizes on whose rows the profile was fitted are left out" if len(usable) < len(ids) else ""
    name, statement = METHODS[method], f"{label(METHODS[method])} is {change} {where}."
    sources = [row_id for pair in ids for row_id in pair]
    return predicted(f"network-{name}", statement, sources, weakest(usable), note, left)
