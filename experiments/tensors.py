"""Files of tensors: safetensors written whole or not at all, and the facts in their headers."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn, uint8

from analysis.records.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, str] | None = None) -> None:
    """Write a safetensors file, and `facts` into its header; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(content, temporary, facts)


def read_facts(path: Path) -> dict[str, str]:
    """The facts in a header. Raises OSError."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def network_sha256(network: nn.Module) -> str:
    """SHA-256 over the weights of a network, wherever they came from."""
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(uint8).numpy().tobytes())
    return digest.hexdigest()
