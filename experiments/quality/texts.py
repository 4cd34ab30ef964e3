"""What a pipeline's own text encoders make of the prompts, once for all settings: they can outweigh the transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.config import RunConfig
from experiments.models.components import encode
from experiments.models.contents import hash_json, text_contents
from experiments.models.inputs import Encode, text_source
from experiments.models.model import Model, open_model
from experiments.pool import Bar, run_all
from experiments.quality.store import TEXTS, shared, there
from experiments.runs.device import choose_device
from experiments.session import Session
from experiments.tensors import write_tensors

NEGATIVE = "negative_"


def texts_path(cfg: RunConfig, session: Session) -> Path | None:
    """The file of the encoded prompts of a batch; None where encoding costs next to nothing."""
    model = session.model(cfg.model)
    if text_source(cfg, model) != "own":
        return None
    made_of = [cfg.prompt, cfg.negative_prompt, cfg.model.dtype, text_contents(model.folder, "own")]
    return shared(session, TEXTS) / f"{hash_json(made_of)}.safetensors"


def encode_all(runs: Sequence[RunConfig], cfg: RunConfig, session: Session, gpus: int = 0) -> None:
    """Encode the prompts of batches that have no file yet, in a process that ends and frees its memory.

    Raises what the encoders raise, and RuntimeError if that process was killed.
    """
    paths = {texts_path(run, session): run for run in runs}
    missing = {path: run for path, run in paths.items() if path is not None and not path.exists()}
    if missing:
        bar = Bar(partial(there, [*missing]), len(missing), "batches of prompts encoded", cfg.log.progress)
        run_all(encode_to, [(missing,)], 1, bar, __name__, gpus, apart=True)
        if there([*missing]) < len(missing):
            raise RuntimeError("the process was killed")


def encode_to(missing: Mapping[Path, RunConfig]) -> None:
    """Write the tensors of the prompts [P, ...] of batches and of the negative one [1, ...], computed in float32.

    Embeddings are kept in the model's dtype, which it would round them to anyway.
    """
    cfg = next(iter(missing.values()))
    torch.set_num_threads(cfg.threads)
    model = open_model(cfg.model)
    assert model.folder is not None
    place = {
        text: k for k, text in enumerate(dict.fromkeys(text for r in missing.values() for text in r.prompt))
    }
    negative = cfg.negative_prompt if model.shape.guidance == "cfg" else None
    found = encode(model.folder, [*place], negative, choose_device(cfg.cluster.device), torch.float32)
    for path, run in missing.items():
        tensors = {}
        for name, tensor in found.items():
            rows = [0] if name.startswith(NEGATIVE) else [place[prompt] for prompt in run.prompt]
            dtype = getattr(torch, run.model.dtype) if "embeds" in name else tensor.dtype
            tensors[name] = tensor[rows].to(dtype)
        write_tensors(path, tensors)


def stored(path: Path) -> Encode:
    """Prompts as `inputs.encoded` gives them, read from the file of their batch."""

    def read(cfg: RunConfig, model: Model, prompts: Sequence[str], negative: str | None) -> dict[str, Tensor]:
        return {
            name: tensor.expand(len(prompts), *tensor.shape[1:])
            for name, tensor in load_file(path).items()
            if negative is not None or not name.startswith(NEGATIVE)
        }

    return read
