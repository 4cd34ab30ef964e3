"""What a pipeline's own text encoders make of the prompts, once for all settings: they can outweigh the transformer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from analysis.files import replacing
from experiments.config import RunConfig
from experiments.contents import sha256_of_json, text_contents
from experiments.device import choose_device
from experiments.inputs import Encode, text_of
from experiments.models import Model, open_model
from experiments.pool import Bar, run_all
from experiments.session import Session

NEGATIVE = "negative_"


def texts_path(out: Path, cfg: RunConfig, model: Model) -> Path | None:
    """Where the encoded prompts of pictures of this dtype are kept; None where encoding costs next to nothing."""
    return out / "texts" / f"{cfg.model.dtype}.safetensors" if text_of(cfg, model) == "own" else None


def encode_all(runs: Sequence[RunConfig], cfg: RunConfig, session: Session, gpus: int = 0) -> None:
    """Encode the prompts that runs need and their files do not have, in a process that ends and frees its memory.

    Raises what the encoders raise, and RuntimeError if that process was killed.
    """
    wanted: dict[Path, list[RunConfig]] = {}
    for run in runs:
        path = texts_path(session.folder, run, session.model(run.model))
        if path is not None:
            wanted.setdefault(path, []).append(run)
    for path, group in wanted.items():
        prompts = [*dict.fromkeys(text for run in group for text in run.prompt)]
        if not has(path, group[0], prompts):
            bar = Bar(path.exists, 1, "prompts encoded", cfg.log.progress)
            run_all(encode_to, [(path, group[0], prompts)], 1, bar, __name__, gpus, apart=True)
            if not has(path, group[0], prompts):
                raise RuntimeError("the process was killed")


def encode_to(path: Path, cfg: RunConfig, prompts: Sequence[str]) -> None:
    """Write the tensors of prompts [P, ...] and of the negative one [1, ...], computed in float32.

    Embeddings are kept in the model's dtype, which it would round them to anyway.
    """
    from experiments.components import encode

    torch.set_num_threads(cfg.threads)
    model, dtype = open_model(cfg.model), getattr(torch, cfg.model.dtype)
    assert model.folder is not None
    negative = cfg.negative_prompt if model.shape.guidance == "cfg" else None
    found = encode(model.folder, prompts, negative, choose_device(cfg.cluster.device), torch.float32)
    tensors = {}
    for name, tensor in found.items():
        kept = tensor[:1] if name.startswith(NEGATIVE) else tensor
        tensors[name] = kept.to(dtype if "embeds" in name else kept.dtype).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"stamp": stamp_of(cfg), "texts": json.dumps(list(prompts))})


def has(path: Path, cfg: RunConfig, prompts: Iterable[str]) -> bool:
    """Whether these prompts are there, encoded by just this."""
    if not path.is_file():
        return False
    with safe_open(path, framework="pt") as file:
        found = file.metadata() or {}
    return found.get("stamp") == stamp_of(cfg) and set(prompts) <= set(json.loads(found["texts"]))


def stamp_of(cfg: RunConfig) -> str:
    """Tells one set of encoders and negative prompt from another, by the content of the encoders' files."""
    return sha256_of_json([cfg.negative_prompt, text_contents(open_model(cfg.model).folder, "own")])


def stored(path: Path) -> Encode:
    """Prompts as `inputs.encoded` gives them, read from a file of `encode_to`."""

    def read(cfg: RunConfig, model: Model, prompts: Sequence[str], negative: str | None) -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            place = {text: k for k, text in enumerate(json.loads(file.metadata()["texts"]))}
            rows = [place[prompt] for prompt in prompts]
            found = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                if not name.startswith(NEGATIVE):
                    found[name] = torch.cat([part[row : row + 1] for row in rows])
                elif negative is not None:
                    found[name] = torch.cat([part[:1]] * len(rows))
        return found

    return read
