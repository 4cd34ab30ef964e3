"""A made-up record of quality: errors that fall with W and rise with M, so that every table and figure has work."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave

from analysis.presentation.columns import typed
from analysis.quality.record import readable

STEPS, PICTURES, PROMPTS = 20, 2000, ["green apple", "pickup truck", "owl", "slightly smiling face"]
EXACT = ["sync_pipeline", "tensor", "ulysses", "ring"]
DISPLACED = {"naive_patch": 0.4, "distrifusion": 0.08, "pipefusion": 0.06}
NETWORK = "efficientnet_lite0"
METRIC = ("metric", "against", "network", "preprocessing", "value", "low", "high", "n", "n_reference", "note")
METRIC += ("values",)


def setting(method: str, *study: str, **more: Any) -> dict[str, Any]:
    """A setting that was sampled itself; its key says all of it."""
    row: dict[str, Any] = {
        "study": list(study), "method": method, "devices": 1 if method == "serial" else 4,
        "patches": 4 if method == "pipefusion" else None, "warmup": 1 if method in DISPLACED else None,
        "steps": STEPS, "guidance_scale": 2.0, "scheduler": "shipped", "resolution": 64, "dtype": "bfloat16",
        "pictures": PICTURES, "equal_to": None, "equal_error": None, "equal_n": None, "status": "ok", "reason": None,
    } | more  # fmt: skip
    names = {"devices": "N", "patches": "M", "warmup": "W", "steps": "S", "guidance_scale": "g"}
    parts = [f"{symbol}{row[name]:g}" for name, symbol in names.items() if row[name] is not None]
    key = "_".join([method, *parts, str(row["scheduler"]), f"{row['resolution']}px"])
    return {"key": key, "sampled_as": key} | row


def shares(row: dict[str, Any], other: dict[str, Any], error: float = 2.5e-7) -> dict[str, Any]:
    """The setting with the pictures of another one."""
    return row | {"sampled_as": other["key"], "equal_error": error, "equal_n": 16}


def settings() -> list[dict[str, Any]]:
    """All studies; ring was skipped, PipeFusion with 16 patches failed."""
    serial = setting("serial", "main", "steps", "guidance", "scheduler")
    rows = [serial]
    rows += [shares(setting(method, "main"), serial) for method in EXACT[:-1]]
    rows.append(setting("ring", "main", status="skipped", reason="4 does not divide 18 token rows"))
    for method in DISPLACED:
        swept = ["main", "warmup", "steps", "guidance", "scheduler"]
        swept.append("patches" if method == "pipefusion" else "devices")
        rows.append(setting(method, *swept))
        rows += [setting(method, "warmup", warmup=warmup) for warmup in (0, 2, 3, 4, 5, 6)]
        rows.append(shares(setting(method, "warmup", warmup=STEPS), serial, 0.0))
        for steps in (10, 50):
            rows.append(setting(method, "steps", steps=steps))
        rows += [setting(method, "guidance", guidance_scale=scale) for scale in (1.0, 4.0)]
        rows.append(setting(method, "scheduler", scheduler="euler"))
    for more in ({"steps": 10}, {"steps": 50}, {"guidance_scale": 1.0}, {"guidance_scale": 4.0}):
        rows.append(setting("serial", "steps" if "steps" in more else "guidance", **more))
    rows.append(setting("serial", "scheduler", scheduler="euler"))
    for devices in (2, 8):
        rows += [setting(method, "devices", devices=devices) for method in ("naive_patch", "distrifusion")]
    rows.append(shares(setting("pipefusion", "patches", patches=1), serial, 0.0))
    rows += [setting("pipefusion", "patches", patches=patches) for patches in (2, 8)]
    why = "rank 2 was killed by SIGKILL"
    rows.append(setting("pipefusion", "patches", patches=16, status="failed", reason=why))
    return rows


def planted_error(row: dict[str, Any]) -> float:
    """The planted latent error, above 0 for every displaced setting that is not W = S."""
    pieces = row["patches"] if row["method"] == "pipefusion" else row["devices"]
    growth = math.log2(pieces) / 2 * row["guidance_scale"] / 2 * STEPS / row["steps"]
    return DISPLACED[row["method"]] * growth * math.exp(-row["warmup"] / 2)


def metric(key: str, name: str, value: Any, against: str | None, **more: Any) -> dict[str, Any]:
    """A row of a setting with an interval of a tenth around a finite value."""
    wide = isinstance(value, float) and math.isfinite(value)
    return {
        "key": key, "metric": name, "against": against, "network": None, "preprocessing": None, "value": value,
        "low": value * 0.95 if wide else None, "high": value * 1.05 if wide else None,
        "n": PICTURES, "n_reference": PICTURES if name in ("frechet", "kid") else None, "note": None,
    } | more  # fmt: skip


def metrics(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What is measured on one setting's own pictures."""
    serial, key = row["method"] == "serial", row["key"]
    error = 0.0 if serial else planted_error(row)
    features: dict[str, Any] = {"network": NETWORK, "preprocessing": "224 px, bicubic"}
    real = 30.0 + 12 / row["steps"] + 40 * error**1.5
    rows = [
        metric(key, "frechet", real, "real", **features, n_reference=1911),
        metric(key, "kid", real / 1e4, "real", **features, n_reference=1911),
        metric(key, "inception_score", 9.0 - error, None, **features),
        metric(key, "text_score", 0.31 - error / 10, "prompt", network="emoji_scorer"),
        metric(key, "nearest_top1", 0.7 - error / 10, "real", **features),
    ]
    note = "its weights are not here"
    rows.append(metric(key, "frechet", None, "real", network="inception", note=note))
    if not serial:
        rows.append(metric(key, "frechet", 0.5 + 60 * error**1.5, "serial", **features))
        values = [error * (1 + at / 100) for at in range(101)]
        rows.append(metric(key, "latent_error", error, "serial", n=512) | {"values": values})
        rows.append(metric(key, "psnr_db", -20 * math.log10(error / 2), "serial", n=512))
        rows.append(metric(key, "ssim", 1 - error / 3, "serial", n=512))
        rows.append(metric(key, "feature_distance", error * 2, "serial", n=512, network=NETWORK))
    return rows


def of_equal(key: str) -> list[dict[str, Any]]:
    """What comes of comparing serial's pictures with themselves: no difference, but for rounding."""
    return [
        metric(key, "latent_error", 0.0, "serial", n=512),
        metric(key, "psnr_db", math.inf, "serial", n=512, note="equal pictures"),
        metric(key, "frechet", 3e-9, "serial", network=NETWORK),
    ]


def floors() -> list[dict[str, Any]]:
    """Real against real, seeds against seeds, dtype against dtype."""

    def row(what: str, name: str, against: str, value: float, **more: Any) -> dict[str, Any]:
        one = metric("", name, value, against, resolution=64, what=what, **more)
        return {key: one[key] for key in one if key not in ("key", "preprocessing")}

    halves: dict[str, Any] = {"n": 955, "n_reference": 956, "network": NETWORK}
    return [
        row("real pictures against other real pictures", "frechet", "real", 8.0, **halves),
        row("real pictures against other real pictures", "kid", "real", 0.0001, **halves),
        row("serial against serial from other seeds", "frechet", "serial", 1.1, network=NETWORK),
        row("bfloat16 against float32, serial", "latent_error", "serial", 0.004, n=512),
    ]


def content() -> dict[str, Any]:
    """Settings, metrics and floors apart. PipeFusion with W = 6 has serial's pictures: infinite PSNR."""
    rows = settings()
    found = [one for row in rows if own(row) for one in metrics(row)]
    shared = [row for row in rows if row["sampled_as"] != row["key"] and "main" in row["study"]]
    found += [one for row in shared for one in of_equal(row["key"])]
    for one in found:
        if one["metric"] == "psnr_db" and "pipefusion_N4_M4_W6" in one["key"]:
            one |= {"value": math.inf, "low": math.inf, "high": math.inf}
    return {
        "created": "2026-01-01T00:00:00+00:00", "command": "run.py", "git_commit": "0123456789abcdef", "versions": {},
        "hardware": {}, "config": {}, "texts": PROMPTS,
        "model": {"name": "emoji64", "weights_sha256": "abcdef0123456789", "parameters": 7_560_000},
        "prompts": {"train": 1700, "held_out": 211}, "settings": rows, "metrics": found, "floors": floors(),
    }  # fmt: skip


def own(row: dict[str, Any]) -> bool:
    """Whether a setting was sampled itself."""
    return bool(row["status"] == "ok" and row["sampled_as"] == row["key"])


def table(content: dict[str, Any]) -> pd.DataFrame:
    """The rows of such a record as the study writes them."""
    rows, columns = (
        [],
        {"what": None, "product": None, "cluster": "sim", "equal_to": None},
    )
    for row in content["settings"]:
        at = columns | {key: value for key, value in row.items() if key not in ("key", "study")}
        at |= {"setting": row["key"], "studies": row["study"]}
        found = [one for one in content["metrics"] if one["key"] == row["key"]]
        rows += [at | one for one in found or [dict.fromkeys(METRIC)]]
    serial = next(row for row in content["settings"] if row["method"] == "serial")
    for floor in content["floors"]:
        at = {key: value for key, value in serial.items() if key not in ("key", "study")}
        rows.append(columns | at | floor | {"setting": serial["key"], "studies": []})
    sized = [row | {"key": "0", "height": row["resolution"], "width": row["resolution"]} for row in rows]
    return typed(pd.DataFrame(sized))


def record(content: dict[str, Any]) -> dict[str, Any]:
    """The same as analysis reads it."""
    return content | {"rows": readable(table(content))}


def write(folder: Path, given: dict[str, Any] | None = None) -> Path:
    """record.json, rows.parquet and images below a folder."""
    given = given or content()
    folder.mkdir(parents=True)
    lists = ("settings", "metrics", "floors")
    (folder / "record.json").write_text(json.dumps({key: given[key] for key in given if key not in lists}))
    table(given).to_parquet(folder / "rows.parquet", index=False)
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[0:64, 0:64] / 63
    for row in filter(own, given["settings"]):
        error = 0.0 if row["method"] == "serial" else planted_error(row)
        (folder / "images" / row["key"]).mkdir(parents=True)
        for at in range(len(PROMPTS)):
            picture = np.stack([xx, yy, np.full_like(xx, at / len(PROMPTS))], axis=-1)
            picture = np.clip(picture + error * rng.standard_normal(picture.shape), 0, 1)
            imsave(folder / "images" / row["key"] / f"{at}.png", picture)
    return folder
