"""From stored pictures to the record's numbers: metrics of every setting, floors, and the values of every picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.progress import await_all
from experiments.quality.distribution import (
    FRECHET,
    Estimate,
    floor,
    frechet_distance,
    frechet_excess,
    kernel_distance,
)
from experiments.quality.evaluate import (
    Look,
    Row,
    classes_of,
    compare,
    estimate_row,
    frechet_to,
    kept,
    kernel_to,
    look,
    nearest_rows,
    paired_rows,
    text_rows,
)
from experiments.quality.jobs import Job
from experiments.quality.networks import Network, open_network
from experiments.quality.settings import Planned, Setting
from experiments.quality.subjects import Prompts, Real
from experiments.quality.text_score import open_scorer


@dataclass
class Once:
    """Work for the processes of a pool: what is asked for again under the same key is done once.

    Settings that have their pictures from one source share in this way whatever is computed of them.
    """

    pool: ProcessPoolExecutor
    cfg: RunConfig
    asked: dict[tuple[Any, ...], Future[Any]] = field(default_factory=dict)

    def __call__(self, function: Callable[..., Any], *key: Hashable, given: tuple[Any, ...]) -> Future[Any]:
        """`function(*given, threads)`; `key` says of what."""
        if (function, key) not in self.asked:
            self.asked[function, key] = self.pool.submit(function, *given, self.cfg.threads)
        return self.asked[function, key]

    def wait(self, what: str) -> None:
        """Until all of it is done, with a bar; raises what a process raised."""
        await_all(self.asked.values(), what, self.cfg.log.progress)


def results(
    good: Sequence[Planned],
    jobs: Mapping[Setting, Job],
    cfg: RunConfig,
    prompts: Prompts,
    real: Real,
    pool: ProcessPoolExecutor,
    out: Path,
) -> tuple[list[Row], list[Row], pd.DataFrame]:
    """The metrics of settings that were sampled, the floors of these, and the paired values of every picture."""
    options, network, scorer = cfg.measure, open_network(cfg.measure.network), open_scorer(cfg.measure.clip)
    texts = [prompts.texts[k % len(prompts.texts)] for k in range(max((p.pictures for p in good), default=0))]
    once = Once(pool, cfg)
    looks: dict[Setting, Future[Look]] = {}
    pairs: dict[Setting, Future[dict[str, Tensor]]] = {}
    given: tuple[Any, ...]
    for p in good:
        store, reference = jobs[p.source].store, jobs.get(p.setting.serial)
        if p.pictures >= options.fewest:
            given = (store, texts[: p.pictures], options.network, options.clip)
            looks[p.setting] = once(look, p.source, p.pictures, given=given)
        if reference is not None and p.setting != p.setting.serial:
            given = (store, reference.store, p.pictures)
            pairs[p.setting] = once(compare, p.source, p.setting.serial, p.pictures, given=given)
    reals = {
        resolution: once(
            real_features,
            resolution,
            given=(real, resolution, out / "real", options.network, options.batch),
        )
        for resolution in sorted({setting.resolution for setting in looks})
    }
    once.wait("looking at pictures")
    features = {resolution: future.result() for resolution, future in reals.items()}
    seen = {setting: future.result() for setting, future in looks.items()}
    found = distances(good, seen, features, Once(pool, cfg))
    metrics: list[Row] = []
    for p in good:
        rows: list[Row] = []
        if p.setting in seen:
            mine = seen[p.setting]
            rows += [estimate_row(one, against) for against, one in found[p.setting]]
            rows += text_rows(mine, scorer.name)
            if real.captions is not None:
                right = [real.captions.index(text) for text in texts[: p.pictures]]
                rows += nearest_rows(mine, features[p.setting.resolution], right, network)
        if p.setting in pairs:
            rows += paired_rows(pairs[p.setting].result())
        metrics += [{"key": p.setting.key} | row for row in rows]
    floors = floors_of(seen, features, network, options.resamples)
    return metrics, floors, table_of({s.key: future.result() for s, future in pairs.items()}, texts)


def distances(
    good: Sequence[Planned], seen: Mapping[Setting, Look], features: Mapping[int, Tensor], once: Once
) -> dict[Setting, list[tuple[str | None, Estimate]]]:
    """Class score and distances of every setting that was looked at, each with what it is a distance from."""
    network, resamples = once.cfg.measure.network, once.cfg.measure.resamples
    asked: dict[Setting, list[tuple[str | None, Future[Estimate]]]] = {}
    serials: dict[Setting, Future[Estimate]] = {}
    for p in good:
        if p.setting not in seen:
            continue
        mine, serial, at = seen[p.setting], seen.get(p.setting.serial), (p.source, p.pictures)
        asked[p.setting] = [(None, once(classes_of, *at, given=(mine.logits, network)))]
        for against, wanted in others(p.setting, mine, seen, features).items():
            given = (mine.features, wanted, network)
            asked[p.setting] += [
                (against, once(frechet_to, *at, against, given=(*given, resamples))),
                (against, once(kernel_to, *at, against, given=given)),
            ]
        if serial is not None and p.source != p.setting.serial:
            of_serial = (serial.features[: p.pictures], features[p.setting.resolution], network, resamples)
            serials[p.setting] = once(frechet_to, p.setting.serial, p.pictures, "real", given=of_serial)
    once.wait("distances")
    found = {
        setting: [(against, future.result()) for against, future in futures]
        for setting, futures in asked.items()
    }
    for setting, of_serials in serials.items():
        mine_to_real = next(one for to, one in found[setting] if (one.metric, to) == (FRECHET, "real"))
        found[setting].append(("real", frechet_excess(mine_to_real, of_serials.result())))
    return found


def table_of(pairs: Mapping[str, Mapping[str, Tensor]], texts: Sequence[str]) -> pd.DataFrame:
    """One row a setting and picture."""
    frames = []
    for key, values in pairs.items():
        frame = pd.DataFrame({name: value.numpy() for name, value in values.items()})
        frames.append(frame.assign(key=key, picture=range(len(frame)), prompt=texts[: len(frame)]))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["key", "picture", "prompt"])
    )


def others(
    setting: Setting, mine: Look, seen: Mapping[Setting, Look], features: Mapping[int, Tensor]
) -> dict[str, Tensor]:
    """What the pictures of a setting are held against: real ones, and as many of serial's."""
    found = {"real": features[setting.resolution]}
    if setting != setting.serial and setting.serial in seen:
        found["serial"] = seen[setting.serial].features[: len(mine.features)]
    return found


def real_features(
    real: Real, resolution: int, folder: Path, network: str, batch: int, threads: int
) -> Tensor:
    """Features [m, d] of the real pictures at a resolution, kept in `folder`."""
    torch.set_num_threads(threads)
    net = open_network(network)

    def make() -> dict[str, Tensor]:
        parts = [net.features(part) for part in real.read(resolution, batch)]
        return {"features": torch.cat(parts)}

    folder.mkdir(parents=True, exist_ok=True)
    stamp = "|".join([real.stamp, net.name, net.weights, str(resolution)])
    return kept(folder / f"real_{resolution}px.safetensors", stamp, make)["features"]


def floors_of(
    seen: Mapping[Setting, Look], features: Mapping[int, Tensor], network: Network, resamples: int
) -> list[Row]:
    """Real pictures against other real ones, at the numbers of pictures that settings were looked at with."""
    rows = []
    for resolution, count in sorted({(s.resolution, len(mine.features)) for s, mine in seen.items()}):
        for distance in (partial(frechet_distance, resamples=resamples), kernel_distance):
            at = features[resolution]
            found = estimate_row(floor(partial(distance, network=network), at, count), "real")
            what = "real pictures against other real pictures"
            rows.append(found | {"resolution": resolution, "what": what})
    return rows


def control_rows(kind: str, job: Job, control: Job, cfg: RunConfig, prompts: Prompts) -> list[Row]:
    """Serial against serial: what the dtype alone does (`float32`), or other noise (`seeds`)."""
    options, at = cfg.measure, {"resolution": job.setting.resolution}
    if kind == "float32":
        count = min(job.pictures, control.pictures)
        found = paired_rows(compare(job.store, control.store, count, cfg.threads, kind))
        return [row | at | {"what": "serial against serial in float32"} for row in found]
    texts = [prompts.texts[k % len(prompts.texts)] for k in range(control.pictures)]
    ours, others = (
        look(store, texts, options.network, options.clip, cfg.threads).features
        for store in (job.store, control.store)
    )
    distances = (
        frechet_to(others, ours, options.network, options.resamples, cfg.threads),
        kernel_to(others, ours, options.network, cfg.threads),
    )
    what = {"what": "serial against serial from other seeds"}
    return [estimate_row(one, "serial") | at | what for one in distances]
