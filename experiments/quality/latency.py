"""What the same settings would take for a full-size model on named hardware: predictions, beside measured quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.config import RunConfig
from experiments.grid import cluster_config, model_config, place, problem
from experiments.launch import resolved
from experiments.models import open_model
from experiments.quality.evaluate import Row
from experiments.quality.settings import Planned
from experiments.scaling import planned_row
from experiments.session import Session


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
    rows: list[Row] = []
    for name in options.clusters:
        session = Session()
        for kind in sorted(kinds, key=lambda kind: kind.key):
            one = replace(
                kind.configure(replace(cfg, cluster=cluster_config(name), model=model)), prompt="a picture"
            )
            one = resolved(replace(one, prompt_file=None, seed=0), session.model(one.model))
            reason = problem(one, session.model(one.model))
            row = place(one) | (
                {"status": "skipped", "reason": reason} if reason else planned_row(one, session)
            )
            rows.append(row)
    keys = ("cluster", "steps", "method", "devices", "patches", "warmup")
    return sorted(rows, key=lambda row: [str(row.get(key)) for key in keys])
