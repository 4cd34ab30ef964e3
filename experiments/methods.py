"""The one table of methods. A new method is its file, its YAML in conf/method, and its row here.

Whoever asks something of a method asks its row; nobody else keeps a list of methods or of what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import pipefusion.method as pipefusion
from baselines import distrifusion, naive_patch, pcpp, ring, serial, sync_pipeline, tensor, ulysses
from pipefusion.core.closed_forms import Prediction
from pipefusion.core.dit import Problem, Sampler
from pipefusion.core.shape import DiTShape

Attends = Callable[[DiTShape, int, Any, range], Sequence[int]]
"""attends(shape, devices, cfg, rows): token rows whose K, V a job on `rows` attends to after the warm-up."""


def to_all(shape: DiTShape, devices: int, cfg: Any, rows: range) -> Sequence[int]:
    """The whole image."""
    return range(shape.token_rows)


@dataclass(frozen=True)
class Method:
    """A method's own functions and the facts that tests, replays and measures hold it to.

    `exact`: it equals serial whatever its settings. One that is not has a `warmup` key, equals serial with as many
    synchronous steps as there are steps, and says which K, V of other patches a job sees after them (`stale`): the
    newest there are (`own`, as PipeFusion writes them), those of a whole step ago (`displaced`), or those of the last
    synchronous step (`frozen`): the words of the reference that replays it.
    """

    Config: type[Any]
    check: Callable[..., Problem | None]
    build: Callable[..., Sampler]
    predict: Callable[..., Prediction]
    exact: bool
    stale: Literal["own", "displaced", "frozen"] | None = None
    attends: Attends = to_all

    @property
    def axis(self) -> str:
        """The mesh axis that is its own."""
        axis: str = self.Config.axis
        return axis

    def has(self, key: str) -> bool:
        """Whether its configuration has a key: `patches` where they are not its devices, `warmup`, `split`."""
        return key in self.Config.__dataclass_fields__

    def never_stale(self, steps: int, settings: Mapping[str, Any]) -> bool:
        """Whether a run must equal serial: the method is exact, all steps are synchronous, or there is one patch."""
        return self.exact or settings.get("warmup") == steps or settings.get("patches") == 1


def row(module: ModuleType, **facts: Any) -> Method:
    """The row of a module that has `Config`, `check`, `build` and `predict`."""
    return Method(module.Config, module.check, module.build, module.predict, **facts)


METHODS: dict[str, Method] = {
    "serial": row(serial, exact=True),
    "sync_pipeline": row(sync_pipeline, exact=True),
    "tensor": row(tensor, exact=True),
    "ulysses": row(ulysses, exact=True),
    "ring": row(ring, exact=True),
    "naive_patch": row(naive_patch, exact=False, stale="frozen"),
    "pcpp": row(pcpp, exact=False, stale="displaced", attends=pcpp.attends),
    "distrifusion": row(distrifusion, exact=False, stale="displaced"),
    "pipefusion": row(pipefusion, exact=False, stale="own"),
}
