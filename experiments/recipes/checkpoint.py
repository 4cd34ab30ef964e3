"""The whole state of a training run in safetensors + JSON: weights, their average, both optimisers, the counters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from experiments.errors import ConfigError
from experiments.tensors import write_tensors


@dataclass
class Progress:
    """Where a run stands. Random numbers need no state: they are a function of the seed and the step."""

    step: int = 0  # of the whole run
    seen: int = 0  # pictures, all stages
    stage: int = 0
    stage_step: int = 0
    stage_samples: int = 0
    seconds: float = 0.0  # spent in steps, over all resumed parts
    losses: list[list[float]] = field(default_factory=list)  # rows of the loss curve


def save(
    path: Path,
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
) -> None:
    """Write safetensors with the progress in their header, whole or not at all."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in average.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimiser in optimisers:
        for parameter, state in optimiser.state.items():
            tensors |= {f"optimiser.{names[parameter]}.{k}": torch.as_tensor(v) for k, v in state.items()}
    write_tensors(path, tensors, {"progress": json.dumps(asdict(progress))})


def load(
    path: Path, model: nn.Module, average: nn.Module, optimisers: Sequence[torch.optim.Optimizer]
) -> Progress | None:
    """Restore in place what `save` wrote; None where nothing is. Raises ConfigError for another network's."""
    if not path.is_file():
        return None
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimiser": {}}
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            for key in file.keys():  # noqa: SIM118 (not a dict)
                kind, name = key.split(".", 1)
                parts[kind][name] = file.get_tensor(key)
        model.load_state_dict(parts["model"])
        average.load_state_dict(parts["ema"])
    except (SafetensorError, RuntimeError, TypeError, LookupError):
        text = f"true, and {path} is no checkpoint of measure.network"
        raise ConfigError("measure.resume", f"{text}; allowed: false, or another hydra.run.dir") from None
    parameters = dict(model.named_parameters())
    # By weight and not by optimiser: the run may go on with another number of workers.
    owner = {p: o for o in optimisers for group in o.param_groups for p in group["params"]}
    for full, value in parts["optimiser"].items():
        name, key = full.rsplit(".", 1)
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU wherever the weights are.
        owner[parameter].state[parameter][key] = value if key == "step" else value.to(parameter.device)
    return progress
