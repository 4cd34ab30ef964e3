"""Which device a rank computes on, as `cluster.device` names it."""

from __future__ import annotations

import os

import torch

from experiments.runs.accelerator import settle


def device_type(name: str) -> str:
    """`cpu` or `cuda`: `auto` is CUDA where there is one. Makes no CUDA context."""
    return "cpu" if name == "cpu" or (name == "auto" and not torch.cuda.is_available()) else "cuda"


def choose_device(name: str) -> torch.device:
    """Each rank of a node takes the device of its local rank, with the settings that all runs share."""
    if device_type(name) == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    settle(device)
    return device


def synchronise(device: torch.device) -> None:
    """Wait for all that was given to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
