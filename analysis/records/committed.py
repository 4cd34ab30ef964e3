"""The committed records, below the results folder, each with the command that makes it."""

from __future__ import annotations

from collections.abc import Iterable

ACCOUNTING, ACCOUNTING_2026 = "records/accounting", "records/accounting_2026"
"""Models of the paper and theirs at three sizes, and the newest ones at their own."""
WHOLE = "records/paper/table1_tensor"
"""Tensor parallelism with the cross-attention whole on every device, as Table 1 counts it."""
PARAMS, TEXT, SCALING, TIMELINE = "records/params", "records/text", "records/scaling", "records/timeline"
LATENCY, OVERLAP, SCHEDULE = "records/paper/latency", "records/paper/overlap", "records/paper/schedule"
PREDICTIONS, BEFORE = "records/published", "records/published_before"
"""Predictions of published rows, and those made before the cost model had contention, hosts, tiles and a cache."""
PUBLISHED = "published/*.csv"
QUALITY, STALENESS = "records/quality", "records/staleness"
STILL, MOVING = "records/staleness_still", "records/staleness_moving"
"""Clips in which nothing moves, and in which something does."""
BREAK_EVEN, DISTANCE_VIDEO = "records/break_even", "records/distance_video"
DISTANCE_VIDEO_LONG = "records/distance_video_long"
"""Clips of twice as many frames."""
METHODS_2026, PIPEFUSION_SETTINGS = "records/methods_2026", "records/pipefusion_settings"
PAIRED = (f"{QUALITY}/record.json", f"{QUALITY}/rows.parquet")
"""The record of quality without its pictures."""
QUICKSTART, PRODUCTS = "records/quickstart", "records/products"
BENCH, WORLDS, LOADING = "records/bench", "records/worlds", "records/loading"

BANDWIDTH, LOAD, PLANS = "records/bandwidth", "records/load", "records/plan"
FLUX2_H100, FLUX2_L40 = f"{PLANS}/flux2_dev-h100_nvlink-8", f"{PLANS}/flux2_dev-l40_pcie_infiniband-16"
PIXART = f"{PLANS}/pixart_alpha-l40_pcie-8"
"""Made with nothing beside it: how long a plan takes."""
VIDEOS = {  # as many pictures as are nearest to the model's own and give latent frames that 8 divides
    f"records/plan_video/{model}-{cluster}-{devices}": (
        f"experiment=plan_video model={model} model.frames={frames} cluster={cluster} devices={devices}"
    )
    for model, frames in (("wan22_ti2v_5b", 125), ("wan22_a14b", 93), ("hunyuan_video", 125))
    for cluster, devices in (("h100_nvlink", 8), ("l40_pcie", 8), ("l40_pcie_infiniband", 16))
}

PLAN = "model=pixart_alpha cluster=l40_pcie devices=8 method.patches=8 model.resolution=2048"
COMMANDS = {
    ACCOUNTING: "experiment=accounting",
    ACCOUNTING_2026: "experiment=accounting_2026",
    WHOLE: "experiment=paper/table1_tensor",
    PARAMS: "experiment=params_per_device",
    TEXT: "experiment=text_variants",
    SCALING: "experiment=scaling",
    TIMELINE: f"{PLAN} hydra.run.dir=results/runs/timeline",
    LATENCY: "experiment=paper/latency",
    OVERLAP: "experiment=paper/overlap",
    SCHEDULE: "experiment=paper/schedule",
    PREDICTIONS: "experiment=predict_published",
    QUALITY: "experiment=quality",
    STALENESS: "experiment=staleness",
    STILL: "experiment=staleness_still",
    MOVING: "experiment=staleness_moving",
    BREAK_EVEN: "experiment=break_even",
    DISTANCE_VIDEO: "experiment=distance_video",
    DISTANCE_VIDEO_LONG: "experiment=distance_video_long",
    METHODS_2026: "experiment=methods_2026",
    PIPEFUSION_SETTINGS: "experiment=pipefusion_settings",
    QUICKSTART: "experiment=quickstart",
    PRODUCTS: "experiment=products",
    BENCH: "experiment=bench_cpu",
    WORLDS: "experiment=worlds steps=3 measure.rounds=3",
    LOADING: "experiment=loading",
    BANDWIDTH: "experiment=bandwidth",
    LOAD: "experiment=load",
    PIXART: "experiment=plan",
    FLUX2_H100: "experiment=plan model=flux2_dev cluster=h100_nvlink devices=8",
    FLUX2_L40: "experiment=plan model=flux2_dev cluster=l40_pcie_infiniband devices=16",
    **VIDEOS,
}
"""Record -> what `python run.py` is given."""


def commands(paths: Iterable[str]) -> list[str]:
    """The commands that make the records at these paths, each once; published rows are made by none."""
    found = [
        words for path in paths for record, words in COMMANDS.items() if f"{path}/".startswith(f"{record}/")
    ]
    return [f"python run.py {words}" for words in dict.fromkeys(found)]
