"""What becomes of latency with more GPUs, in a node and over Ethernet: published curves beside predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from analysis.claims.claim import Claim, Comparison, about, weakest
from analysis.claims.evidence import PREDICTIONS, Evidence
from analysis.claims.latency import OURS, PUBLISHED, SIZES, ratio
from analysis.claims.text import NO_HYBRID
from analysis.style import label

NETWORK = "Pixart-16L40"
"""The curves against N that cross Ethernet at N = 16."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for method in PUBLISHED:
        yield over_network(evidence, method)
    yield ulysses_slows(evidence)
    yield four_to_eight(evidence)
    yield hybrid_over_network(evidence)


def point(evidence: Evidence, method: str, devices: int, px: int) -> str:
    """The row of a point on a curve."""
    return evidence.one("scalability", source=NETWORK, resolution=px, n_devices=devices, method=method)


def over_network(evidence: Evidence, method: str) -> Claim:
    """From one node of eight to two nodes: slower for everything that exchanges in every layer, but for Ulysses."""
    ids = []
    for px in SIZES:
        rows = {
            n: evidence.pick("scalability", source=NETWORK, resolution=px, n_devices=n, method=method)
            for n in (8, 16)
        }
        if rows[8] and rows[16]:
            ids.append((rows[16][0], rows[8][0], px))
    tests = [ratio(evidence, far, near, px) for far, near, px in ids]
    usable = [test for test in tests if test.value is not None]
    slower = all((test.published or 0.0) > 1 for test in tests)
    change = "slower" if slower else "faster"
    tests = [test if slower else replace(test, relation="less") for test in usable]
    sizes = ", ".join(str(px) for _, _, px in ids)
    statement = f"{label(OURS[method])} is {change} on 16 L40 over Ethernet than on 8 in one node (PixArt, {sizes} px)."
    ratios = ", ".join(f"{test.value:.3g} (published {test.published:.3g})" for test in tests)
    note = f"Latency on 16 over that on 8: {ratios}"
    note += ". Sizes on whose rows the profile was fitted are left out" if len(usable) < len(ids) else ""
    sources = tuple(row_id for one in ids for row_id in one[:2])
    return Claim(
        f"network-{OURS[method]}", statement, sources, "predicted", (PREDICTIONS,), weakest(tests), note
    )


def ulysses_slows(evidence: Evidence) -> Claim:
    """All-to-all on one host: more GPUs, more time."""
    px = SIZES[0]
    ids = [point(evidence, "SP-Ulysses", n, px) for n in (2, 4, 8)]
    test = weakest(ratio(evidence, more, fewer, px) for fewer, more in pairwise(ids))
    values = " < ".join(f"{evidence.value(row_id):g} s" for row_id in ids)
    statement = f"Ulysses gets slower from 2 to 4 to 8 L40 over PCIe ({values}; PixArt, {px} px)."
    return Claim("ulysses-slows", statement, tuple(ids), "predicted", (PREDICTIONS,), test)


def four_to_eight(evidence: Evidence) -> Claim:
    """PipeFusion's own scaling in a node."""
    px = SIZES[-1]
    four, eight = (point(evidence, "PipeFusion", n, px) for n in (4, 8))
    found = ratio(evidence, four, eight, px)
    assert found.published is not None
    test = about(found.value, found.published, evidence.error(px, *2 * ["pipefusion"]), "×")
    statement = f"PipeFusion is {found.published:.2f} times as fast on 8 L40 as on 4 (PixArt, {px} px)."
    note = "Layers that do not divide by N make a stage longer than the mean"
    notes = ". ".join(part for part in (note, evidence.doubts(four, eight)) if part)
    return Claim("four-to-eight", statement, (four, eight), "predicted", (PREDICTIONS,), test, notes)


def hybrid_over_network(evidence: Evidence) -> Claim:
    """The hybrid goes on getting faster on two nodes."""
    px = SIZES[-1]
    one, many = (point(evidence, "hybrid", n, px) for n in (1, 16))
    published = evidence.value(one) / evidence.value(many)
    statement = (
        f"The hybrid is {published:.1f} times as fast as one GPU on 16 L40 over Ethernet (PixArt, {px} px)."
    )
    test = Comparison(None, published, unit="×")
    return Claim("network-hybrid", statement, (one, many), "published", (), test, "", NO_HYBRID)
