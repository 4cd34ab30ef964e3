"""A published row to be changed, and the run that it stands for."""

from __future__ import annotations

from experiments.published import Row, Target, target_of

ROW: Row = {
    "source": "xdit_assets some figure",
    "version": "",
    "hardware": "8xL40-48GB",
    "interconnect": "PCIe Gen4x16",
    "model": "PixArt",
    "resolution": "2048",
    "steps": "20",
    "n_devices": "8",
    "method": "PipeFusion",
    "setting": "",
    "metric": "latency",
    "value": "3.5",
    "unit": "s",
}


def target(**changes: str) -> Target:
    found = target_of("latency.csv:2", ROW | changes)
    assert isinstance(found, Target), found
    return found
