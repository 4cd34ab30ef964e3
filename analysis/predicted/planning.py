"""Plans, read: the front of latency, memory and exactness, who wins by how much, and which request has another winner.

Rows as `experiment=plan` records them: settings of a request (size, N, S, images), `ok` with seconds and bytes, or the
reason. The request that was asked for comes first, then those that differ from it in one thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import pandas as pd

from analysis.evidence.intervals import SHARE
from analysis.presentation import tables
from analysis.presentation.columns import (
    GIB,
    NOTHING,
    Shown,
    column,
    flags,
    percent,
    shares,
    small,
    texts,
    words,
)
from analysis.presentation.style import label
from analysis.presentation.tables import Table
from analysis.records.study import Record, pixels, plain_rows

REQUEST = ["height", "width", "asked", "steps", "images"]
SECONDS = {"kernels_s": "computing", "exchange_s": "exchange", "bubble_s": "the bubble", "host_s": "the host"}
"""Parts of the latency, the mean of all devices."""
LITTLE = 0.0005
"""A share of the latency that would be printed as 0.0 %."""
NOTE = (
    "Seconds by part: the mean of all devices; of sampling, without text encoders and decoding. Peak: the transformer "
    "on the fullest device, while it samples or (count=pipeline) decodes; text encoders and VAE: what a device would "
    "hold besides. Latents vs serial: measured on the shipped model with the same method, M and W "
    "(S = 20, guidance 2); – is not measured."
)
COVERED = f"{100 * SHARE:.0f} %"
WITHIN = f"{COVERED} interval s"
FRONT: Shown = [
    "setting",
    "predicted_latency_s",
    *texts(interval=WITHIN),
    *("speedup", "bottleneck", "kernels_s", "exchange_s", "bubble_s", "host_s"),
    column("peak_bytes", unit="GiB"),
    *texts(text_encoder_said="text encoders GiB", vae_said="VAE GiB"),
    *("relative_error", "status"),
]
CROSSOVERS: Shown = [
    *texts(request="request", wins="fastest"),
    "predicted_latency_s",
    *texts(interval=WITHIN),
    *flags(changes="another product"),
    *texts(second="next"),
    *shares(behind="next is slower by"),
    *texts(exact_wins="fastest exact"),
    *shares(exact_behind="exact is slower by"),
]
Row = dict[str, Any]


def requests(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each request, in order."""
    return [part for _, part in rows.groupby(REQUEST, sort=False)]


def asked(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The requests that were asked for: of the others only the fastest was searched."""
    first, *others = requests(rows)
    return [first, *(part for part in others if part.front.all())]


def fitting(rows: pd.DataFrame) -> list[Row]:
    """The settings that fit, fastest first."""
    return plain_rows(
        rows[rows.status == "ok"].sort_values(["predicted_latency_s", "peak_bytes"], kind="stable")
    )


def front(rows: pd.DataFrame) -> list[Row]:
    """The settings to which no other is equal or better in latency, peak memory and distance to serial alike.

    A distance that was not measured counts as the largest.
    """
    kept: list[Row] = []
    for row in fitting(rows):
        if not any(as_good(other, row) for other in kept):
            kept.append(row)
    return kept


def as_good(one: Row, other: Row) -> bool:
    """Whether a setting that is as fast needs no more memory and is no further from serial."""
    far = [inf if row["relative_error"] is None else row["relative_error"] for row in (one, other)]
    return bool(one["peak_bytes"] <= other["peak_bytes"] and far[0] <= far[1])


def shown(record: Record) -> pd.DataFrame:
    """The front of every request that was asked for, and serial on one device; ready to be written."""
    found, several = [], len(asked(record.rows)) > 1
    for part in asked(record.rows):
        serial = plain_rows(part[part.devices == 1])
        serial_s = serial[0]["predicted_latency_s"] if serial else None
        kept = front(part)
        for row in [*kept, *(one for one in serial if one["status"] != "ok" or one not in kept)]:
            seconds = row["predicted_latency_s"]
            found.append(
                row
                | {"setting": f"{request(row)}: " * several + setting(row), "interval": interval(row)}
                | {"speedup": serial_s / seconds if serial_s and seconds else None}
                | {f"{kind}_said": not_known(row[f"{kind}_bytes"]) for kind in ("text_encoder", "vae")}
            )
    return pd.DataFrame(found)


def title(record: Record) -> str:
    """What was asked for."""
    config, (first, *others) = record.facts["config"], asked(record.rows)
    row = plain_rows(first[:1])[0]
    guided = "no guidance" if row["guidance_scale"] is None else f"guidance {row['guidance_scale']:g}"
    size = "" if others else f", {request(row)}"
    return f"PREDICTED for {row['model']} on {row['cluster']}{size}, {config['model']['dtype']}, {guided}"


def tabulate(record: Record, suffix: str = "") -> list[Table]:
    """The front with the answer below it, and the crossovers."""
    found, others = shown(record), crossovers(record.rows)
    first = tables.table(
        found, words(found, FRONT), before=f"**{title(record)}**", after=answers(record.rows)
    )
    second = tables.table(others, words(others, CROSSOVERS), before=f"**{title(record)}**")
    return [first._replace(suffix=suffix), second._replace(suffix=f"{suffix}_crossovers")]


def setting(row: Mapping[str, Any]) -> str:
    """`PipeFusion, cfg 2 x pipe 4, M = 16`; an exact product goes by its degrees alone."""
    if row["exact"]:
        return "Serial, 1 device" if row["devices"] == 1 else f"exact, {row['parallel']}"
    patches = "" if row["patches"] is None else f", M = {row['patches']}"
    return f"{label(row['method'])}, {row['parallel']}{patches}"


def request(row: Mapping[str, Any]) -> str:
    """`1024 px, N = 8, S = 20, 1 image`; `704 x 1280 px, 125 pictures, N = 8, S = 20, 1 video`."""
    frames, what = row.get("frames"), "video" if row.get("frames") else "image"
    size = f"{pixels(row)} px" + (f", {frames} pictures" if frames else "")
    count = f"{row['images']} {what}{'s' * (row['images'] > 1)}"
    return f"{size}, N = {row['asked']}, S = {row['steps']}, {count}"


def interval(row: Mapping[str, Any]) -> str:
    """`1.62 to 2.07`."""
    return NOTHING if row["low_s"] is None else f"{digits(row['low_s'])} to {digits(row['high_s'])}"


def not_known(size: float | None) -> str:
    """Bytes in GiB."""
    return "not known" if size is None else f"{size / GIB:.2f}"


def crossovers(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each request: the fastest setting, how far the next is behind, the fastest exact one, and whether
    another product wins than in the first request."""
    parts, found = requests(rows), []
    settings = [fitting(part) for part in parts]
    winners = [product(fits[0]) if fits else None for fits in settings]
    for part, fits, winner in zip(parts, settings, winners, strict=True):
        line: Row = {"request": request(plain_rows(part[:1])[0]), "wins": "nothing fits"}
        line["changes"] = winner != winners[0]
        if fits:
            best, *others = fits
            rival = next((row for row in others if product(row) != product(best)), None)
            exact = next((row for row in fits if row["exact"]), None)
            line |= {"wins": setting(best), "interval": interval(best)}
            line["predicted_latency_s"] = best["predicted_latency_s"]
            line |= {} if rival is None else {"second": setting(rival), "behind": behind(rival, best)}
            line |= (
                {} if exact is None else {"exact_wins": setting(exact), "exact_behind": behind(exact, best)}
            )
        found.append(line)
    columns = ["request", "wins", "predicted_latency_s", "interval", "changes", "second", "behind"]
    return pd.DataFrame(found, columns=[*columns, "exact_wins", "exact_behind"])


def product(row: Row) -> tuple[str, str]:
    """What two settings share that differ in M, W or split alone."""
    return "exact" if row["exact"] else row["method"], row["parallel"]


def behind(row: Row, best: Row) -> float:
    """How much longer it takes."""
    return float(row["predicted_latency_s"] / best["predicted_latency_s"] - 1)


def answers(rows: pd.DataFrame) -> str:
    """A paragraph for each request that was asked for; what would change the first one's winner."""
    paragraphs = [" ".join(sentences(part)) for part in asked(rows)]
    others = crossovers(rows)
    changed = others[others.changes.eq(True)]
    if len(others) > len(paragraphs):
        known = [f"{row.request}: {row.wins}" for row in changed.itertuples()]
        paragraphs.append(
            f"What would change it: {'; '.join(known) or 'nothing among the requests that were tried'}."
        )
    strange = plain_rows(rows[:1])[0].get("borrowed")
    if strange and rows.status.eq("ok").any():
        text = f"No published row calibrates {strange} (docs/predictions.md says what stands in)"
        paragraphs.append(f"{text}: the intervals are wider.")
    return "\n".join(paragraphs)


def sentences(rows: pd.DataFrame) -> Iterator[str]:
    """The winner of a request, why, by how much; what needs less memory, and what is exact."""
    fits, asked_for = fitting(rows), request(plain_rows(rows[:1])[0])
    if not fits:
        least = rows.missing_bytes[rows.status == "oom"].min()
        if pd.isna(least):
            yield f"{asked_for}: no setting can be run: {'; '.join(dict.fromkeys(rows.reason.dropna()))}."
        else:
            yield f"{asked_for}: nothing fits; the leanest setting is short of {least / GIB:.1f} GiB per device."
        return
    best, *others = fits
    yield f"{asked_for}: {setting(best)} is predicted to be the fastest: {seconds(best)}, {held(best)}."
    if best.get("decode_bytes"):
        whole, tiles = (not_known(best.get(f"decode_{how}bytes")) for how in ("", "tiled_"))
        yield f"Decoding takes {whole} GiB at once, {tiles} by tiles (model.tiled=true plans these)."
    parts = sorted(((best[name] or 0.0, word) for name, word in SECONDS.items()), reverse=True)
    shares = [(part / best["predicted_latency_s"], word) for part, word in parts]
    yield f"Its time: {', '.join(f'{percent(part)} {word}' for part, word in shares if part >= LITTLE)}."
    rival = next((row for row in others if product(row) != product(best)), None)
    if rival is not None:
        sure = rival["low_s"] is not None and rival["low_s"] > best["high_s"]
        yield (
            f"Next is {setting(rival)}, {percent(behind(rival, best))} slower ({instead(rival, best)}), "
            f"{'the intervals are apart' if sure else 'the intervals overlap'}: {seconds(rival)}."
        )
    exact = next((row for row in fits if row["exact"]), None)
    if not best["exact"] and exact is not None:
        yield f"It is not exact ({said_error(best)}); the fastest that is: {setting(exact)}, {seconds(exact)}."
    lean = min(fits, key=lambda row: row["peak_bytes"])
    if lean is not best:
        yield (
            f"Least memory: {setting(lean)}, {held(lean)}, {seconds(lean)}, {percent(behind(lean, best))} slower."
        )


def instead(row: Row, best: Row) -> str:
    """What takes longer than in the best, and what less: `0.95 s more for exchange, 0.87 s less for the bubble`."""
    gaps = [((row[name] or 0.0) - (best[name] or 0.0), word) for name, word in SECONDS.items()]
    (less, word_less), (more, word_more) = min(gaps), max(gaps)
    saved = f", {digits(-less)} s less for {word_less}" if -less > more / 10 else ""
    return f"{digits(more)} s more for {word_more}{saved}"


def seconds(row: Row) -> str:
    """`1.82 s (80 % interval 1.62 to 2.07)`."""
    within = "" if row["low_s"] is None else f" ({COVERED} interval {interval(row)})"
    return f"{digits(row['predicted_latency_s'])} s{within}"


def digits(value: float) -> str:
    """Seconds, of less than one with three digits that count."""
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3g}"


def held(row: Row) -> str:
    """`60.2 GiB per device (105.1 with text encoders and VAE)`."""
    parts = [row["peak_bytes"], row["text_encoder_bytes"], row["vae_bytes"]]
    whole = "" if None in parts else f" ({sum(parts) / GIB:.1f} with text encoders and VAE)"
    return f"{row['peak_bytes'] / GIB:.1f} GiB per device{whole}"


def said_error(row: Row) -> str:
    """The distance to serial in words."""
    known = row["relative_error"]
    return "distance to serial not measured" if known is None else f"latents {small(known)} from serial's"
