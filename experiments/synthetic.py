"""A checkpoint of random weights in diffusers' sharded layout, of any size, to load as a real one."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import disk_usage

import diffusers
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from analysis.presentation.columns import mib
from analysis.records.files import replacing_folder
from experiments.models.model import Model
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
    state = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    pattern = NAME.replace(".", "{suffix}.")
    shards = split_torch_state_dict_into_shards(state, filename_pattern=pattern, max_shard_size=file_bytes)
    total, draw = shards.metadata["total_size"], torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    free = disk_usage(folder).free
    if free < total:
        raise OSError(f"{folder} has {mib(free)} MiB free, and the weights take {mib(total)} MiB")
    with replacing_folder(folder) as fresh:
        part = fresh / "transformer"
        part.mkdir()
        for file, names in shards.filename_to_tensors.items():
            shapes = {name: state[name].shape for name in names}
            tensors = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
            for tensor in tensors.values():
                tensor.uniform_(-0.02, 0.02, generator=draw)
            save_file(tensors, part / file)
        write_json(part / INDEX, {"metadata": {"total_size": total}, "weight_map": shards.tensor_to_filename})
        (fresh / "scheduler").mkdir()
        write_json(fresh / "scheduler" / "scheduler_config.json", model.scheduler)
        write_json(fresh / "pipefusion_lab.json", model.facts)
        network.save_config(part)
