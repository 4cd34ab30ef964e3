"""`measure=text_variants`: an MM-DiT's prompt between pipeline stages, exact, and as published.

Small random models, whose matrices are multiplied by `gain` so that the prompt matters, run in the simulated world;
messages are also counted for full-size models (`counted`), by the closed forms that tests hold equal to the ledger. How
far apart the two are on trained weights is what `model.weights=... method.text=...` shows; random ones only show what
depends on what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

import pipefusion.method as pipefusion
from experiments.config import RunConfig
from experiments.difference import norm_of_difference
from experiments.errors import check_known, config_names
from experiments.grid import GridConfig, expand, serial_reference
from experiments.journal import Row
from experiments.models.inputs import as_inputs, make_inputs
from experiments.models.model import louder
from experiments.session import Session, guidance_branches
from experiments.study import Cell, Study
from pipefusion.core.domain import Devices, Gain, PatchCounts, Warmups
from pipefusion.core.parallel import Parallel


@dataclass
class TextVariantsConfig(GridConfig):
    """`models` are run, `counted` only counted, on `full_devices` with as many patches."""

    name: str = "text_variants"
    models: list[str] = field(
        default_factory=lambda: ["sd3_tiny", "sd35_tiny", "flux_tiny", "flux2_tiny", "qwen_tiny"]
    )
    methods: list[str] = field(default_factory=lambda: ["pipefusion"])
    devices: list[Devices] = field(default_factory=lambda: [1, 2, 4])
    patches: list[PatchCounts] = field(default_factory=lambda: [4])
    warmups: list[Warmups] = field(default_factory=lambda: [1])
    gain: Gain = 2.0
    counted: list[str] = field(
        default_factory=lambda: [
            "sd3_medium",
            "sd35_large",
            "flux_dev",
            "flux2_dev",
            "flux2_klein_4b",
            "qwen_image",
        ]
    )
    full_devices: Devices = 8


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """The small models on each N, then the full-size ones."""
    options: TextVariantsConfig = cfg.measure
    cfg = replace(cfg, prompt="a tree")
    yield from expand(cfg, options)
    if options.counted:
        full = [options.full_devices]
        yield from expand(cfg, replace(options, models=options.counted, devices=full, patches=full))


def measure(cell: Cell, session: Session) -> list[Row]:
    """The one row of a model and N: distances of latents, or bytes."""
    if cell.cfg.model.name in cell.cfg.measure.counted:
        return [messages(cell.cfg, session)]
    return [distances(cell.cfg, session)]


def distances(cfg: RunConfig, session: Session) -> Row:
    """Relative errors (root mean square over that of the reference) of both variants."""
    reference = sample(serial_reference(cfg), session)
    exact, first = (
        sample(replace(cfg, method=replace(cfg.method, text=text)), session) for text in pipefusion.TEXTS
    )
    alone = sample(replace(cfg, devices=cfg.measure.devices[0]), session)
    return {
        "exact_to_serial": distance(exact, reference),
        "first_patch_to_serial": distance(first, reference),
        "exact_to_first_n": distance(exact, alone),
        "first_patch_to_exact": distance(first, exact),
    }


def sample(cfg: RunConfig, session: Session) -> Tensor:
    """Latents [1, C, H, W] of one picture on simulated devices, once for all cells that ask for them."""

    def sampled() -> Tensor:
        tensors = louder(session.tensors(cfg.model), cfg.measure.gain)
        assert cfg.guidance_scale is not None
        noise, cond = as_inputs(make_inputs(cfg, session.model(cfg.model)), cfg.guidance_scale)
        return session.simulate(cfg, noise, cond, tensors)[0]

    return session.once(("latents", repr(cfg)), sampled)


def distance(got: Tensor, reference: Tensor) -> float:
    return float(norm_of_difference(got, reference, 0))


def messages(cfg: RunConfig, session: Session) -> Row:
    """Bytes that the first stage sends in a step after the warm-up, one picture."""
    shape, batch = session.model(cfg.model).shape, guidance_branches(cfg, session.model(cfg.model).shape)

    def sent(text: str, steps: int) -> int:
        method = replace(cfg.method, text=text)
        return pipefusion.predict(shape, Parallel(pipe=cfg.devices), 0, steps, 1, batch, method).sent_bytes

    steady = {f"{text}_bytes": sent(text, 9) - sent(text, 8) for text in pipefusion.TEXTS}
    return {"image_bytes": shape.tokens * shape.hidden * batch * shape.itemsize} | steady


def check_counted(cfg: RunConfig, session: Session) -> None:
    """Raises ConfigError for models that do not exist."""
    check_known(cfg, {"measure.counted": config_names("model")})


TEXT_VARIANTS = Study(
    "text_variants",
    measure,
    (
        *("model", "devices", "patches", "exact_to_serial", "first_patch_to_serial", "exact_to_first_n"),
        *("first_patch_to_exact", "image_bytes", "exact_bytes", "first_patch_bytes", "status"),
    ),
    "Latents, relative to serial's and to each other; bytes that the first stage sends in a step",
    grid=runs,
    check=check_counted,
    options=("devices",),
)
