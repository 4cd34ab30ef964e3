"""Which layers stale K, V harm most: the order in which selective synchrony takes them."""

from __future__ import annotations

from analysis.staleness.tables import Record


def most_sensitive(record: Record, model: str, method: str) -> list[int]:
    """Layers by the mean error of attention to stale K, V behind the warm-up, largest first.

    Over all settings of the method on the model, each job by the rows that it computes; none where it has no rows.
    """
    rows = record.error
    rows = rows[(rows.model == model) & (rows.method == method) & (rows.step >= rows.warmup)]
    weighed = (
        rows.assign(weighed=rows.attention_error * rows.rows).groupby("layer")[["weighed", "rows"]].sum()
    )
    order = (weighed.weighed / weighed.rows).sort_values(ascending=False, kind="stable")
    return [int(layer) for layer in order.index]
