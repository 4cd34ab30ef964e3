"""PipeFusion: patch-level pipeline parallelism for diffusion transformers (arXiv 2405.14430).

As a library (docs/library.md): `init`, `Parallel`, `parallelize`, `Denoiser`, `generate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipefusion.core.parallel import Parallel
    from pipefusion.denoiser import Denoiser, parallelize
    from pipefusion.group import init
    from pipefusion.pipelines.generation import generate

__all__ = ["Denoiser", "Parallel", "generate", "init", "parallelize"]

HOMES = {
    "Parallel": "pipefusion.core.parallel",
    "init": "pipefusion.group",
    "parallelize": "pipefusion.denoiser",
    "Denoiser": "pipefusion.denoiser",
    "generate": "pipefusion.pipelines.generation",
}


def __getattr__(name: str) -> Any:
    """The five names, imported when they are asked for: diffusers takes seconds, and `pipefusion.core` needs little."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
