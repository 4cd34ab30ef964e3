"""What a rank should hold and send, from sizes alone: closed forms for every product of degrees (Table 1 of the paper).

Bytes sent are the sum of what each axis sends, each written down once in `traffic.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipefusion.core import closed_forms as forms
from pipefusion.core import traffic
from pipefusion.core.cache import Rule
from pipefusion.core.layout import make_layout
from pipefusion.core.parallel import Parallel
from pipefusion.core.rounds import own_jobs
from pipefusion.core.shape import DiTShape
from pipefusion.core.sizes import Sizes
from pipefusion.core.split import Split


@dataclass(frozen=True)
class Prediction:
    """Bytes of one rank for one batch of images; `axis_bytes` are those sent, by mesh axis."""

    layers: range
    param_bytes: int
    kv_bytes: int
    buffer_bytes: int
    comm_bytes: int
    sent_bytes: int
    recv_bytes: int
    axis_bytes: dict[str, int]


def predict(
    shape: DiTShape,
    parallel: Parallel,
    rank: int,
    steps: int,
    images: int,
    branches: int,
    *,
    buffer: traffic.Buffer = "none",
    patches: int = 1,
    split: Split = "even",
    warmup: int | None = None,
    stride: int | None = None,
    forecast: int | None = None,
    gathers: int = 0,
    synced: int = 0,
    first_patch: bool = False,
    compress: str = "none",
    whole_cross: bool = False,
    cache: Rule | None = None,
    qkv: str = "packed",
) -> Prediction:
    """Bytes of rank `rank` for a request of `images`, each with so many guidance `branches`.

    `warmup` None: all steps are synchronous. `gathers` are the steps in which displaced K, V are exchanged; in `synced`
    layers they are in all. `forecast`: so many differences of inputs are used, `compress`: residuals of hidden states
    go from stage to stage, see `assemble`. `qkv` as `core/sequence.py` has it. With a `cache` sent is what would be if
    no job were skipped.
    """
    mesh = parallel.mesh()
    layout = make_layout(shape, lambda name: mesh.axis(name, rank), patches, split)
    w, round_place = steps if warmup is None else warmup, mesh.axis("step", rank)
    jobs = own_jobs(layout.jobs(steps, w, stride, forecast is not None), w, round_place)
    images //= parallel.data
    size = Sizes(shape, parallel, layout, images, images * branches // parallel.cfg)
    sent, received, comm = {}, {}, 0
    for axis, (out, back, room) in {
        "step": traffic.step(size, jobs, w, round_place),
        "pipe": traffic.pipe(size, jobs, first_patch, compress),
        "cfg": traffic.cfg(size, jobs),
        "patch": traffic.patch(size, gathers, steps, synced),
        "ring": traffic.ring(size, jobs, buffer),
        "ulysses": traffic.ulysses(size, jobs, qkv),
        "tensor": traffic.tensor(size, jobs, whole_cross),
    }.items():
        sent[axis], received[axis] = out, back
        comm += room
    kept = 0
    if cache:
        exchanged, room, kept = traffic.step_cache(size, jobs, cache, warmup is None)
        for axis, (out, back) in exchanged.items():
            sent[axis] += out
            received[axis] += back
        comm += room
    for axis, wire, room in traffic.gather(size) if round_place.index == 0 else []:
        sent[axis] = sent.get(axis, 0) + wire
        received[axis] = received.get(axis, 0) + wire
        comm += room
    kv, place = traffic.held_kv(size, buffer)
    latents = size.latent * layout.latent_copies(jobs) if layout.first or layout.last else 0
    takes = forms.takes_text(layout.stages, layout.stage)
    kept += size.prompt if first_patch and takes and not layout.first else 0
    kept += traffic.cross_kv(size, whole_cross) + traffic.forecasts(size, jobs, forecast)
    kept += traffic.stage_bases(size, jobs, first_patch, compress)
    return Prediction(
        layers=layout.layers,
        param_bytes=forms.held_params(
            shape, layout.layers, layout.first, layout.last, parallel.tensor, whole_cross
        ),
        kv_bytes=kv,
        buffer_bytes=latents + place + kept,
        comm_bytes=comm,
        sent_bytes=sum(sent.values()),
        recv_bytes=sum(received.values()),
        axis_bytes={axis: count for axis, count in sent.items() if count},
    )
