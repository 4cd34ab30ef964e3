"""Where weights come from, and whether a folder of them is what it claims to be. Headers only: no tensor is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.records import files
from analysis.records.files import require_file
from experiments.errors import CONF, ConfigError, first_line
from pipefusion.deferred import diffusers
from pipefusion.families import VIEWS, diffusers_class

KEY = "model.weights"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ARCHITECTURES = tuple(VIEWS)
"""Classes of diffusers that a `transformer/config.json` may name."""

SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
"""What is fetched of every part of a pipeline: configurations and vocabularies."""

VARIANTS = "*/*.*.safetensors"
"""diffusers' second copies in another precision: not fetched unless one is asked for."""

HEADER_BYTES = 100 << 20
"""The longest header that safetensors reads."""


@dataclass(frozen=True)
class Stored:
    """What the header of a file says of a tensor. `dtype` is safetensors' name of it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def resolve_weights(
    weights: str | Path, parts: Sequence[str] = ("transformer",), variant: str | None = None
) -> Path:
    """A local folder, or the snapshot of a hub id with the safetensors of `parts` (patterns of folder names).

    A relative path is one of the working directory or, where that has none, of this project: so the shipped models are
    found from everywhere. A hub id may name a revision, `ORGANISATION/NAME@REVISION`. What the hub's local cache has is
    taken from there where the hub cannot be reached. Raises ConfigError.
    """
    folder = next((path for path in places(weights) if path.is_dir()), None)
    if folder is not None:
        return folder
    allowed = "allowed: a folder with transformer/config.json, or a hub id"
    if any(path.exists() for path in places(weights)):
        raise ConfigError(KEY, f"{weights} is a file; {allowed}")
    name, _, revision = str(weights).partition("@")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) or Path(name).parent.exists():
        raise ConfigError(KEY, f"{weights} does not exist; {allowed}")
    from huggingface_hub import snapshot_download

    files = f"*.{variant}*.safetensors" if variant else "*.safetensors"
    patterns = [*SMALL, *(f"{part}/{files}" for part in parts)]
    try:
        found = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=patterns,
            ignore_patterns=None if variant else VARIANTS,
        )
        return Path(found)
    except Exception as error:  # of the hub, the network or the disk: what helps is the same
        options = " ".join(f'--include "{pattern}"' for pattern in patterns)
        options += f" --revision {revision}" if revision else ""
        raise ConfigError(
            KEY,
            f"{weights} is no folder, and the hub does not give it ({first_line(error)}); allowed: a folder: "
            f"`hf download {name} {options} --local-dir FOLDER` where there is a network, then {KEY}=FOLDER",
        ) from None


def places(path: str | Path) -> list[Path]:
    """Where a path may lead: from the working directory, then from this project."""
    typed = Path(path).expanduser()
    return [typed, CONF.parent / typed]


def check_weights(
    weights: str | Path, variant: str | None = None, parts: Sequence[str] = ("transformer",)
) -> Path:
    """The folder of a local path or hub id, if its files are whole, and their headers as its config.json says.

    Raises ConfigError with the file and the tensor where weights are missing, pickled, cut short, misplaced, too many,
    or of another shape or dtype.
    """
    folder = check_headers(weights, variant, parts)
    check_tensors(folder, variant)
    return folder


def check_headers(weights: str | Path, variant: str | None, parts: Sequence[str]) -> Path:
    """The folder of a local path or hub id, if its files are there and whole. Raises ConfigError."""
    folder = resolve_weights(weights, parts, variant)
    if variant is not None:
        check_variant(folder, variant, parts)
    read_config(folder / "transformer" / "config.json")
    for part in transformers(folder):
        read_tensors(part, variant)
    return folder


def check_tensors(folder: Path, variant: str | None) -> None:
    """Whether a folder whose files are whole has the tensors of its class. Raises ConfigError."""
    first, *others = transformers(folder)
    config = read_config(first / "config.json")
    shapes = expected_shapes(config, first)
    for part in (first, *others):
        compare(read_tensors(part, variant), shapes, part, diffusers_class(config), variant)


def transformers(folder: Path) -> list[Path]:
    """The folders of a pipeline's transformer and, where it has two experts, of the second, which has the same."""
    return [folder / "transformer", *folder.glob("transformer_2")]


def check_variant(folder: Path, variant: str, parts: Sequence[str]) -> None:
    """Whether every part of a pipeline that has weights has them in this variant. Raises ConfigError."""
    from pipefusion.core.weights import variants

    for part in sorted(path for pattern in parts for path in folder.glob(pattern)):
        there = variants(part)
        if variant not in there and next(part.glob("*.safetensors"), None):
            text = f"{variant} is no variant that {part} has; allowed: {', '.join(['null', *there])}"
            raise ConfigError("model.variant", text)


def read_config(path: Path) -> dict[str, Any]:
    """The architecture's configuration. Raises ConfigError."""
    config = read_json(path, "a configuration in diffusers' layout")
    name = diffusers_class(config)
    if name not in ARCHITECTURES:
        raise ConfigError(KEY, f"{path} is for {name}; allowed: {', '.join(ARCHITECTURES)}")
    return config


def read_json(path: Path, allowed: str) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ConfigError."""
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        raise ConfigError(KEY, f"{path} does not exist; allowed: {allowed}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(KEY, f"{path} is not readable as JSON ({error}); allowed: {allowed}") from None
    if not isinstance(content, dict):
        raise ConfigError(KEY, f"{path} holds no mapping; allowed: {allowed}")
    return content


def read_tensors(part: Path, variant: str | None = None) -> dict[str, Stored]:
    """All tensors of a `transformer/` folder, which must lie in the files where its index says. Raises ConfigError."""
    from pipefusion.core.weights import file_names, file_variant

    single, several = file_names(variant)
    index = read_index(part / several) if (part / several).exists() else None
    wanted = {single} if index is None else set(index.values())
    there = sorted(path.name for path in part.glob("*.safetensors"))
    files = [name for name in there if name in wanted or file_variant(name) == variant]
    if index is None and not files:
        pickled = sorted(path.name for path in part.iterdir() if path.suffix in PICKLED)
        holds = f"holds pickled weights ({pickled[0]})" if pickled else "holds no weights"
        raise ConfigError(KEY, f"{part} {holds}; allowed: *.safetensors, as save_pretrained writes them")
    for name, file in (index or {}).items():
        if file not in files:
            raise ConfigError(
                KEY,
                f"{part / file} does not exist, and {several} says {name} is in it; allowed: all its files",
            )
    found: dict[str, Stored] = {}
    for file in files:
        first = next((name for name, other in (index or {}).items() if other == file), None)
        for name, tensor in read_header(part / file, first).items():
            if index is None and file != single:
                raise ConfigError(
                    KEY,
                    f"{tensor.file} has {name}, and there is no {several}; allowed: {single} alone, or an index",
                )
            if index is not None and index.get(name) != file:
                claim = f"says is in {index[name]}" if name in index else "does not name"
                raise ConfigError(
                    KEY, f"{tensor.file} has {name}, which {several} {claim}; allowed: what its index says"
                )
            found[name] = tensor
    for name, file in (index or {}).items():
        if name not in found:
            raise ConfigError(
                KEY,
                f"{part / file} lacks {name}, which {several} says is in it; allowed: what its index says",
            )
    return found


def read_index(path: Path) -> dict[str, str]:
    """Tensor -> name of its file. Raises ConfigError."""
    what = "weight_map, from each tensor to the *.safetensors file beside it"
    names = read_json(path, what).get("weight_map")
    if not isinstance(names, dict):
        raise ConfigError(KEY, f"{path} has no weight_map; allowed: {what}")
    for name, file in names.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ConfigError(KEY, f"{path} says {name} is in {file}; allowed: {what}")
    return names


def read_header(path: Path, first: str | None) -> dict[str, Stored]:
    """The tensors of one file; `first` is one that should be there. Raises ConfigError if pickled or cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        require_file(path)
        with path.open("rb") as stream:
            start = stream.read(2)
    except OSError as error:
        raise ConfigError(
            KEY, f"{path} cannot be read ({first_line(error)}); allowed: a safetensors file"
        ) from None
    if start in (b"PK", b"\x80\x02", b"\x80\x04"):  # a zip, as torch.save writes, or a plain pickle
        what = f"{path} is a pickle under another name" + (f", where {first} should be" if first else "")
        raise ConfigError(KEY, f"{what}; allowed: safetensors, as save_pretrained writes them")
    try:
        with safe_open(path, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (not a mapping)
            return {
                name: Stored(path, tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()
            }
    except (SafetensorError, OSError) as error:
        cut = first_cut(path) or first
        what = f"{path} is truncated or broken" + (f", {cut} is not whole" if cut else "")
        raise ConfigError(KEY, f"{what} ({error}); allowed: whole safetensors files") from None


def first_cut(path: Path) -> str | None:
    """The first tensor that a truncated file does not hold whole; None where its header is broken."""
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, HEADER_BYTES)))
        ends = sorted(
            (each["data_offsets"][1], name) for name, each in header.items() if "data_offsets" in each
        )
        return next((name for end, name in ends if 8 + length + end > size), None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def expected_shapes(config: dict[str, Any], part: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model that a configuration describes, built without data. Raises ConfigError."""
    name = diffusers_class(config)
    try:
        with torch.device("meta"):
            model = getattr(diffusers, name).from_config(config)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        text = f"{part / 'config.json'}: {first_line(error)}; allowed: what {name} takes"
        raise ConfigError(KEY, text) from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def compare(
    found: dict[str, Stored],
    expected: dict[str, tuple[int, ...]],
    part: Path,
    name: str,
    variant: str | None = None,
) -> None:
    """Raises ConfigError at the first tensor that is missing, too many, or of another shape or dtype."""
    from pipefusion.core.weights import DTYPES, file_names

    single, several = file_names(variant)
    holder = part / (several if (part / several).exists() else single)
    for key in expected:
        if key not in found:
            raise ConfigError(KEY, f"{holder} lacks {key}; allowed: the {len(expected)} tensors of {name}")
    for key, tensor in found.items():
        if key not in expected:
            text = f"{tensor.file} has {key}, which {name} has not; allowed: its {len(expected)} tensors"
            raise ConfigError(KEY, text)
        if tensor.shape != expected[key]:
            text = f"{tensor.file} has {key} of shape {list(tensor.shape)}; allowed: {list(expected[key])}"
            raise ConfigError(KEY, text)
        if tensor.dtype not in DTYPES:
            text = f"{tensor.file} has {key} of dtype {tensor.dtype}; allowed: {', '.join(DTYPES)}"
            raise ConfigError(KEY, text)
