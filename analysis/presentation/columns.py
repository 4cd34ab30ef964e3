"""Columns of records and tables: name, heading, unit, kind and format of each, written down once.

Records hold bytes, seconds and shares; `unit` is what a reader sees. `words` makes a table to read of any frame whose
columns are in `COLUMNS`, and `typed` gives a frame of records the kinds of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.presentation.looks import label

pd.options.mode.string_storage = "python"  # tables are short, and pyarrow's columns slow to index

NOTHING = "–"
"""A cell without a value: never a zero."""
MIB, GIB = 2**20, 2**30
AXES = ("data", "step", "cfg", "pipe", "patch", "ring", "ulysses", "tensor")
"""Mesh axes, outermost first: the order of the ranks."""
TEXT, COUNT, NUMBER, FLAG, LIST = "str", "Int64", "float64", "boolean", "object"
"""Kinds of columns, as pandas calls them; counts and flags may be missing."""


def digits(places: int) -> Callable[[float], str]:
    """The format with so many digits behind the point."""
    return lambda value: "∞" if value == float("inf") else f"{value:.{places}f}"


def mib(value: float) -> str:
    """Bytes in MiB, whole ones from 100 on."""
    return f"{value / MIB:.2f}" if value < 100 * MIB else f"{value / MIB:.0f}"


def gib(value: float) -> str:
    """Bytes in GiB, three digits behind the point below 1; nothing is 0."""
    return f"{value / GIB:.{2 if value >= GIB else 3}f}" if value else "0"


def percent(share: float) -> str:
    """As everywhere in text: 12.3 %."""
    return f"{100 * share:.1f} %"


def signed_percent(share: float) -> str:
    """A relative error: +12.3 %."""
    return f"{100 * share:+.1f} %"


def small(value: float) -> str:
    """A distance: two digits."""
    return "0" if value == 0 else f"{value:.1e}"


def three(value: float) -> str:
    """Three digits, or two below 1."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def flag(value: bool) -> str:
    """Yes or no."""
    return "yes" if value else "no"


FORMATS: dict[str, Callable[[Any], str]] = {
    "s": digits(2),
    "dB": digits(1),
    "MiB": mib,
    "MiB/step": mib,
    "GiB": gib,
    "GiB per device": gib,
    "%": percent,
    "bytes": "{:,}".format,
}
"""Unit -> how a value of it is written."""
KIND_FORMATS: dict[str, Callable[[Any], str]] = {COUNT: "{:.0f}".format, NUMBER: "{:g}".format, FLAG: flag}


@dataclass(frozen=True)
class Column:
    """A column of records or tables. Without a `format` its unit decides, then its kind."""

    name: str
    heading: str
    unit: str = ""
    kind: str = TEXT
    format: Callable[[Any], str] | None = None

    @property
    def title(self) -> str:
        """The heading with the unit; a percentage has it in every cell."""
        return self.heading if self.unit in ("", "%") else f"{self.heading} {self.unit}"

    def write(self, value: Any) -> str:
        """A cell."""
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return NOTHING
        return (self.format or FORMATS.get(self.unit) or KIND_FORMATS.get(self.kind, str))(value)


def texts(**headings: str) -> list[Column]:
    return [Column(name, heading) for name, heading in headings.items()]


def counts(**headings: str) -> list[Column]:
    return [Column(name, heading, kind=COUNT) for name, heading in headings.items()]


def flags(**headings: str) -> list[Column]:
    return [Column(name, heading, kind=FLAG) for name, heading in headings.items()]


def sizes(unit: str = "MiB", **headings: str) -> list[Column]:
    return [Column(f"{name}_bytes", heading, unit, COUNT) for name, heading in headings.items()]


def seconds(**headings: str) -> list[Column]:
    return [Column(name, heading, "s", NUMBER) for name, heading in headings.items()]


def shares(**headings: str) -> list[Column]:
    return [Column(name, heading, "%", NUMBER) for name, heading in headings.items()]


def ratios(**headings: str) -> list[Column]:
    return [Column(name, heading, kind=NUMBER, format=digits(3)) for name, heading in headings.items()]


def errors(**headings: str) -> list[Column]:
    return [Column(name, heading, kind=NUMBER, format=small) for name, heading in headings.items()]


_ALL = [
    # What ran.
    Column("method", "method", format=label),
    *texts(model="model", cluster="cluster", world="world", split="split", ring_form="ring", cross="cross"),
    *texts(patch_axis="cut over", compress="compressed", knobs="knobs", order="order", forecast="forecast"),
    *texts(cache="step cache"),
    *counts(stride="stride"),
    *flags(time_shift="time shift", micro_batches="micro-batches"),
    Column("fraction", "of a neighbour", kind=NUMBER),
    Column("sync_layers", "synchronous layers", kind=LIST),
    *texts(text="text", scheduler="scheduler"),
    *texts(dtype="dtype", degrees="degrees", product="degrees", parallel="degrees", ranks="ranks", px="px"),
    *texts(key="setting", case="case", study="study", status="status", reason="reason", remark="remark"),
    *texts(network="network", metric="metric", against="against", sampled_as="pictures of", what="what"),
    *texts(bottleneck="bottleneck", setting="setting", equal_to="compared with", preprocessing="way in"),
    *(Column(name, name, kind=LIST) for name in ("studies", "values", "flags", "calibrated_on", "repeats_s")),
    *(Column(name, name.replace("_", " "), kind=LIST) for name in ("notes", "contradicted_by")),
    *texts(path="path", run="run", host="host", device="device", prompt="prompt", note="note", axis="axis"),
    *counts(asked="N asked for"),
    *counts(devices="N", patches="M", warmup="W", steps="S", place="#", seed="seed", images="images"),
    *counts(resolution="px", height="height px", width="width px", frames="pictures"),
    *counts(schedules="schedules", failures="failures", disasters="disasters", not_named="not named"),
    *counts(branches="branches", rank="device", repeat="repeat", threads="threads", pid="process"),
    *(Column(name, name, kind=COUNT) for name in AXES),
    *flags(front="front searched"),
    *flags(exact="exact", fastest="fastest", predicted="predicted", reconciles="adds up", agrees="agrees"),
    Column("warmup_threshold", "threshold of W", kind=NUMBER),
    *counts(found_warmup="W found"),
    Column("cache_threshold", "threshold", kind=NUMBER),
    Column("computed_steps", "steps computed", kind=NUMBER),
    Column("guidance_scale", "guidance", kind=NUMBER),
    Column("bandwidth", "link", "GB/s", NUMBER),
    # A server under load.
    *counts(replicas="replicas", requests="requests"),
    Column("rate", "requests/s", kind=NUMBER, format=three),
    Column("capacity", "at most requests/s", kind=NUMBER, format=three),
    *shares(busy="busy", in_time="in time"),
    *seconds(service_s="PREDICTED service", deadline_s="deadline", mean_s="mean"),
    *seconds(p50_s="p50", p95_s="p95", p99_s="p99"),
    # Parts of a model.
    *texts(layers="layers", replicated="on every device", copied="copies"),
    *counts(layer_count="layers", tokens="tokens", text_tokens="text tokens"),
    Column("parameters", "parameters", kind=COUNT, format="{:,}".format),
    *shares(model_share="of the model", block_share="of the blocks"),
    # Bytes held.
    *sizes(param="params", block_param="block params", replicated_param="on every device", kv="KV"),
    *sizes(buffer="buffers", comm="messages", given="given", activation="activations", peak="peak"),
    *sizes("GiB", text_encoder="text encoders", vae="VAE", least="params and KV"),
    *sizes("GiB", decode="decoding", decode_tiled="decoding by tiles"),
    *sizes("GiB", attention="attention reads and writes"),
    *sizes(other="others", rest="rest", missing="missing", room="room", disk="from disk", asked="asked"),
    *sizes(program="published program"),
    *sizes(before="before", devices="all devices", copies="copies", model="model"),
    *sizes(cuda_allocated_peak="CUDA peak", cuda_reserved_peak="CUDA reserved", cuda_used="CUDA in use"),
    # Bytes sent.
    *sizes(decode_sent="sent for decoding", decode_recv="received for decoding"),
    *sizes(sent="sent", recv="received", image="image", exact="exact", first_patch="first patch"),
    *sizes("MiB/step", step_sent="sent", step_recv="received"),
    Column("sent_bytes_per_step", "sent", "MiB/step", NUMBER),
    *sizes(**{f"sent_{axis}": f"sent by {axis}" for axis in AXES}),
    # Closed forms of the same.
    *sizes(predicted_param="predicted params", predicted_kv="predicted KV", predicted_sent="predicted sent"),
    *sizes(predicted_buffer="predicted buffers", predicted_comm="predicted messages"),
    *sizes(predicted_recv="predicted received", predicted_peak="predicted peak"),
    *sizes(**{f"predicted_sent_{axis}": f"predicted sent by {axis}" for axis in AXES}),
    # Time.
    *seconds(latency_s="latency", spread_s="spread", median_s="median", min_s="min", max_s="max"),
    *seconds(compute_s="computed", wait_s="waited", busiest_wait_s="busiest waited", idle_s="idle"),
    *seconds(issue_s="issued", startup_s="start-up", total_s="total", seconds="took", serial_s="serial"),
    *seconds(local_s="wall clock", sim_s="virtual", plan_s="planned", bound_s="bound"),
    *seconds(kernels_s="compute", exchange_s="exchange", bubble_s="bubble", host_s="host"),
    *seconds(decode_s="decoding"),
    *seconds(attention_traffic_s="attention's traffic", attention_arithmetic_s="attention's arithmetic"),
    *seconds(low_s="at least", high_s="at most"),
    *seconds(synchronous_s="all steps synchronous"),
    *seconds(predicted_latency_s="PREDICTED latency", predicted_s="predicted", published_s="published"),
    Column("latency_ratio", "/ serial", kind=NUMBER, format=digits(2)),
    Column("speedup", "× serial", kind=NUMBER, format=digits(2)),
    *ratios(ratio="× serial", over_diffusers="/ diffusers", bound="bound"),
    *ratios(sim_ratio="virtual / wall", plan_ratio="planned / wall"),
    *texts(duplicate_of="repeats", candidates="candidates", borrowed="borrowed"),
    *flags(published_oom="published OOM", own_oom="OOM with ours", digitized="read off a curve"),
    *flags(third_party="third party"),
    *texts(row_id="row", role="row is", side="side", source="source", printed_method="method"),
    Column("error", "error", kind=NUMBER, format=signed_percent),
    Column("share_of_bound", "of bound", "%", NUMBER),
    *(Column(f"{name}_flops", name, "FLOP", NUMBER) for name in ("matmul", "attention")),
    # Distances.
    *errors(relative_error="latents vs serial", equal_error="largest difference", rms_error="RMS error"),
    *errors(rms_serial="RMS of serial", exact_to_serial="exact, to serial"),
    *errors(exact_to_first_n="exact, to N = 1"),
    *errors(first_patch_to_serial="first patch, to serial", first_patch_to_exact="first patch, to exact"),
    Column("psnr_db", "mean PSNR", "dB", NUMBER),
    *shares(pixel_error="pixel error", flicker="flicker", motion="motion"),
    *shares(feature_error="feature error", feature_flicker="feature flicker"),
    Column("frame_errors", "error by picture", kind=LIST),
    Column("ssim", "SSIM", kind=NUMBER, format=digits(4)),
    *counts(pictures="pictures", n="n", n_reference="reference n", equal_n="compared"),
    *(Column(name, name, kind=NUMBER) for name in ("value", "low", "high")),
    *(Column(name, name, kind=NUMBER) for name in ("feature_distance", "latent_error")),
    # Staleness: where and when.
    *counts(layer="layer", job="job", picture="picture", row="row", column="column"),
    *counts(row_start="first row", row_stop="row after the last", rows="rows", never="never written"),
    Column("ages", "tokens by age", kind=LIST),
    *shares(attention_error="attention", k_error="stale K", v_error="stale V", change="change"),
    *shares(unexplained="unexplained"),
    *texts(quantity="quantity", table="table"),
    *flags(watched="watched"),
]
COLUMNS = {column.name: column for column in _ALL}
"""Every column that records and tables share, by name. A table's own are `Column`s beside it."""
Shown = list[str | Column]
"""Columns of a table to read: names, and columns of its own."""


def column(name: str, **changes: Any) -> Column:
    """The column of this name, with these fields changed. Raises KeyError naming one that is not in the table."""
    if name not in COLUMNS:
        raise KeyError(f"column {name!r} is not in analysis/presentation/columns.py")
    return replace(COLUMNS[name], **changes)


def words(frame: pd.DataFrame, columns: Iterable[str | Column]) -> pd.DataFrame:
    """A table to read: these columns as text under their titles.

    A `Column` stands for one that is a table's own. Behind a status stands the reason, where the frame has one.
    Raises KeyError naming a column that is neither in the table nor a `Column`, or that the frame has not.
    """
    cells = {}
    for one in columns:
        shown = one if isinstance(one, Column) else column(one)
        cells[shown.title] = [shown.write(value) for value in frame[shown.name]]
        if shown.name == "status" and "reason" in frame:
            pairs = zip(cells[shown.title], frame.reason, strict=True)
            cells[shown.title] = [status if pd.isna(why) else f"{status}: {why}" for status, why in pairs]
    return pd.DataFrame(cells)


def wide(text: pd.DataFrame, rows: list[str], by: str, suffix: str = "") -> pd.DataFrame:
    """A table to read made wide: a row for each value of `rows`, and of every other column one for each value of `by`.

    Its heading is the column's, then that value and `suffix`. Columns without any cell are left out.
    """
    spread = text.set_index([*rows, by]).unstack(by, sort=False).fillna(NOTHING)
    pairs: list[Any] = spread.columns.tolist()
    names = [", ".join(part for part in (name, f"{value}{suffix}") if part) for name, value in pairs]
    spread = spread.set_axis(names, axis=1).reset_index()
    return spread.loc[:, (spread != NOTHING).any()]


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the kind of each of its columns: counts stay whole where some are missing.

    Raises KeyError naming a column that is not in the table.
    """
    kinds = {str(name): column(str(name)).kind for name in frame}
    others = [name for name, kind in kinds.items() if kind == TEXT and frame[name].dtype != TEXT]
    return frame.assign(**{name: frame[name].map(_text) for name in others}).astype(kinds)


def _text(value: Any) -> Any:
    return None if pd.isna(value) else str(value)
