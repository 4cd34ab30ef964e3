"""Rows of other people's code (`third_party.csv`) in the columns and words of the papers' rows."""

from __future__ import annotations

import re

Row = dict[str, str]

FILE = "third_party.csv"
STEPS = 50
"""Of a run whose seconds are printed for one step of it, all alike."""
NAMES = {
    "serial": "Original",
    "no offload": "Original",
    "ulysses": "SP-Ulysses",
    "ring": "SP-Ring",
    "tp": "TP",
}
SAME = r"\([^)]*\)|\b(?:eager|no cache|unified|best|pytorch)\b|\+(?= compile)"
"""Remarks that change nothing of what is run: PyTorch as it is, and which table a number stands in."""


def in_columns(row: Row) -> Row:
    """A row as the papers' files have it; what caches, quantised weights or other kernels changed is no latency."""
    text, compiled = re.subn(r"\bcompile\b|torch\.compile", "", re.sub(SAME, "", row["method"]))
    method, setting = words(" ".join(text.split()))
    metric, value, steps = row["unit"], row["value"], row["steps"]
    if metric == "rank":
        value = ""  # named the best, without a number
    if metric == "ms/step":
        metric, value, steps = "s", f"{float(value) / 1000 * STEPS:g}", str(STEPS)
    if metric == "s":
        metric = "latency" if method else f"latency with {row['method']}"
    side = re.match(r"(\d+)x\1(?!\d)", row["resolution"])
    count = "" if re.match(r"\d", row["hardware"]) else f"{row['n_devices']}x"
    return row | {
        "hardware": count + row["hardware"],
        "model": row["model"].replace("FLUX", "Flux"),
        "resolution": side[1] if side else row["resolution"],
        "method": method or row["method"],
        "setting": ", ".join([*([setting] if setting else []), *(["torch.compile"] if compiled else [])]),
        "metric": metric,
        "value": value,
        "steps": steps,
        "unit": "s" if metric == "latency" else row["unit"],
    }


def words(text: str) -> tuple[str, str]:
    """Method and setting as the papers word them: `cfg2 x pp4` is CFG+PipeFusion with cfg=2, pp=4. None: ("", "")."""
    if text in NAMES:
        return NAMES[text], ""
    if text == "usp":
        return "USP", ""
    found = re.findall(r"\b(cfg|pp|ulysses|ring|tp)(\d+)\b", text)
    plain = " x ".join(name + count for name, count in found)
    degrees = {name: count for name, count in found if count != "1"}
    patches = re.fullmatch(r"(?:pipefusion )?(.*?)(?: M(\d+))?", text)
    if not found or patches is None or patches[1] != plain:
        return "", ""
    setting = ", ".join(f"{name}={count}" for name, count in degrees.items() if len(degrees) > 1)
    setting += f"; M={patches[2]}" if patches[2] else ""
    if "pp" in degrees:
        return ("CFG+PipeFusion" if len(degrees) > 1 else "PipeFusion"), setting
    if "cfg" in degrees and set(degrees) - {"cfg"} <= {"ulysses", "ring"}:
        return "USP", setting or f"cfg={degrees['cfg']}"
    if set(degrees) == {"ulysses", "ring"}:
        return f"Ulysses-{degrees['ulysses']} x Ring-{degrees['ring']}", ""
    return (NAMES[next(iter(degrees))], "") if len(degrees) == 1 and "cfg" not in degrees else ("", "")
