"""What the same settings would take for a full-size model on named hardware: predictions, beside measured quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.choose import planned_rows
from experiments.config import RunConfig
from experiments.models import open_model, resolved
from experiments.params import model_config
from experiments.quality.evaluate import Row
from experiments.quality.settings import Planned
from experiments.scaling import on


def latency_rows(planned: Sequence[Planned], cfg: RunConfig) -> list[Row]:
    """Predicted latencies of the settings' methods, N, M, W and S, one picture of a full-size model.

    What guidance and scheduler do not change is planned once.
    """
    options = cfg.measure
    model = replace(model_config(options.latency_model), resolution=options.latency_resolution)
    scale = resolved(replace(cfg, model=model, guidance_scale=None), open_model(model)).guidance_scale
    assert scale is not None
    kinds = {
        replace(p.setting, resolution=options.latency_resolution, scheduler="shipped", guidance_scale=scale)
        for p in planned
    }
    points = [
        replace(
            kind.configure(replace(on(cfg, name), model=model)), prompt="a picture", prompt_file=None, seed=0
        )
        for name in options.clusters
        for kind in sorted(kinds, key=lambda kind: kind.key)
    ]
    rows = planned_rows(points, options.workers)
    keys = ("cluster", "steps", "method", "devices", "patches", "warmup")
    return sorted(rows, key=lambda row: [str(row.get(key)) for key in keys])
