"""Sizes of models, peaks, and who runs out of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from analysis.evidence.claim import Claim, Comparison, half_digit, make_claim, weakest, within
from analysis.evidence.published import METHODS, MODELS, SP, Published
from analysis.evidence.records import MODEL, Evidence
from analysis.presentation.style import label
from analysis.records.committed import ACCOUNTING, PREDICTIONS

GB, GIB = 1e9, 2.0**30
UNIT = GIB / GB - 1
"""Sources write GB and do not say whether that is 10^9 bytes or 2^30: the tolerance of everything in GB."""
FIGURE = "memory_pixart_sd3_flux"
"""The peaks of eight GPUs, text encoder and transformer."""
OLD = "legacy/scripts/plots/memory.py"
ON_DISK = {"PixArt": 4, "SD3-medium": 4, "Flux.1-dev": 2}
"""Bytes an element in the files, by model: float32 or half precision."""
BARS = ("serial", "tensor", "distrifusion", "pipefusion", SP)
SEQUENCE = ("ulysses", "ring")
LARGE = 4096


computed = partial(make_claim, "computed", (ACCOUNTING,))


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    yield from sizes(evidence)
    yield little_saved(evidence)
    for px in (1024, LARGE):
        yield most(evidence, px)
    yield added(evidence)
    yield beside_sp(evidence)
    for source in ("legacy/scripts/plots/L20-latency.py", "performance/pixart/hybrid-pixart"):
        yield out_of_memory(evidence, source)
    for method in ("DistriFusion", "SP-Ulysses"):
        yield out_at_8192(evidence, method)


def sizes(evidence: Evidence) -> Iterator[Claim]:
    """Those that are about one published number, the first of their sources."""
    for model in ON_DISK:
        yield parameters(evidence, model)
        yield on_disk(evidence, model)
    for px in (1024, 2048):
        yield share_of_sp(evidence, px)


def parameters(evidence: Evidence, model: str) -> Claim:
    """As diffusers builds it."""
    row_id = evidence.one("memory", model=model, metric="DiT params")
    text = evidence.rows[row_id]["value"]
    value = evidence.accounts["models"][MODELS[model]]["diffusers_parameters"] / 1e9
    statement = f"The transformer of {model} has {text} B parameters."
    test = Comparison(value, float(text), half_digit(text), "B")
    return Claim(f"parameters-{MODELS[model]}", statement, (row_id,), "measured", (ACCOUNTING,), test)


def on_disk(evidence: Evidence, model: str) -> Claim:
    """Parameters times the bytes of one."""
    row_id = evidence.one("memory", model=model, metric="DiT on disk")
    count = evidence.accounts["models"][MODELS[model]]["diffusers_parameters"]
    test = within(ON_DISK[model] * count / GB, evidence.value(row_id), UNIT, "GB")
    statement = f"The transformer of {model} is {evidence.value(row_id):g} GB on disk."
    note = f"{ON_DISK[model]} bytes a parameter"
    return computed(f"disk-{MODELS[model]}", statement, (row_id,), test, note)


def counted(evidence: Evidence, px: int, method: str, model: str = MODEL) -> float:
    """Peak in GB on 8 devices, or one; `SP` is the better of Ulysses and Ring."""
    if method == SP:
        return min(evidence.peak_bytes(model, px, 8, name) / GB for name in SEQUENCE)
    return evidence.peak_bytes(model, px, 1 if method == "serial" else 8, method) / GB


def bars(evidence: Evidence, px: int, model: str = "PixArt") -> dict[str, str]:
    """Method here, or `SP` -> its bar."""
    ids = evidence.pick("memory", source=FIGURE, model=model, resolution=px)
    rows = {evidence.rows[row_id].method: row_id for row_id in ids}
    return {method: rows[method] for method in BARS if method in rows}


def share_of_sp(evidence: Evidence, px: int) -> Claim:
    """Flux: PipeFusion's memory over sequence parallelism's, the text encoders on every device."""
    name, model = "Flux.1-dev", MODELS["Flux.1-dev"]
    row_id = evidence.one("memory", model=name, resolution=px, metric="memory ratio vs SP")
    encoders_id = evidence.one("memory", model=name, metric="text encoders on disk")
    encoders, theirs, rows = evidence.value(encoders_id), evidence.value(row_id), bars(evidence, px, name)
    mine, sp = (counted(evidence, px, method, model) for method in ("pipefusion", SP))
    test = within(100 * (mine + encoders) / (sp + encoders), theirs, UNIT, "%")
    statement = f"PipeFusion needs {theirs:g} % of sequence parallelism's memory on 8 L40 ({name}, {px} px)."
    even = evidence.accounts["models"][model]["param_bytes"] / GB / 8
    peak = evidence.value(rows["pipefusion"])
    note = f"With the published {encoders:g} GB of text encoders on every device; {100 * mine / sp:.3g} % without them"
    if peak < encoders + even:
        note += f". The published {peak:g} GB are less than the encoders and an even {even:.3g} GB of parameters: "
        note += "not every device held both"
    sources = (row_id, encoders_id, rows["pipefusion"], rows[SP])
    return computed(f"flux-memory-{px}", statement, sources, test, note)


def beside(evidence: Evidence, source: str, px: int) -> tuple[str, float]:
    """A published peak of one GPU, and how much of it is not the transformer's: encoders and what else there was."""
    model = "PixArt" if source == FIGURE else "PixArt-alpha"
    row_id = evidence.one("memory", source=source, model=model, resolution=px, method="Original")
    return row_id, evidence.value(row_id) - peak_of_size(evidence, px, 1, "serial")


def peak_of_size(evidence: Evidence, px: int, devices: int, method: str) -> float:
    """A peak, and beyond the largest counted size along the line through the last two: all that grows, grows with p."""
    sizes = sorted(int(size) for size in evidence.cases[evidence.cases.model == MODEL].resolution.unique())
    if px in sizes:
        return evidence.peak_bytes(MODEL, px, devices, method) / GB
    low, high = (evidence.peak_bytes(MODEL, size, devices, method) / GB for size in sizes[-2:])
    return high + (high - low) * (px**2 - sizes[-1] ** 2) / (sizes[-1] ** 2 - sizes[-2] ** 2)


def little_saved(evidence: Evidence) -> Claim:
    """PixArt's transformer is small beside its encoder."""
    px = 1024
    rows, (one_id, encoder) = bars(evidence, px), beside(evidence, FIGURE, px)
    sides = ("pipefusion", SP)
    theirs, base = (evidence.value(rows[method]) for method in sides)
    mine, sp = (counted(evidence, px, method) + encoder for method in sides)
    test = within(mine / sp, theirs / base, UNIT, "×")
    peaks = f"{test.published:.2f} of its peak"
    statement = f"On PixArt PipeFusion saves next to nothing over sequence parallelism: {peaks} ({px} px)."
    note = f"{encoder:.3g} GB are not the transformer's: the published peak of one GPU less ours"
    return computed("pixart-memory", statement, (*(rows[method] for method in sides), one_id), test, note)


def most(evidence: Evidence, px: int) -> Claim:
    """DistriFusion against everything else."""
    rows, name = bars(evidence, px), "distrifusion"
    mine, theirs = counted(evidence, px, name), evidence.value(rows[name])
    test = weakest(
        Comparison(
            mine / counted(evidence, px, method), theirs / evidence.value(row_id), 0.0, "×", "more", 1.0
        )
        for method, row_id in rows.items()
        if method != name
    )
    statement = f"DistriFusion needs the most memory of all methods (PixArt, {px} px, 8 GPUs)."
    note = "Its peak over the next one's, transformer only; published with the text encoder"
    return computed(f"most-memory-{px}", statement, tuple(rows.values()), test, note)


def added(evidence: Evidence) -> Claim:
    """What DistriFusion needs beyond one GPU: differences leave encoders out."""
    rows, case = bars(evidence, LARGE), evidence.case(MODEL, LARGE, 8, "distrifusion")
    assert case is not None
    sources = rows["distrifusion"], rows["serial"]
    theirs = evidence.value(sources[0]) - evidence.value(sources[1])
    mine = counted(evidence, LARGE, "distrifusion") - counted(evidence, LARGE, "serial")
    kept = float(case["kv_bytes"]) / GB
    statement = f"DistriFusion needs {theirs:.3g} GB more than one GPU alone (PixArt, {LARGE} px, 8 GPUs)."
    times = f"the published difference is {theirs / kept:.2f} times that, as if they were held twice"
    note = f"K, V of all layers are {kept:.3g} GB; {times}"
    return computed("distrifusion-added", statement, sources, within(mine, theirs, UNIT, "GB"), note)


def beside_sp(evidence: Evidence) -> Claim:
    """K, V of its layers against none: at the largest size PipeFusion holds more than sequence parallelism."""
    rows, sp = bars(evidence, LARGE), counted(evidence, LARGE, SP)
    sources = rows["pipefusion"], rows[SP]
    theirs = evidence.value(sources[0]) - evidence.value(sources[1])
    mine, overlapping = (evidence.peak_bytes(MODEL, LARGE, 8, "pipefusion", w) / GB - sp for w in (1, 0))
    test = Comparison(mine, theirs, UNIT * evidence.value(sources[0]), "GB")
    statement = (
        f"PipeFusion needs {theirs:.2g} GB more than sequence parallelism (PixArt, {LARGE} px, 8 GPUs)."
    )
    note = (
        "The synchronous step has the whole image as one patch and sets the peak; overlapping steps alone need "
        f"{overlapping:.2g} GB more. Tolerance: of the whole peak"
    )
    return computed("pipefusion-beside-sp", statement, sources, test, note)


def device_memory_gb(row: Published) -> float:
    """`8xL20-48GB`: 48."""
    match = re.search(r"(\d+)GB", row["hardware"])
    if match is None:
        raise ValueError(f"no memory in {row['hardware']}")
    return float(match[1])


def beyond(peak_gb: float, room: float) -> Comparison:
    """Whether a peak is more than the memory of a card, be that GB or GiB."""
    off = UNIT * room
    return Comparison(peak_gb, None, 0.0, "GB", "more", room, peak_gb - off, peak_gb + off)


def out_of_memory(evidence: Evidence, source: str) -> Claim:
    """DistriFusion at the largest size, encoders and all beside it."""
    row_id = evidence.one("latency", source=source, resolution=LARGE, method="DistriFusion")
    row, (one_id, rest) = evidence.rows[row_id], beside(evidence, FIGURE, LARGE)
    room, slug = device_memory_gb(row), row.gpu
    test = beyond(evidence.peaks[row_id] / GB + rest, room)
    again = evidence.predictions[evidence.predictions.duplicate_of == row_id].index
    statement = (
        f"DistriFusion runs out of memory on {row.devices} {slug}, {room:g} GB each (PixArt, {LARGE} px)."
    )
    twice = "K, V held twice, as published peaks look, are not in it"
    note = f"Peak of the transformer as predicted, and {rest:.3g} GB beside it. {twice}"
    sources = (row_id, *map(str, again), one_id)
    records = (PREDICTIONS, ACCOUNTING)
    return Claim(f"oom-{slug.lower()}", statement, sources, "predicted", records, test, note)


def out_at_8192(evidence: Evidence, method: str) -> Claim:
    """Beyond the sizes that were counted."""
    px, ours = 8192, METHODS[method]
    row_id = evidence.one("memory", source=OLD, resolution=px, method=method)
    room, (one_id, rest) = device_memory_gb(evidence.rows[row_id]), beside(evidence, OLD, px)
    test = beyond(peak_of_size(evidence, px, 8, ours) + rest, room)
    statement = f"{label(ours)} runs out of memory on A100, {room:g} GB each (PixArt, {px} px)."
    line = "Peak continued from the largest sizes counted, on 8 GPUs (the source names no N)"
    note = f"{line}, and {rest:.3g} GB beside it"
    return computed(f"oom-8192-{ours}", statement, (row_id, one_id), test, note)
