"""The answer to the question that this project began with: how can a device hold only 1/N of the parameters?"""

from __future__ import annotations

import pandas as pd

from analysis.presentation.columns import mib


def answer(devices: pd.DataFrame, tokens: int) -> str:
    """What one PipeFusion device holds, in one sentence made from the rows of its run."""
    row = devices.iloc[len(devices) // 2]
    layers = f"layer {row.layers}" if row.layer_count == 1 else f"layers {row.layers}"
    shares = ""
    if not pd.isna(row.model_share):
        blocks, everything = 100 * row.block_share, 100 * row.model_share
        shares = f"{blocks:.1f} % of block parameters, {everything:.1f} % of all parameters, and "
    own = "its one layer" if row.layer_count == 1 else f"its {row.layer_count} layers"
    kv = f"KV of only {own} for all {tokens} image tokens ({mib(row.kv_bytes)} MiB)"
    return (
        f"PipeFusion cuts layers 0-{int(devices.layer_count.sum()) - 1} into {len(devices)} stages: "
        f"device {row['rank']} of {len(devices)} holds {layers}: {shares}{kv}."
    )
