"""Table 1 of the paper against counted bytes: what a device sends, its parameters, its K and V, for every method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from analysis.evidence.claim import FLOAT, Claim, Comparison, exactly, of_cases, weakest
from analysis.evidence.published import METHODS, TABLE1
from analysis.evidence.quality import measured, steady_jobs
from analysis.evidence.records import MODEL, Evidence
from analysis.memory import table1
from analysis.presentation.style import label
from analysis.records.committed import ACCOUNTING, PARAMS, SCALING, STALENESS, WHOLE

LATEST, RATIO = "NeurIPS2025/v4", "×"
KEPT = (
    "Between steps it keeps no K, V; those of the layer at work are among the activations, not counted apart"
)
SENT, HELD, KV = "sent a step", "parameters", "K, V"
SAYS = {SENT: "sends {} a step", HELD: "holds {} in parameters", KV: "keeps K, V of {}"}
NOTES = {
    ("tensor", SENT): "In its own form, cross-attention whole; split too, a device sends 1.5 times that",
    ("pipefusion", SENT): (
        "A device sends half of the formula and receives the other half; the other methods' formulas count one end"
    ),
    ("tensor", HELD): "Cross-attention, AdaLN, the caption projection and biases are on every device",
    ("pipefusion", HELD): (
        "Embeddings of time and text are on every device, and where N does not divide the layers one stage is longer"
    ),
}
"""Why a cell is not what was counted."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    found = ratios(evidence)
    counted = pd.concat(part.assign(devices=n) for n, part in found.items() if not part.empty)
    counted = counted[counted.model == MODEL]
    for method in METHODS.values():
        for what in SAYS:
            yield formula(evidence, counted, method, what)
    yield activations(evidence, counted[counted.what == "activations"])
    yield sends_least(evidence)
    yield sends_the_same(evidence)
    yield blocks(evidence)
    yield same_kv(evidence)
    yield nth_of_kv(evidence)
    yield any_patches(evidence)
    yield fresh(evidence)


def ratios(evidence: Evidence) -> dict[int, pd.DataFrame]:
    """N -> counted over printed, of every case on N > 1."""
    numbers = sorted(int(n) for n in evidence.printed.devices.unique() if n > 1)
    return {n: table1.claims(evidence.accounts, evidence.printed, evidence.rows, n) for n in numbers}


def printed(evidence: Evidence, *methods: str, version: str = LATEST) -> tuple[str, ...]:
    """The rows of Table 1 about methods, or about all."""
    rows = evidence.pick(TABLE1, version=version)
    of = {one: evidence.rows[one].method for one in rows}
    return tuple(one for name in methods or ("",) for one in rows if name in ("", of[one]))


def formula(evidence: Evidence, counted: pd.DataFrame, method: str, what: str) -> Claim:
    """A cell of the table, exactly: at every size and N, bytes on the wire counted as collectives put them there."""
    part, note = counted[(counted.method == method) & (counted.what == what)], NOTES.get((method, what), "")
    part = part[part.warmup.isna() | (part.warmup == 1)]
    layers = evidence.accounts["models"][MODEL]["layers"]
    collective = what == SENT and method != "pipefusion"
    if what == KV and method == "pipefusion":
        uneven = part[layers % part.devices != 0].ratio
        part = part[layers % part.devices == 0]
        longer = f"at others the fullest device has up to {uneven.max():.2f} times that"
        note = f"At the N that divide {layers} layers; {longer}"
    elif collective:
        note = ". ".join(filter(None, (note, "Times (N - 1)/N, what a collective puts on the wire")))
    on_wire = (part.devices - 1) / part.devices if collective else 1.0
    kept = what != KV or part.ratio.max() > 0
    tests = [exactly(float(ratio), 1.0, RATIO) for ratio in part.ratio / on_wire]
    test = weakest(tests) if kept else Comparison(None, 1.0, unit=RATIO)
    statement = f"{label(method)}: a device {SAYS[what].format(part.formula.iloc[0].replace('*', '·'))}."
    sizes = f"Counted over printed: the worst of {len(part)} cases of {MODEL}" if kept else ""
    record, name = (
        WHOLE if method == "tensor" else ACCOUNTING,
        f"table1-{method}-{what.split()[0].strip(',').lower()}",
    )
    note = ". ".join(filter(None, (sizes, note)))
    made = measured(name, statement, printed(evidence, method), record, test, note)
    return made if kept else replace(made, blocked=KEPT)


def activations(evidence: Evidence, part: pd.DataFrame) -> Claim:
    """The column that only the README has."""
    test = weakest(exactly(float(ratio), 1.0, RATIO) for ratio in part.ratio)
    sources = printed(evidence, *METHODS.values(), version=table1.VERSION)
    statement = "A device's activations are the Q and O of its share of the image, in every method."
    alive = "at the peak the MLP's hidden states and the residual stream are there too"
    note = (
        f"Counted over printed: the worst of {len(part)} cases, the least {part.ratio.min():.3g} ×; {alive}"
    )
    return Claim("table1-activations", statement, sources, "measured", (ACCOUNTING, WHOLE), test, note)


def sends_least(evidence: Evidence) -> Claim:
    """Of the methods of the table, in every model."""
    table = evidence.cases[(evidence.cases.status == "ok") & (evidence.cases.devices > 1)]
    table = table[table.method.isin(METHODS.values())]
    wide = table.groupby(["model", "resolution", "devices", "method"]).step_sent_bytes.max().unstack()
    wide = wide[wide.pipefusion.notna()].astype(float)
    over = wide.drop(columns="pipefusion").min(axis="columns") / wide.pipefusion
    model, px, devices = list(wide.index)[int(over.argmin())]
    test = Comparison(float(over.min()), None, unit=RATIO, relation="more", bound=1.0)
    case = f"{model}, {px} px, N = {devices}"
    note = f"The next method's bytes over PipeFusion's, the least of {len(over)} cases: {case}"
    statement = "PipeFusion sends the least of all five methods."
    return measured("least-sent", statement, printed(evidence), ACCOUNTING, test, note)


def sends_the_same(evidence: Evidence) -> Claim:
    """A device that is not the last sends the hidden states of the image once a step, whatever L and N."""
    table = evidence.params[(evidence.params.method == "pipefusion") & (evidence.params.devices > 1)]
    table = table[(table["rank"] == 0) & (table.status == "ok")]
    passes = table.sent_bytes / (table.kv_bytes / table.layer_count / 2)
    test = of_cases(abs(passes / passes.iloc[0] - 1) < FLOAT)
    statement = "What a PipeFusion device sends a step depends on neither L nor N."
    devices = f"N = {table.devices.min():.0f} to {table.devices.max():.0f}"
    note = f"Over the bytes of one layer's K: the same in {table.model.nunique()} models of several depths, {devices}"
    return measured("sent-any-layers", statement, printed(evidence, "pipefusion"), PARAMS, test, note)


def blocks(evidence: Evidence) -> Claim:
    """The question the project came from: N devices hold 1/N of the blocks each."""
    table = evidence.params[(evidence.params.method == "pipefusion") & (evidence.params.status == "ok")]
    layers = table.groupby(["model", "devices"]).layer_count.transform("sum")
    part = table[(layers % table.devices == 0) & (table.devices > 1)]
    test = of_cases(abs(part.block_share * part.devices - 1) < FLOAT)
    deepest = part[layers[part.index] == layers[part.index].max()].model.iloc[0]
    whole = part[part.model == deepest].groupby("devices").model_share.max()
    fullest = ", ".join(f"{100 * share:.1f} % at N = {devices:.0f}" for devices, share in whole.items())
    note = (
        f"A case is a device, at every N that divides the layers, {part.model.nunique()} models. Of all parameters of "
        f"{deepest}, embeddings included, the fullest device has {fullest}"
    )
    statement = "Each of N PipeFusion devices holds 1/N of the blocks' parameters."
    return measured("blocks", statement, printed(evidence, "pipefusion"), PARAMS, test, note)


def kv(evidence: Evidence, method: str) -> pd.DataFrame:
    """K, V of the fullest device at W = 1: a row a model and size, a column an N."""
    table = evidence.cases[(evidence.cases.method == method) & (evidence.cases.warmup == 1)]
    table = table[table.status == "ok"]
    return table.pivot(index=["model", "resolution"], columns="devices", values="kv_bytes").astype(float)


def same_kv(evidence: Evidence) -> Claim:
    """More devices do not help DistriFusion's buffers."""
    test = of_cases(row.max() == row.min() for _, row in kv(evidence, "distrifusion").iterrows())
    sources, note = printed(evidence, "distrifusion"), "A case is a model and size, over all N"
    statement = "DistriFusion's K, V on a device do not shrink with N."
    return measured("kv-distrifusion", statement, sources, ACCOUNTING, test, note)


def nth_of_kv(evidence: Evidence) -> Claim:
    """PipeFusion's are an Nth of DistriFusion's where N divides the layers."""
    share = kv(evidence, "pipefusion") / kv(evidence, "distrifusion")
    layers = share.index.get_level_values("model").map(
        lambda model: evidence.accounts["models"][model]["layers"]
    )
    test = of_cases(
        abs(one * int(n) - 1) < FLOAT
        for n in share.columns
        for one in share[n][(layers % int(n) == 0) & (int(n) > 1)].dropna()
    )
    sources = printed(evidence, "pipefusion", "distrifusion")
    statement = "PipeFusion's K, V on a device are 1/N of DistriFusion's."
    note = "Every model and size at the N that divide the layers"
    return measured("kv-nth", statement, sources, ACCOUNTING, test, note)


def any_patches(evidence: Evidence) -> Claim:
    """M is a choice of time, not of memory of K, V."""
    table = evidence.scaling[(evidence.scaling.method == "pipefusion") & (evidence.scaling.status == "ok")]
    groups = table.groupby(["cluster", "resolution", "devices"])
    test = of_cases(part.kv_bytes.nunique() == 1 for _, part in groups if part.patches.nunique() > 1)
    statement = "PipeFusion's K, V on a device do not depend on M."
    note = f"A case is a hardware, size and N of {MODEL}, over all M that ran"
    made = measured("kv-any-patches", statement, printed(evidence, "pipefusion"), SCALING, test, note)
    return replace(made, kind="computed")


def fresh(evidence: Evidence) -> Claim:
    """The column of Table 1 that says who attends to stale K, V."""
    rows, cases = evidence.pick(TABLE1, version=table1.VERSION), []
    for row in map(evidence.rows.__getitem__, rows):
        parts = [part for _, part in steady_jobs(evidence, row.method)]
        if parts:
            stale = any(bool((part.age_0 < part.tokens).any()) for part in parts)
            cases.append(stale == row["attn_KV"].startswith("stale"))
    statement = (
        "Of the five methods DistriFusion and PipeFusion attend to stale K, V, the others to fresh ones only."
    )
    return measured("fresh-kv", statement, tuple(rows), STALENESS, of_cases(cases), "A case is a method")
