"""What a published row says, in one spelling: which GPU and link, which method, how many devices, which setting."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from analysis.rows import Row, Rows, read_rows

ROUNDING, READING, CONTRADICTION = 0.005, 0.05, 0.1
"""How far a number may be off that was rounded, or read off a curve; from where on two of one setting contradict."""

WARMUP = 1
"""The paper's default, where a row names no W."""
METHODS = {
    "TP": "tensor",
    "SP-Ulysses": "ulysses",
    "SP-Ring": "ring",
    "DistriFusion": "distrifusion",
    "PipeFusion": "pipefusion",
}
HYBRID, USP, SP = "hybrid", "USP", "SP"
"""Methods of the sources that are several at once: guidance split and PipeFusion; Ulysses and Ring; either."""
MODELS = {
    "PixArt": "pixart_alpha",
    "SD3-medium": "sd3_medium",
    "Flux.1-dev": "flux_dev",
    "Flux.1-schnell": "flux_schnell",
    "HunyuanDiT": "hunyuan_dit",
}
COMPILERS = ("torch.compile", "onediff")


@dataclass(frozen=True)
class Latency:
    """A published latency; out of memory is infinitely many `seconds`."""

    row_id: str
    source: str
    version: str
    gpu: str
    link: str  # one device has none
    model: str
    resolution: int
    steps: int
    devices: int
    method: str  # as here, or `HYBRID`, `USP`; one device is serial whatever it is called
    warmup: int | None  # as printed
    patches: int | None
    compiler: str
    seconds: float
    digitized: bool
    inferred: bool

    @property
    def task(self) -> tuple[str, str, int, int, str]:
        """What is computed, and on what: alike for all methods and N."""
        return self.gpu, self.model, self.resolution, self.steps, self.compiler

    @property
    def said(self) -> str:
        return "OOM" if self.oom else f"{self.seconds:g} s"

    @property
    def oom(self) -> bool:
        return self.seconds == math.inf

    @property
    def tolerance(self) -> float:
        return READING if self.digitized else ROUNDING


def published(folder: Path) -> Rows:
    """All published rows, of every file."""
    return read_rows(sorted(folder.glob("*.csv")))


def latencies(rows: Rows) -> list[Latency]:
    """The rows that are latencies of a run with stated numbers, in order."""
    whole = ("resolution", "steps", "n_devices")
    return [
        latency_of(row_id, row)
        for row_id, row in rows.items()
        if row.get("metric") == "latency" and all(row[key].isdecimal() for key in whole)
    ]


def latency_of(row_id: str, row: Row) -> Latency:
    """One row, read. Raises ValueError for one whose numbers are not stated."""
    devices = int(row["n_devices"])
    return Latency(
        row_id=row_id,
        source=row["source"],
        version=row["version"],
        gpu=gpu_of(row),
        link=link_of(row, devices),
        model=model_of(row),
        resolution=int(row["resolution"]),
        steps=int(row["steps"]),
        devices=devices,
        method=method_of(row, devices),
        warmup=stated("W", row["setting"]),
        patches=stated("M", row["setting"]),
        compiler=next((name for name in COMPILERS if name in row["setting"]), ""),
        seconds=math.inf if row["value"] == "OOM" else float(row["value"]),
        digitized="digitized" in row["setting"],
        inferred=row["source"].startswith("INFERRED"),
    )


def gpu_of(row: Row) -> str:
    """`8xL40-48GB`, `2x8xL40`: L40."""
    match = re.search(r"[A-Z]+\d+", row["hardware"])
    return match[0] if match else ""


def link_of(row: Row, devices: int) -> str:
    """The slowest link that N devices need; one device needs none."""
    if devices == 1:
        return ""
    node = re.search(r"(\d+)x[A-Z]", row["hardware"])
    if node and devices > int(node[1]):
        return "Ethernet"
    return next((link for link in ("NVLink", "PCIe") if link in row["interconnect"]), row["interconnect"])


def model_of(row: Row) -> str:
    """The model's name here; one that is not here keeps its own."""
    name = "PixArt" if re.fullmatch(r"PixArt(-alpha.*)?", row["model"]) else row["model"]
    return MODELS.get(name, name)


def method_of(row: Row, devices: int) -> str:
    """The method's name here, or `HYBRID`, `USP`, `SP`."""
    name, setting = row["method"], row["setting"]
    if devices == 1:
        return "serial"
    if "cfg" in setting or "cfg" in name.lower() or HYBRID in name:
        return HYBRID
    if USP in name or re.match(r"Ulysses-\d+ x Ring-\d+", name):
        return USP
    return METHODS.get(name) or METHODS.get(f"SP-{name.partition('-')[0]}", name)


def stated(symbol: str, setting: str) -> int | None:
    """`pp=8; W=1` in a setting: 1."""
    match = re.search(rf"\b{symbol}=(\d+)", setting)
    return int(match[1]) if match else None


def bound_s(one_s: float, steps: int, synchronous: int, share: float) -> float:
    """The least seconds if communication and small pieces cost nothing: synchronous steps take as long as on one
    device, the others a share of that, 1/N or that of the slowest stage."""
    return one_s * (synchronous + (steps - synchronous) * share) / steps
