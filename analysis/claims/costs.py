"""Table 1 of the paper against counted bytes: what a device sends, its parameters, its K and V, for every method."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import table1
from analysis.accounting import WHOLE
from analysis.claims.claim import FLOAT, Claim, Comparison, exactly, of_cases, weakest
from analysis.claims.evidence import ACCOUNTING, MODEL, PARAMS, SCALING, STALENESS, Evidence
from analysis.claims.quality import settings_of
from analysis.paper.facts import METHODS
from analysis.staleness.tables import of_setting, steady
from analysis.style import label

LATEST = "NeurIPS2025/v4"
RATIO = "×"
KEPT = (
    "Between steps it keeps no K, V; those of the layer at work are among the activations, not counted apart"
)
NOTES = {
    (
        "tensor",
        "sent a step",
    ): "In its own form, cross-attention whole; split too, a device sends 1.5 times that",
    ("pipefusion", "sent a step"): (
        "A device sends half of the formula and receives the other half; the other methods' formulas count one end"
    ),
    ("tensor", "parameters"): "Cross-attention, AdaLN, the caption projection and biases are on every device",
    ("pipefusion", "parameters"): (
        "Embeddings of time and text are on every device, and where N does not divide the layers one stage is longer"
    ),
}
"""Why a cell is not what was counted."""


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    counted = pd.concat(
        found.assign(devices=devices) for devices, found in ratios(evidence).items() if not found.empty
    )
    for method in METHODS.values():
        for what in ("sent a step", "parameters", "K, V"):
            yield formula(evidence, counted, method, what)
    yield activations(evidence, counted)
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
    return {n: table1.claims(evidence.accounts, evidence.printed, evidence.folder, n) for n in numbers}


def printed(evidence: Evidence, method: str, version: str = LATEST) -> tuple[str, ...]:
    """The rows of Table 1 about a method."""
    name = next(name for name, ours in METHODS.items() if ours == method)
    return tuple(evidence.pick("table1_costs", version=version, method=name))


def of_model(counted: pd.DataFrame, method: str, what: str) -> pd.DataFrame:
    """PixArt's cases at the first W."""
    part = counted[(counted.model == MODEL) & (counted.method == method) & (counted.what == what)]
    return part[part.warmup.isna() | (part.warmup == 1)]


def formula(evidence: Evidence, counted: pd.DataFrame, method: str, what: str) -> Claim:
    """A cell of the table, exactly: at every size and N, bytes on the wire counted as collectives put them there."""
    part, note = of_model(counted, method, what), NOTES.get((method, what), "")
    layers = evidence.accounts["models"][MODEL]["layers"]
    if what == "K, V" and method == "pipefusion":
        uneven = part[layers % part.devices != 0].ratio
        part = part[layers % part.devices == 0]
        longer = f"at others the fullest device has up to {uneven.max():.2f} times that"
        note = f"At the N that divide {layers} layers; {longer}"
    on_wire = (part.devices - 1) / part.devices if what == "sent a step" and method != "pipefusion" else 1.0
    tests = [exactly(float(ratio), 1.0, RATIO) for ratio in part.ratio / on_wire]
    kept = what != "K, V" or part.ratio.max() > 0
    text = part.formula.iloc[0]
    said = {
        "sent a step": "sends {} a step",
        "parameters": "holds {} in parameters",
        "K, V": "keeps K, V of {}",
    }[what].format(text.replace("*", "·"))
    if what == "sent a step" and method != "pipefusion":
        note = ". ".join(one for one in (note, "Times (N - 1)/N, what a collective puts on the wire") if one)
    statement = f"{label(method)}: a device {said}."
    ids = printed(evidence, method)
    slug = f"table1-{method}-{what.split()[0].strip(',').lower()}"
    test = weakest(tests) if kept else Comparison(None, 1.0, unit=RATIO)
    sizes = f"Counted over printed: the worst of {len(part)} cases of {MODEL}"
    note = ". ".join(one for one in (sizes if kept else "", note) if one)
    record = WHOLE if method == "tensor" else ACCOUNTING
    return Claim(slug, statement, ids, "measured", (record,), test, note, "" if kept else KEPT)


def activations(evidence: Evidence, counted: pd.DataFrame) -> Claim:
    """The column that only the README has."""
    part = counted[(counted.model == MODEL) & (counted.what == "activations")]
    tests = [exactly(float(ratio), 1.0, RATIO) for ratio in part.ratio]
    sources = tuple(
        row_id for method in METHODS.values() for row_id in printed(evidence, method, table1.VERSION)
    )
    statement = "A device's activations are the Q and O of its share of the image, in every method."
    alive = "at the peak the MLP's hidden states and the residual stream are there too"
    note = (
        f"Counted over printed: the worst of {len(part)} cases, the least {part.ratio.min():.3g} ×; {alive}"
    )
    records = (ACCOUNTING, WHOLE)
    return Claim("table1-activations", statement, sources, "measured", records, weakest(tests), note)


def sends_least(evidence: Evidence) -> Claim:
    """Of the methods of the table, in every model."""
    table = evidence.cases[(evidence.cases.status == "ok") & (evidence.cases.devices > 1)]
    table = table[table.method.isin(METHODS.values())]
    wide = table.groupby(["model", "resolution", "devices", "method"]).step_sent_bytes.max().unstack()
    wide = wide[wide.pipefusion.notna()].astype(float)
    over = wide.drop(columns="pipefusion").min(axis="columns") / wide.pipefusion
    model, px, devices = list(wide.index)[int(over.argmin())]
    test = Comparison(float(over.min()), None, unit=RATIO, relation="more", bound=1.0)
    statement = "PipeFusion sends the least of all five methods."
    case = f"{model}, {px} px, N = {devices}"
    note = f"The next method's bytes over PipeFusion's, the least of {len(over)} cases: {case}"
    return Claim("least-sent", statement, sources_of(evidence), "measured", (ACCOUNTING,), test, note)


def sources_of(evidence: Evidence) -> tuple[str, ...]:
    """All rows of the latest Table 1."""
    return tuple(evidence.pick("table1_costs", version=LATEST))


def sends_the_same(evidence: Evidence) -> Claim:
    """A device that is not the last sends the hidden states of the image once a step, whatever L and N."""
    table = evidence.params[(evidence.params.method == "pipefusion") & (evidence.params.devices > 1)]
    table = table[(table["rank"] == 0) & (table.status == "ok")]
    image = table.kv_bytes / table.layer_count / 2
    passes = table.sent_bytes / image
    test = of_cases(abs(passes / passes.iloc[0] - 1) < FLOAT)
    statement = "What a PipeFusion device sends a step depends on neither L nor N."
    devices = f"N = {table.devices.min():.0f} to {table.devices.max():.0f}"
    note = f"Over the bytes of one layer's K: the same in {table.model.nunique()} models of several depths, {devices}"
    sources = printed(evidence, "pipefusion")
    return Claim("sent-any-layers", statement, sources, "measured", (PARAMS,), test, note)


def blocks(evidence: Evidence) -> Claim:
    """The question the project came from: N devices hold 1/N of the blocks each."""
    table = evidence.params[(evidence.params.method == "pipefusion") & (evidence.params.status == "ok")]
    layers = table.groupby(["model", "devices"]).layer_count.transform("sum")
    part = table[(layers % table.devices == 0) & (table.devices > 1)]
    test = of_cases(abs(part.block_share * part.devices - 1) < FLOAT)
    deepest = part[layers[part.index] == layers[part.index].max()].model.iloc[0]
    whole = part[part.model == deepest].groupby("devices").model_share.max()
    statement = "Each of N PipeFusion devices holds 1/N of the blocks' parameters."
    fullest = ", ".join(f"{100 * share:.1f} % at N = {devices:.0f}" for devices, share in whole.items())
    note = (
        f"A case is a device, at every N that divides the layers, {part.model.nunique()} models. Of all parameters of "
        f"{deepest}, embeddings included, the fullest device has {fullest}"
    )
    return Claim("blocks", statement, printed(evidence, "pipefusion"), "measured", (PARAMS,), test, note)


def kv(evidence: Evidence, method: str) -> pd.DataFrame:
    """K, V of the fullest device at W = 1: a row a model and size, a column an N."""
    table = evidence.cases[(evidence.cases.method == method) & (evidence.cases.warmup == 1)]
    table = table[table.status == "ok"]
    return table.pivot(index=["model", "resolution"], columns="devices", values="kv_bytes").astype(float)


def same_kv(evidence: Evidence) -> Claim:
    """More devices do not help DistriFusion's buffers."""
    wide = kv(evidence, "distrifusion")
    test = of_cases(row.max() == row.min() for _, row in wide.iterrows())
    statement = "DistriFusion's K, V on a device do not shrink with N."
    note = "A case is a model and size, over all N"
    return Claim(
        "kv-distrifusion", statement, printed(evidence, "distrifusion"), "measured", (ACCOUNTING,), test, note
    )


def nth_of_kv(evidence: Evidence) -> Claim:
    """PipeFusion's are an Nth of DistriFusion's where N divides the layers."""
    ours, theirs = kv(evidence, "pipefusion"), kv(evidence, "distrifusion")
    layers = {model: facts["layers"] for model, facts in evidence.accounts["models"].items()}
    share = ours / theirs
    even = [
        abs(share.loc[case, n] * n - 1) < FLOAT
        for case in share.index
        for n in map(int, share.columns)
        if n > 1 and layers[case[0]] % n == 0 and pd.notna(share.loc[case, n])
    ]
    test = of_cases(even)
    statement = "PipeFusion's K, V on a device are 1/N of DistriFusion's."
    sources = (*printed(evidence, "pipefusion"), *printed(evidence, "distrifusion"))
    note = "Every model and size at the N that divide the layers"
    return Claim("kv-nth", statement, sources, "measured", (ACCOUNTING,), test, note)


def any_patches(evidence: Evidence) -> Claim:
    """M is a choice of time, not of memory of K, V."""
    table = evidence.scaling[(evidence.scaling.method == "pipefusion") & (evidence.scaling.status == "ok")]
    groups = table.groupby(["cluster", "resolution", "devices"])
    many = [part for _, part in groups if part.patches.nunique() > 1]
    test = of_cases(part.kv_bytes.nunique() == 1 for part in many)
    statement = "PipeFusion's K, V on a device do not depend on M."
    note = f"A case is a hardware, size and N of {MODEL}, over all M that ran"
    return Claim(
        "kv-any-patches", statement, printed(evidence, "pipefusion"), "computed", (SCALING,), test, note
    )


def fresh(evidence: Evidence) -> Claim:
    """The column of Table 1 that says who attends to stale K, V."""
    said = {row_id: evidence.rows[row_id] for row_id in evidence.pick("table1_costs", version=table1.VERSION)}
    table = evidence.stale.freshness
    cases = []
    for row in said.values():
        name = METHODS[row["method"]]
        if name in set(table.method):
            settings = settings_of(table, name)
            jobs = [steady(of_setting(table, setting), setting) for setting in settings]
            stale = any(bool((part.age_0 < part.tokens).any()) for part in jobs)
            cases.append(stale == row["attn_KV"].startswith("stale"))
    statement = (
        "Of the five methods DistriFusion and PipeFusion attend to stale K, V, the others to fresh ones only."
    )
    return Claim(
        "fresh-kv", statement, tuple(said), "measured", (STALENESS,), of_cases(cases), "A case is a method"
    )
