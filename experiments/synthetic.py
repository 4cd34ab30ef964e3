"""A checkpoint of random weights in diffusers' sharded layout, of any size, to load as a real one."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import disk_usage

import diffusers
import torch
from safetensors.torch import save_file

from analysis.files import replacing_folder
from experiments.models import Model
from experiments.records import write_json
from pipefusion.core.weights import INDEX, NAME


def identity(model: Model) -> str:
    """What two models of the same tensors have in common, as JSON has it."""
    return json.dumps([model.class_name, model.config], sort_keys=True)


def written(folder: Path) -> bool:
    """Whether a folder has a whole checkpoint: its last file is there."""
    return (folder / "transformer" / "config.json").exists()


def write_checkpoint(folder: Path, model: Model, dtype: torch.dtype, file_bytes: int, seed: int) -> None:
    """Random weights of a model's architecture in diffusers' sharded layout, in files of about `file_bytes`.

    One file is in memory at a time. Takes the place of what is in the folder.
    """
    with torch.device("meta"):
        network = getattr(diffusers, model.class_name).from_config(model.config)
    total = sum(tensor.numel() for tensor in network.state_dict().values()) * dtype.itemsize
    folder.mkdir(parents=True, exist_ok=True)
    free = disk_usage(folder).free
    if free < total:
        raise OSError(f"{folder} has {mib(free)} MiB free, and the weights take {mib(total)} MiB")
    with replacing_folder(folder) as fresh:
        index = write_tensors(fresh / "transformer", network, dtype, file_bytes, seed)
        index_of = {"metadata": {"total_size": total}, "weight_map": index}
        write_json(fresh / "transformer" / INDEX, index_of)
        (fresh / "scheduler").mkdir()
        write_json(fresh / "scheduler" / "scheduler_config.json", model.scheduler)
        write_json(fresh / "pipefusion_lab.json", model.facts)
        network.save_config(fresh / "transformer")


def write_tensors(
    part: Path, network: torch.nn.Module, dtype: torch.dtype, file_bytes: int, seed: int
) -> dict[str, str]:
    """Random tensors of a network, one file in memory at a time; which file each is in."""
    part.mkdir()
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    groups: list[list[str]] = [[]]
    room = file_bytes
    for name, shape in shapes.items():
        room -= shape.numel() * dtype.itemsize
        if room < 0 and groups[-1]:
            groups.append([])
            room = file_bytes - shape.numel() * dtype.itemsize
        groups[-1].append(name)
    draw = torch.Generator().manual_seed(seed)
    index: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        file = NAME.replace(".", f"-{number:05}-of-{len(groups):05}.")
        tensors = {name: torch.empty(shapes[name], dtype=dtype) for name in names}
        for tensor in tensors.values():
            tensor.uniform_(-0.02, 0.02, generator=draw)
        save_file(tensors, part / file)
        index |= dict.fromkeys(names, file)
    return index


def mib(size: int | None) -> str:
    """Bytes as MiB; empty where there are none."""
    return "" if size is None else f"{size / 2**20:.1f}"
