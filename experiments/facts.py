"""What a reader of a record asks about its models and clusters."""

from __future__ import annotations

from typing import Any

from experiments.config import ClusterConfig
from experiments.models.model import Model
from experiments.published import published_rows
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import LinkConfig


def model_facts(model: Model) -> dict[str, Any]:
    """Sizes of a model, and its parameters as diffusers itself counts them."""
    parameters, shape = list(model.view().model.parameters()), model.shape
    return {
        "parameters": sum(p.numel() for p in parameters),
        "param_bytes": sum(p.nbytes for p in parameters),
        "layers": shape.layers,
        "hidden": shape.hidden,
        "heads": shape.heads,
        "tokens": shape.tokens,
        "resolution": model.resolution,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def cluster_facts(cluster: ClusterConfig) -> dict[str, Any]:
    """The device, its room for tensors, and the published rows that the profile was fitted on."""
    hardware = cluster.hardware
    assert hardware is not None
    return {
        "device": hardware.name,
        "room_bytes": hardware.memory_bytes - hardware.reserved_bytes,
        "devices_per_node": cluster.topology.devices_per_node,
        "calibrated_on": calibration_rows(cluster),
    }


def borrowed(cluster: ClusterConfig, devices: int) -> list[str]:
    """The device, and the links of several, that no published row of this GPU was fitted for."""
    device, topology, rows = cluster.hardware, cluster.topology, published_rows()
    assert device is not None
    links = (topology.port, topology.card) if devices > 1 else ()
    parts: list[DeviceConfig | LinkConfig] = [device, *(link for link in links if link is not None)]
    gpu = device.name.upper()
    return [part.name for part in parts if gpu not in {rows[row].gpu for row in part.calibrated_on}]


def calibration_rows(cluster: ClusterConfig) -> list[str]:
    """The published rows that the device, the links and the host of a cluster were fitted on."""
    topology = cluster.topology
    parts = [cluster.hardware, topology.port, topology.root, topology.card, cluster.hosts.get(cluster.host)]
    return [row for part in parts if part is not None for row in part.calibrated_on]
