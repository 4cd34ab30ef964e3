"""Published numbers: every row of `results/published`, read once into one type, with its setting as stated.

A row is called FILE:LINE, as in `latency.csv:15` (the header is line 1); columns in results/published/README.md.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from analysis.evidence.third_party import FILE, in_columns

Row = dict[str, str]
"""A line of a file, by column."""
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
OURS = {"Original": "serial", "SP": "ulysses", **METHODS}
"""All names of the sources; `SP`, which may mix Ulysses and Ring, is Ulysses: either holds all parameters and 1/N of
the rest."""
DISPLACED = ("pipefusion", "distrifusion")
HYBRID, USP, SP = "hybrid", "USP", "SP"
"""Products of the sources: guidance split and PipeFusion; Ulysses and Ring; sequence parallelism, whichever is best."""
PRODUCT = {HYBRID: "pipefusion", USP: "ring"}
"""The method whose own axis a product's other degrees leave."""
MODELS = {
    "PixArt": "pixart_alpha",
    "SD3-medium": "sd3_medium",
    "Flux.1-dev": "flux_dev",
    "Flux.1-schnell": "flux_schnell",
    "HunyuanDiT": "hunyuan_dit",
    "SANA-1.6B": "sana_1600m",
    "CogVideoX-5B": "cogvideox_5b",
    "ConsisID(CogVideoX-5b base)": "cogvideox_5b",
    "HunyuanVideo": "hunyuan_video",
}
COMPILERS = ("torch.compile", "onediff")
TABLE1 = "table1_costs"
WHERE = {"Table": "Table", "Sec": "Section", "Fig": "Figure"}
FACTORS = (2, 4, 8)
"""The degrees that are tried for a product whose own are not stated."""


@dataclass(frozen=True)
class Published:
    """One published number: what the file prints, and how it is read. What is not stated, or no number, is None.

    Out of memory is infinitely many seconds or bytes. `method` is the name here, or `HYBRID`, `USP`, `SP`; one device
    is serial whatever it is called. `warmup` is W as printed; `synchronous` counts steps.
    """

    row_id: str
    printed: Row
    value: float
    model: str
    gpu: str
    link: str  # the slowest that N devices need; one device has none
    px: int | None
    steps: int | None
    devices: int | None
    method: str
    warmup: int | None
    patches: int | None
    compiler: str

    def __getitem__(self, column: str) -> str:
        """A column as printed."""
        return self.printed.get(column, "")

    @property
    def task(self) -> tuple[str, str, int | None, int | None, str]:
        """The model, size and steps computed, and the GPU and compiler used: alike for all methods and N."""
        return self.gpu, self.model, self.px, self.steps, self.compiler

    @property
    def video(self) -> tuple[int, int, int] | None:
        """Height, width and pictures of a landscape video: `720x480x49f`, `49f 480x720`."""
        sides, frames = (re.search(form, self["resolution"]) for form in (r"(\d+)x(\d+)", r"(\d+)f\b"))
        if sides is None or frames is None:
            return None
        height, width = sorted(map(int, sides.groups()))
        return height, width, int(frames[1])

    @property
    def oom(self) -> bool:
        return self.value == math.inf

    @property
    def value_text(self) -> str:
        return "OOM" if self.oom else f"{self.value:g} s"

    @property
    def digitized(self) -> bool:
        return "digitized" in self["setting"]

    @property
    def third_party(self) -> bool:
        """Whether other people's code made the number."""
        return self.row_id.startswith(FILE)

    @property
    def inferred(self) -> bool:
        return self["source"].startswith("INFERRED")

    @property
    def tolerance(self) -> float:
        return READING if self.digitized else ROUNDING

    @property
    def place(self) -> str:
        """Where it stands: `Table 4`, `Section 4.1` or `Figure 5` of the paper; elsewhere the name of the file."""
        source = self["source"]
        found = re.search(r"\b(Table|Sec|Fig)[ .]*(\d[\d.]*)", source)
        if found:
            return f"{WHERE[found[1]]} {found[2]}"
        return source.partition(" (")[0].rpartition("/")[2]

    @property
    def legacy(self) -> bool:
        """Whether the older PipeFusion repository made the number: it ran W + 1 synchronous steps."""
        return self["source"].startswith("PipeFusion repo")

    @property
    def synchronous(self) -> int:
        """Synchronous steps, in the convention of the source; W = 1 where none is stated."""
        return (WARMUP if self.warmup is None else self.warmup) + self.legacy

    @property
    def degrees(self) -> dict[str, list[int]]:
        """`cfg=2,pp=8 [sic; pp=4 if 8 GPUs]`: cfg [2] and pipe [8, 4], as the row's method and setting have them."""
        found: dict[str, list[int]] = {}
        text = f"{self['method']} {self['setting']}".lower()
        for name, count in re.findall(r"\b(cfg|pp|ulysses|ring)[=-](\d+)", text):
            found.setdefault("pipe" if name == "pp" else name, []).append(int(count))
        return found

    @property
    def products(self) -> list[dict[str, int]]:
        """The degrees beside the own axis: none of a single method; of a product as stated, or all that may be meant.

        Empty where the stated ones are not those of N devices.
        """
        n, kind = self.devices or 0, self.product
        if kind not in PRODUCT:
            # `Ring-4`: all of four devices in one ring
            alone = re.fullmatch(r"(Ulysses|Ring)-(\d+)", self["method"])
            known = self.method in ("serial", *METHODS.values())
            return [{}] if known and (alone is None or int(alone[2]) == n) else []
        own, stated = ("pipe" if kind == HYBRID else "ring"), self.degrees
        given = {axis: counts[0] for axis, counts in stated.items() if axis != own}
        if given or stated:
            left, rest = divmod(n, math.prod(given.values()))
            return [given] if given and not rest and left in stated.get(own, [left]) else []
        if kind == USP:
            return [{"ulysses": u} for u in FACTORS if n % u == 0 and u < n]
        split = [{"cfg": 2}] if n % 4 == 0 else []
        return split + [{"cfg": 2, "ulysses": u} for u in FACTORS if n % (4 * u) == 0]

    @property
    def product(self) -> str:
        """`HYBRID` or `USP` where the row, or the rival that a speedup is over, is such a product; else the method."""
        return USP if self["metric"] == "speedup" and USP in self["setting"] else self.method


Rows = dict[str, Published]
"""Published rows by FILE:LINE."""


def read(*paths: Path) -> Rows:
    """The rows of files, or of all files of a folder, in order."""
    rows: Rows = {}
    files = [sorted(path.glob("*.csv")) if path.is_dir() else [path] for path in paths]
    for path in chain(*files):
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                row_id = f"{path.name}:{reader.line_num}"
                rows[row_id] = read_row(row_id, in_columns(row) if path.name == FILE else row)
    return rows


def read_row(row_id: str, row: Row) -> Published:
    """One line, read."""
    hardware, setting = row.get("hardware", ""), row.get("setting", "")
    px, steps, devices = (
        int(row[key]) if row.get(key, "").isdecimal() else None
        for key in ("resolution", "steps", "n_devices")
    )
    gpu = re.search(r"[A-Z]+\d+", hardware)
    return Published(
        row_id=row_id,
        printed=row,
        value=math.inf if row.get("value") == "OOM" else float(row.get("value") or math.nan),
        model=model_name(row.get("model", "")),
        gpu=gpu[0] if gpu else "",
        link=link_name(hardware, row.get("interconnect", ""), devices),
        px=px,
        steps=steps,
        devices=devices,
        method=method_name(row.get("method", ""), setting if row.get("metric") == "latency" else "", devices),
        warmup=stated("W", setting),
        patches=stated("M", setting),
        compiler=next((name for name in COMPILERS if name in setting), ""),
    )


def link_name(hardware: str, interconnect: str, devices: int | None) -> str:
    """`PCIe`, `NVLink`, or `Ethernet` where one node is not enough."""
    if devices == 1:
        return ""
    node = re.search(r"(\d+)x[A-Z]", hardware)
    if node and devices and devices > int(node[1]):
        return "Ethernet"
    return next((link for link in ("NVLink", "PCIe") if link in interconnect), interconnect)


def model_name(name: str) -> str:
    """The model's name here; one that is not here keeps its own."""
    name = "PixArt" if re.fullmatch(r"PixArt(-alpha.*)?", name) else name
    return MODELS.get(name, name)


def method_name(name: str, setting: str, devices: int | None) -> str:
    """The method's name here, or `HYBRID`, `USP`, `SP`."""
    if devices == 1:
        return "serial"
    if USP in name or re.match(r"Ulysses-\d+ x Ring-\d+", name):
        return USP
    if "cfg" in setting or "cfg" in name.lower() or HYBRID in name:
        return HYBRID
    return METHODS.get(name) or METHODS.get(f"SP-{name.partition('-')[0]}", name)


def stated(symbol: str, setting: str) -> int | None:
    """`pp=8; W=1` in a setting: 1."""
    match = re.search(rf"\b{symbol}=(\d+)", setting)
    return int(match[1]) if match else None


def latencies(rows: Rows) -> list[Published]:
    """The rows that are latencies of a run with stated numbers, in order."""
    return [
        one
        for one in rows.values()
        if one["metric"] == "latency" and None not in (one.px, one.steps, one.devices)
    ]


def alone(task: tuple[object, ...], found: Iterable[Published]) -> Published | None:
    """The shortest time published for one device at a task."""
    ones = [one for one in found if one.devices == 1 and one.task == task and not one.oom]
    return min(ones, key=lambda one: one.value, default=None)


def least_s(one_s: float, steps: int, synchronous: int, share: float, groups: int = 1) -> float:
    """The least seconds if communication and small pieces cost nothing: synchronous steps take as long as on one
    device (over groups that split their work), the others a share of that, 1/N or that of the slowest stage."""
    return one_s * (synchronous / groups + (steps - synchronous) * share) / steps


def cited(row_ids: Iterable[str], before: str = ":", dash: str = "-") -> str:
    """`latency.csv:13`, `latency.csv:14`, `latency.csv:16` as `latency.csv:13-14, 16`."""
    files: dict[str, set[int]] = {}
    for row_id in row_ids:
        name, _, line = row_id.partition(":")
        files.setdefault(name, set()).add(int(line))
    return "; ".join(f"{name}{before}{', '.join(runs(sorted(lines), dash))}" for name, lines in files.items())


def named(row_ids: Iterable[str]) -> str:
    """The same in a sentence: `latency.csv 13–14, 16; warmup.csv 3`."""
    return cited(sorted(row_ids), " ", "–")


def runs(lines: Sequence[int], dash: str) -> list[str]:
    """Neighbouring lines as one range."""
    groups = groupby(enumerate(lines), key=lambda pair: pair[1] - pair[0])
    found = [[line for _, line in group] for _, group in groups]
    return [str(one[0]) if len(one) == 1 else f"{one[0]}{dash}{one[-1]}" for one in found]
