"""Text encoders and VAE that come with a transformer in its pipeline: what they hold, from the files of conf/part."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from experiments.errors import CONF

KINDS = ("text_encoder", "vae")


@cache
def read_parts() -> dict[str, dict[str, Any]]:
    """Every part by name: `kind`, `parameters`, the `models` it belongs to, `class` and `config` it is built of."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((CONF / "part").glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        found[path.stem] = {str(key): value for key, value in content.items()}
    return found


def part_bytes(model: str, kind: str, itemsize: int) -> int | None:
    """Bytes of all parts of a kind that a model of conf/model comes with; None where they are not known."""
    sizes = [
        one["parameters"] for one in read_parts().values() if one["kind"] == kind and model in one["models"]
    ]
    return sum(sizes) * itemsize if sizes else None
