"""Sizes of models, peaks, and who runs out of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

from analysis.claims.claim import Claim, Comparison, half_digit, weakest, within
from analysis.claims.evidence import ACCOUNTING, MODEL, PREDICTIONS, Evidence
from analysis.claims.text import OURS, cards
from analysis.style import label

GB = 1e9
UNIT = 2**30 / GB - 1
"""Sources write GB and do not say whether that is 10^9 bytes or 2^30: the tolerance of everything in GB."""
FIGURE = "memory_pixart_sd3_flux"
"""The peaks of eight GPUs, text encoder and transformer."""
OLD = "legacy/scripts/plots/memory.py"
ON_DISK = {"PixArt": 4, "SD3-medium": 4, "Flux.1-dev": 2}
"""Bytes an element in the files, by model: float32 or half precision."""
SP = ("ulysses", "ring")
WARM = {"distrifusion": 1, "pipefusion": 1}
NAMES = {"Original": "serial", "TP": "tensor", "DistriFusion": "distrifusion", "PipeFusion": "pipefusion"}


def claims(evidence: Evidence) -> Iterator[Claim]:
    """All of this theme."""
    for model in OURS:
        if evidence.pick("memory", model=model, metric="DiT params"):
            yield parameters(evidence, model)
            yield on_disk(evidence, model)
    for px in (1024, 2048):
        yield share_of_sp(evidence, px)
    yield little_saved(evidence)
    for px in (1024, 4096):
        yield most(evidence, px)
    yield added(evidence)
    yield beside_sp(evidence)
    for source in ("legacy/scripts/plots/L20-latency.py", "performance/pixart/hybrid-pixart"):
        yield out_of_memory(evidence, source)
    for method in ("DistriFusion", "SP-Ulysses"):
        yield out_at_8192(evidence, method)


def peak(evidence: Evidence, model: str, px: int, devices: int, method: str) -> float:
    """GB of the fullest device as counted, transformer only, W = 1."""
    return float(evidence.case(model, px, devices, method, WARM.get(method)).peak_bytes) / GB


def parameters(evidence: Evidence, model: str) -> Claim:
    """As diffusers builds it."""
    row_id = evidence.one("memory", model=model, metric="DiT params")
    text = evidence.rows[row_id]["value"]
    value = evidence.accounts["models"][OURS[model]]["diffusers_parameters"] / 1e9
    test = Comparison(value, float(text), half_digit(text), "B")
    statement = f"The transformer of {model} has {text} B parameters."
    return Claim(f"parameters-{OURS[model]}", statement, (row_id,), "measured", (ACCOUNTING,), test)


def on_disk(evidence: Evidence, model: str) -> Claim:
    """Parameters times the bytes of one."""
    row_id = evidence.one("memory", model=model, metric="DiT on disk")
    count = evidence.accounts["models"][OURS[model]]["diffusers_parameters"]
    test = within(ON_DISK[model] * count / GB, evidence.value(row_id), UNIT, "GB")
    statement = f"The transformer of {model} is {evidence.value(row_id):g} GB on disk."
    note = f"{ON_DISK[model]} bytes a parameter"
    return Claim(f"disk-{OURS[model]}", statement, (row_id,), "computed", (ACCOUNTING,), test, note)


def share_of_sp(evidence: Evidence, px: int) -> Claim:
    """Flux: PipeFusion's memory over sequence parallelism's, the text encoders on every device."""
    name, model = "Flux.1-dev", OURS["Flux.1-dev"]
    row_id = evidence.one("memory", model=name, resolution=px, metric="memory ratio vs SP")
    encoders_id = evidence.one("memory", model=name, metric="text encoders on disk")
    encoders, devices = evidence.value(encoders_id), int(evidence.rows[row_id]["n_devices"])
    mine = peak(evidence, model, px, devices, "pipefusion")
    sp = min(peak(evidence, model, px, devices, method) for method in SP)
    test = within(100 * (mine + encoders) / (sp + encoders), evidence.value(row_id), UNIT, "%")
    said = evidence.value(row_id)
    statement = f"PipeFusion needs {said:g} % of sequence parallelism's memory on 8 L40 ({name}, {px} px)."
    bars = {
        method: evidence.one("memory", source=FIGURE, model=name, resolution=px, method=method)
        for method in ("PipeFusion", "SP")
    }
    even = evidence.accounts["models"][model]["param_bytes"] / GB / devices
    note = f"With the published {encoders:g} GB of text encoders on every device; {100 * mine / sp:.3g} % without them"
    if evidence.value(bars["PipeFusion"]) < encoders + even:
        note += (
            f". The published {evidence.value(bars['PipeFusion']):g} GB are less than the encoders and an even "
            f"{even:.3g} GB of parameters: not every device held both"
        )
    sources = (row_id, encoders_id, *bars.values())
    return Claim(f"flux-memory-{px}", statement, sources, "computed", (ACCOUNTING,), test, note)


def beside(evidence: Evidence, source: str, px: int) -> tuple[str, float]:
    """A published peak of one GPU, and how much of it is not the transformer's: encoders and what else there was."""
    model = "PixArt" if source == FIGURE else "PixArt-alpha"
    row_id = evidence.one("memory", source=source, model=model, resolution=px, method="Original")
    return row_id, evidence.value(row_id) - peak_of_size(evidence, px, 1, "serial")


def peak_of_size(evidence: Evidence, px: int, devices: int, method: str) -> float:
    """`peak`, and beyond the largest counted size along the line through the last two: all that grows, grows with p."""
    sizes = sorted(int(size) for size in evidence.cases[evidence.cases.model == MODEL].resolution.unique())
    if px in sizes:
        return peak(evidence, MODEL, px, devices, method)
    low, high = (peak(evidence, MODEL, size, devices, method) for size in sizes[-2:])
    return high + (high - low) * (px**2 - sizes[-1] ** 2) / (sizes[-1] ** 2 - sizes[-2] ** 2)


def little_saved(evidence: Evidence) -> Claim:
    """PixArt's transformer is small beside its encoder."""
    px = 1024
    mine_id, sp_id = (
        evidence.one("memory", source=FIGURE, model="PixArt", resolution=px, method=method)
        for method in ("PipeFusion", "SP")
    )
    one_id, encoder = beside(evidence, FIGURE, px)
    mine = peak(evidence, MODEL, px, 8, "pipefusion") + encoder
    sp = min(peak(evidence, MODEL, px, 8, method) for method in SP) + encoder
    test = within(mine / sp, evidence.value(mine_id) / evidence.value(sp_id), UNIT, "×")
    peaks = f"{test.published:.2f} of its peak"
    statement = f"On PixArt PipeFusion saves next to nothing over sequence parallelism: {peaks} ({px} px)."
    note = f"{encoder:.3g} GB are not the transformer's: the published peak of one GPU less ours"
    return Claim("pixart-memory", statement, (mine_id, sp_id, one_id), "computed", (ACCOUNTING,), test, note)


def bars_of(evidence: Evidence, px: int) -> dict[str, str]:
    """Method here -> its bar; SP is the better of Ulysses and Ring."""
    found = {
        method: evidence.one("memory", source=FIGURE, model="PixArt", resolution=px, method=name)
        for name, method in NAMES.items()
    }
    return found | {"sp": evidence.one("memory", source=FIGURE, model="PixArt", resolution=px, method="SP")}


def counted(evidence: Evidence, px: int, method: str) -> float:
    """Its peak on 8 GPUs, or one."""
    if method == "sp":
        return min(peak(evidence, MODEL, px, 8, name) for name in SP)
    return peak(evidence, MODEL, px, 1 if method == "serial" else 8, method)


def most(evidence: Evidence, px: int) -> Claim:
    """DistriFusion against everything else."""
    rows = bars_of(evidence, px)
    mine, said = counted(evidence, px, "distrifusion"), evidence.value(rows["distrifusion"])
    others = [method for method in rows if method != "distrifusion"]
    tests = [
        Comparison(
            mine / counted(evidence, px, method), said / evidence.value(rows[method]), 0.0, "×", "more", 1.0
        )
        for method in others
    ]
    statement = f"DistriFusion needs the most memory of all methods (PixArt, {px} px, 8 GPUs)."
    note = "Its peak over the next one's, transformer only; published with the text encoder"
    return Claim(
        f"most-memory-{px}", statement, tuple(rows.values()), "computed", (ACCOUNTING,), weakest(tests), note
    )


def added(evidence: Evidence) -> Claim:
    """What DistriFusion needs beyond one GPU: differences leave encoders out."""
    px = 4096
    rows = bars_of(evidence, px)
    said = evidence.value(rows["distrifusion"]) - evidence.value(rows["serial"])
    mine = counted(evidence, px, "distrifusion") - counted(evidence, px, "serial")
    kept = float(evidence.case(MODEL, px, 8, "distrifusion", 1).kv_bytes) / GB
    statement = f"DistriFusion needs {said:.3g} GB more than one GPU alone (PixArt, {px} px, 8 GPUs)."
    times = f"the published difference is {said / kept:.2f} times that, as if they were held twice"
    note = f"K, V of all layers are {kept:.3g} GB; {times}"
    sources = (rows["distrifusion"], rows["serial"])
    return Claim(
        "distrifusion-added",
        statement,
        sources,
        "computed",
        (ACCOUNTING,),
        within(mine, said, UNIT, "GB"),
        note,
    )


def beside_sp(evidence: Evidence) -> Claim:
    """K, V of its layers against none: at the largest size PipeFusion holds more than sequence parallelism."""
    px = 4096
    rows = bars_of(evidence, px)
    said = evidence.value(rows["pipefusion"]) - evidence.value(rows["sp"])
    mine = counted(evidence, px, "pipefusion") - counted(evidence, px, "sp")
    overlapping = float(evidence.case(MODEL, px, 8, "pipefusion", 0).peak_bytes) / GB - counted(
        evidence, px, "sp"
    )
    test = Comparison(mine, said, UNIT * evidence.value(rows["pipefusion"]), "GB")
    statement = f"PipeFusion needs {said:.2g} GB more than sequence parallelism (PixArt, {px} px, 8 GPUs)."
    note = (
        "The synchronous step has the whole image as one patch and sets the peak; overlapping steps alone need "
        f"{overlapping:.2g} GB more. Tolerance: of the whole peak"
    )
    sources = (rows["pipefusion"], rows["sp"])
    return Claim("pipefusion-beside-sp", statement, sources, "computed", (ACCOUNTING,), test, note)


def room_of(text: str) -> float:
    """`8xL20-48GB`: 48."""
    match = re.search(r"(\d+)GB", text)
    if match is None:
        raise ValueError(f"no memory in {text}")
    return float(match[1])


def beyond(peak_gb: float, room: float) -> Comparison:
    """Whether a peak is more than the memory of a card, be that GB or GiB."""
    off = UNIT * room
    return Comparison(peak_gb, None, 0.0, "GB", "more", room, peak_gb - off, peak_gb + off)


def out_of_memory(evidence: Evidence, source: str) -> Claim:
    """DistriFusion at the largest size, encoders and all beside it."""
    px = 4096
    row_id = evidence.one("latency", source=source, resolution=px, method="DistriFusion")
    row = evidence.rows[row_id]
    room = room_of(row["hardware"])
    one_id, rest = beside(evidence, FIGURE, px)
    mine = evidence.peaks[row_id] / GB + rest
    test = beyond(mine, room)
    card = cards(row)
    again = evidence.predictions[evidence.predictions.duplicate_of == row_id].index
    statement = f"DistriFusion runs out of memory on {card}, {room:g} GB each (PixArt, {px} px)."
    twice = "K, V held twice, as published peaks look, are not in it"
    note = f"Peak of the transformer as predicted, and {rest:.3g} GB beside it. {twice}"
    slug = card.split()[-1].lower()
    sources = (row_id, *map(str, again), one_id)
    return Claim(f"oom-{slug}", statement, sources, "predicted", (PREDICTIONS, ACCOUNTING), test, note)


def out_at_8192(evidence: Evidence, method: str) -> Claim:
    """Beyond the sizes that were counted."""
    px, ours = 8192, {"DistriFusion": "distrifusion", "SP-Ulysses": "ulysses"}[method]
    row_id = evidence.one("memory", source=OLD, resolution=px, method=method)
    room = room_of(evidence.rows[row_id]["hardware"])
    one_id, rest = beside(evidence, OLD, px)
    test = beyond(peak_of_size(evidence, px, 8, ours) + rest, room)
    statement = f"{label(ours)} runs out of memory on A100, {room:g} GB each (PixArt, {px} px)."
    line = "Peak continued from the largest sizes counted, on 8 GPUs (the source names no N)"
    note = f"{line}, and {rest:.3g} GB beside it"
    return Claim(f"oom-8192-{ours}", statement, (row_id, one_id), "computed", (ACCOUNTING,), test, note)
