"""The GPU of a rank: settings that are the same for all methods, what a record says of it, its own memory counters.

Everything here is for a process that uses the GPU: asking makes a CUDA context. On a CPU nothing is set or found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipefusion.core.attention import pick_kernel

ENVIRONMENT = ("CUDA_", "NCCL_", "NVIDIA_", "PYTORCH_", "TORCH_")
"""First letters of the variables that can change what is measured on a GPU."""
PEAKS = ("cuda_allocated_peak_bytes", "cuda_reserved_peak_bytes", "cuda_used_bytes")
DRIVER = Path("/proc/driver/nvidia/version")


def settle(device: torch.device) -> None:
    """Float32 is float32 (cuDNN's convolutions would take TF32), and cuDNN's attention is nobody's."""
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def check_dtype(device: torch.device, dtype: torch.dtype) -> None:
    """Raises ValueError for a dtype that the GPU has no attention kernel for."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        found = ".".join(map(str, capability))
        raise ValueError(
            f"model.dtype=bfloat16 needs compute capability 8.0, this GPU has {found}; allowed: float16, float32"
        )


def facts(device: torch.device, dtype: torch.dtype) -> dict[str, Any] | None:
    """What the numbers of a run on this GPU can depend on; None on a CPU."""
    if device.type != "cuda":
        return None
    cuda = torch.backends.cuda
    masked = {
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
    }
    return {
        "name": torch.cuda.get_device_name(device),
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "driver": driver_version(),
        "tf32": {"matmul": cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        "attention": {
            "unmasked": pick_kernel(device, dtype),
            "masked": [name for name, enabled in masked.items() if enabled],
        },
        "environment": {name: value for name, value in sorted(os.environ.items()) if is_reported(name)},
    }


def is_reported(name: str) -> bool:
    """Whether a record keeps an environment variable."""
    return name.startswith(ENVIRONMENT)


def driver_version() -> str | None:
    """The first line that the kernel module says of itself."""
    try:
        return DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None


def cuda_peaks(image: Callable[[], object], device: torch.device) -> dict[str, int | None]:
    """Peaks of one image that starts from an empty cache, and what the driver has given away after it.

    The driver counts what no counter of torch does: the context, NCCL's buffers, other processes on the GPU.
    """
    if device.type != "cuda":
        return dict.fromkeys(PEAKS)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    image()
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    counted = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device), total - free
    return dict(zip(PEAKS, counted, strict=True))
