"""What the record says of settings and model, and the few pictures that are kept with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.contents import weights_sha256
from experiments.models import Model
from experiments.quality.evaluate import Row
from experiments.quality.jobs import Job
from experiments.quality.settings import Planned, Setting
from experiments.records import write_json


def setting_row(p: Planned, jobs: Mapping[Setting, Job], dtype: str) -> Row:
    """What a setting was, whose pictures it has and why, and how it ended."""
    status, reason = p.ended or ("ok", None)
    equality = p.equality
    return {
        "key": p.setting.key,
        "study": p.studies,
        **asdict(p.setting),
        "dtype": dtype,
        "pictures": p.pictures,
        "sampled_as": p.source.key,
        "equal_to": None if equality is None else p.setting.stand_in.key,
        "equal_error": None if equality is None else equality.error,
        "equal_n": None if equality is None else equality.pictures,
        "status": status,
        "reason": reason,
        "seconds": jobs[p.source].store.seconds(p.pictures) if status == "ok" else None,
    }


def model_facts(model: Model, cfg: RunConfig) -> dict[str, Any]:
    folder = model.folder
    return {
        "name": cfg.model.name,
        "weights_sha256": weights_sha256(folder),
        "parameters": sum(p.numel() for p in model.view().model.parameters()),
    }


def write_images(out: Path, jobs: Sequence[Job], shown: int) -> None:
    """images/KEY/K.png of the first pictures of every setting that was sampled, and grid.json with their prompts."""
    for job in jobs:
        _, pictures = next(job.store.read(min(shown, job.pictures)))
        folder = out / "images" / job.setting.key
        folder.mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(pictures):
            pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
            with replacing(folder / f"{k}.png") as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG", optimize=True)
    if jobs:
        texts = jobs[0].prompts
        write_json(out / "grid.json", {"prompts": [texts[k % len(texts)] for k in range(shown)]})


def finite(content: Any) -> Any:
    """The same with infinities as "inf" and numbers that are none as null: JSON has neither."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and content != content:
        return None
    if isinstance(content, float) and content in (float("inf"), float("-inf")):
        return "inf" if content > 0 else "-inf"
    return content
