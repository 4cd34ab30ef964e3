"""The ratios that the paper's text states: one claim for every row of `claims.csv`."""

from __future__ import annotations

from analysis.claims.claim import APART, Claim, Comparison, about, around, half_digit, weakest
from analysis.claims.evidence import MODELS, PREDICTIONS, Evidence
from analysis.rows import Row
from analysis.style import label

OURS = {
    "PixArt": "pixart_alpha",
    "SD3-medium": "sd3_medium",
    "Flux.1-dev": "flux_dev",
    "HunyuanDiT": "hunyuan_dit",
}
"""A model's name as published -> here."""
CLUSTER = "l40_pcie"
OTHERS = ("tensor", "ulysses", "ring", "distrifusion")
SEQUENCE = ("ulysses", "ring")
NO_HYBRID = "A hybrid of several methods, none of the methods here"
NO_RECORD = "No record yet"


def claims(evidence: Evidence) -> list[Claim]:
    """A claim a row, in the order of the file."""
    return [claim_of(evidence, row_id) for row_id in evidence.pick("claims")]


def claim_of(evidence: Evidence, row_id: str) -> Claim:
    """Which test a row gets."""
    row = evidence.rows[row_id]
    if "cfg=" in row["method"]:
        return hybrid(row_id, row)
    if row["metric"] == "effective computation ratio":
        return bubble(row_id, row)
    if row["metric"].startswith("communication"):
        return communication(evidence, row_id, row)
    if row["setting"] == "vs 1 GPU":
        return speedup(evidence, row_id, row)
    return against_best(evidence, row_id, row)


def where(row: Row) -> str:
    """Model, size and hardware of a row in words."""
    return f"{row['model']}, {row['resolution']} px, {cards(row)}"


def cards(row: Row) -> str:
    """`8xL40-48GB`: 8 L40."""
    return row["hardware"].partition("-")[0].replace("x", " ")


def hybrid(row_id: str, row: Row) -> Claim:
    """Groups of guidance and pipeline stages together."""
    value, devices = float(row["value"]), int(row["n_devices"])
    more = f"The figure is more than {devices} times one GPU on {devices} GPUs" if value > devices else ""
    statement = f"The hybrid {row['method']} is {row['value']} times as fast as one GPU ({where(row)})."
    test = Comparison(None, value, unit="×")
    return Claim(row_id, statement, (row_id,), "published", (), test, more, NO_HYBRID)


def bubble(row_id: str, row: Row) -> Claim:
    """The share of busy micro-steps."""
    devices, steps = int(row["n_devices"]), int(row["steps"])
    patches = devices  # as the row's setting says, M = N
    value = 100 * patches * steps / (patches * steps + devices - 1)
    statement = f"With M = N = {devices} and S = {steps}, {row['value']} % of the micro-steps are busy."
    test = Comparison(value, float(row["value"]), half_digit(row["value"]), "%")
    return Claim(row_id, statement, (row_id,), "computed", (), test, "M S / (M S + N - 1), without warm-up")


def speedup(evidence: Evidence, row_id: str, row: Row) -> Claim:
    """PipeFusion against one GPU."""
    model, px, devices = OURS[row["model"]], int(row["resolution"]), int(row["n_devices"])
    one, many = (
        evidence.seconds(model, CLUSTER, px, n, method)
        for n, method in ((1, "serial"), (devices, "pipefusion"))
    )
    value = one / many if one and many else None
    statement = f"PipeFusion is {row['value']} times as fast as one GPU ({where(row)})."
    test = about(value, float(row["value"]), evidence.error(px, "pipefusion"), "×")
    blocked = "" if value else NO_RECORD
    note = (
        "The interval is that of PixArt's predictions: no other model is among the rows predicted"
        if value
        else ""
    )
    return Claim(row_id, statement, (row_id,), "predicted", (MODELS,), test, note, blocked)


def against_best(evidence: Evidence, row_id: str, row: Row) -> Claim:
    """PipeFusion against the best of all other methods, or of all ways to be sequence parallel.

    The best of them in print is a hybrid (USP), which is none of the methods here. But it is the *best*: any other
    method bounds the ratio from above, so a prediction can refute the claim and cannot confirm it.
    """
    model, px, devices = OURS[row["model"]], int(row["resolution"]), int(row["n_devices"])
    names = SEQUENCE if "USP" in row["setting"] else OTHERS
    mine = evidence.seconds(model, CLUSTER, px, devices, "pipefusion")
    found = {name: evidence.seconds(model, CLUSTER, px, devices, name) for name in names}
    known = {name: seconds / mine for name, seconds in found.items() if seconds and mine}
    published = float(row["value"])
    tests = {
        name: about(ratio, published, evidence.error(px, "pipefusion", name), "×", "at most")
        for name, ratio in known.items()
    }
    test = weakest(tests.values())
    best = next((name for name, one in tests.items() if one is test), None)
    against = "the best sequence-parallel run" if names == SEQUENCE else "the second best method"
    statement = f"PipeFusion is {row['value']} times as fast as {against} ({where(row)})."
    if best is None:
        test = Comparison(None, published, unit="×")
    bounds = f"{label(best)} bounds the ratio" if best else ""
    note = f"The best in print is a hybrid, none of the methods here; {bounds}" if best else ""
    records = (PREDICTIONS,) if model == OURS["PixArt"] else (MODELS,)
    return Claim(row_id, statement, (row_id,), "predicted", records, test, note, "" if best else NO_RECORD)


def communication(evidence: Evidence, row_id: str, row: Row) -> Claim:
    """What eight GPUs take beyond one eighth of one GPU: of PipeFusion as predicted, of SP at most."""
    model, px, devices = OURS[row["model"]], int(row["resolution"]), int(row["n_devices"])
    one = evidence.seconds(model, CLUSTER, px, 1, "serial")
    names = ("pipefusion",) if row["method"] == "PipeFusion" else SEQUENCE
    found = {name: evidence.seconds(model, CLUSTER, px, devices, name) for name in names}
    known = {name: seconds for name, seconds in found.items() if seconds}
    best = min(known, key=lambda name: known[name])
    assert one is not None
    share, published, alone = row["metric"] == "communication share", float(row["value"]), one / devices

    def cost(many: float) -> float:
        return 100 * (1 - alone / many) if share else many - alone

    low, high = around(known[best], evidence.error(px, best))
    what = "of its latency" if share else "beyond one eighth of one GPU's latency"
    unit = row["unit"]
    statement = f"Communication of {row['method']} costs {row['value']} {unit} {what} ({where(row)})."
    if names == SEQUENCE:
        note = f"The row's run is a hybrid (USP), the best of sequence parallelism; {label(best)} alone bounds it"
    else:
        note = "The difference holds warm-up, uneven stages and bubbles beside communication"
    relation = "at most" if names == SEQUENCE else "equal"
    test = Comparison(
        cost(known[best]), published, APART * published, unit, relation, low=cost(low), high=cost(high)
    )
    return Claim(row_id, statement, (row_id,), "predicted", (PREDICTIONS,), test, note)
