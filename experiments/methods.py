"""The one table of methods. A new method is its file, its YAML in conf/method, and its row here.

Each module offers `Config` (a dataclass), `check`, `build` and `predict`; see docs/adding-a-method.md.
"""

from __future__ import annotations

from types import ModuleType

import pipefusion.method as pipefusion
from baselines import distrifusion, naive_patch, ring, serial, sync_pipeline, tensor, ulysses

METHODS: dict[str, ModuleType] = {
    "serial": serial,
    "sync_pipeline": sync_pipeline,
    "tensor": tensor,
    "ulysses": ulysses,
    "ring": ring,
    "naive_patch": naive_patch,
    "distrifusion": distrifusion,
    "pipefusion": pipefusion,
}
