"""Every number of every configuration has a domain, and nothing outside of it gets past the composition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments.calibration.fit import TermFit
from experiments.command.compose import plan
from experiments.command.measures import MEASURES, load
from experiments.config import ClusterConfig, LogConfig, ModelConfig, RunConfig, from_hydra
from experiments.errors import ConfigError
from experiments.grid import GridConfig
from experiments.methods import METHODS
from experiments.quality.cells import StudyConfig
from experiments.studies.bench import BenchCase
from pipefusion.core.domain import Domain, NotEmpty, find_marks, outside
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import LinkConfig

CONFIGS = [
    RunConfig, ModelConfig, ClusterConfig, DeviceConfig, LinkConfig, LogConfig,
    *(module.Config for module in METHODS.values()),
    *(load(measure.config) for measure in MEASURES.values()),
]  # fmt: skip
WITHOUT = {"method", "measure", "prompt"}
"""Of any type: groups, and a text or the number of a class."""
MAY_BE_EMPTY = {
    *(one.name for one in fields(GridConfig)), "grids",  # the run's own value
    "tags", "calibrated_on", "also", "terms", "hosts", "skip_subcategories", "swept",  # nothing of the kind
    "borrow", "borrow_attention", "latency_clusters",  # nothing to fit of this kind; nothing planned
    "TextVariantsConfig.counted", "sync_layers",  # a part that is left out; no layer
    "replicas", "arrivals", "size_factors", "step_factors", "image_factors",  # all divisors of N; Poisson; no others
}  # fmt: skip


field_hints = cache(partial(get_type_hints, include_extras=True))


def dataclasses_in(kind: Any) -> Iterator[type]:
    """A dataclass and all that its fields hold, in lists and options too."""
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in field_hints(kind).values():
            yield from dataclasses_in(hint)
    for inner in get_args(kind):
        yield from dataclasses_in(inner)


def kinds_in(hint: Any) -> set[Any]:
    """The plain types that a hint is made of."""
    return {kind for inner in get_args(hint) for kind in kinds_in(inner)} or {hint}


ALL = list(dict.fromkeys(found for kind in CONFIGS for found in dataclasses_in(kind)))


@pytest.mark.parametrize("kind", ALL, ids=[kind.__qualname__ + "@" + kind.__module__ for kind in ALL])
def test_every_number_has_a_domain_and_every_grid_is_one(kind: type) -> None:
    for name, hint in field_hints(kind).items():
        marks = find_marks(hint)
        if kinds_in(hint) & {int, float, Any} and name not in WITHOUT:
            assert any(isinstance(mark, Domain) for mark in marks), f"{kind.__name__}.{name} has no domain"
        if str(hint).startswith("list[") and not any(isinstance(mark, NotEmpty) for mark in marks):
            assert {name, f"{kind.__name__}.{name}"} & MAY_BE_EMPTY, f"{kind.__name__}.{name} may be empty"


def test_domains() -> None:
    nearly = math.nextafter(1.0, 2.0)
    for domain, inside, out in (
        (Domain(0, 1), (0, 1, 0.5, True), (-1e-300, nearly, math.nan, math.inf, -math.inf)),
        (Domain(0, 1, above=True), (5e-324, 1), (0, 0.0, -0.0, nearly)),
        (Domain(0, 2**63 - 1, whole=True), (0, 2**63 - 1), (2**63, 1.0, True, math.nan)),
    ):
        assert [value for value in inside if domain.fault(value)] == []
        assert [value for value in out if not domain.fault(value)] == []


@pytest.fixture(scope="module")
def composed() -> list[DictConfig]:
    """A composed run with each measure and each method in turn, and with something in every list."""
    whole = plan(["cluster=l40_pcie_ethernet", "model=pixart_tiny"]).jobs[0]
    groups = [("measure", load(measure.config)) for measure in MEASURES.values()]
    found = []
    for group, config in [*groups, *(("method", module.Config) for module in METHODS.values())]:
        job = deepcopy(whole)
        OmegaConf.set_struct(job, False)
        job.pop("hydra")
        job[group] = OmegaConf.structured(config)
        for key, content in FILLED.items():
            if OmegaConf.select(job, key) == []:
                OmegaConf.update(job, key, content)
        found.append(job)
    return found


FILLED: dict[str, Any] = {
    "measure.cases": [BenchCase("ring")],
    "measure.studies": [StudyConfig(methods=["ring"], steps=[4], guidance_scales=[2.0], resolutions=[64])],
    "measure.grids": [GridConfig(steps=[4], resolutions=[64], guidance_scales=[2.0])],
    "measure.clusters": ["l40_pcie"],
    "measure.terms": [TermFit("pcie4", "efficiency", "latency.csv:80", "port", 0.1, 1.0)],
}


def numbers_in(value: Any, hint: Any = Any, key: str = "") -> Iterator[tuple[str, Domain]]:
    """Every place of a number in an object, present or None, with its domain."""
    domains = [mark for mark in find_marks(hint) if isinstance(mark, Domain)]
    if is_dataclass(value):
        for name, inner in field_hints(type(value)).items():
            yield from numbers_in(getattr(value, name), inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list | dict):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(each, hint, f"{key}.{name}")
    elif domains and (value is None or isinstance(value, int | float)) and not isinstance(value, bool):
        yield key, domains[0]


def put(run: Any, key: str, value: Any) -> None:
    """Set the value of a dotted key."""
    *parents, last = key.split(".")
    for part in parents:
        run = (
            run[int(part)]
            if isinstance(run, list)
            else run[part]
            if isinstance(run, dict)
            else getattr(run, part)
        )
    if isinstance(run, list | dict):
        run[int(last) if isinstance(run, list) else last] = value
    else:
        setattr(run, last, value)


def test_nothing_outside_its_domain_is_composed(composed: list[DictConfig]) -> None:
    tried: set[str] = set()
    for job in composed:
        run, wrong = from_hydra(job), []
        for key, domain in numbers_in(run):
            name = f"{type(run.measure if key.startswith('measure') else run.method).__name__} {key}"
            if name in tried or (key in tried and not key.startswith(("measure.", "method."))):
                continue
            tried |= {name, key}
            below = domain.low if domain.above else domain.low - abs(domain.low) - 1
            wrong.append((key, (below, domain.high * 2 + 1, math.nan, math.inf, -math.inf)))
        for kind in range(5 * bool(wrong)):
            for key, values in wrong:
                put(run, key, values[kind])
            assert sorted(found for found, _ in outside(run)) == sorted(key for key, _ in wrong)
    assert len(tried) > 150


def test_the_composition_is_checked(composed: list[DictConfig]) -> None:
    job = deepcopy(composed[0])
    job.cluster.topology.card.call_s = -1
    with pytest.raises(
        ConfigError, match=r"^cluster.topology.card.call_s=-1.0 is too small; allowed: 0..1000$"
    ):
        from_hydra(job)


def test_empty_grids_are_refused(composed: list[DictConfig]) -> None:
    for job in composed:
        for name, hint in field_hints(type(from_hydra(job).measure)).items():
            if any(isinstance(mark, NotEmpty) for mark in find_marks(hint)):
                empty = deepcopy(job)
                empty.measure[name] = []
                with pytest.raises(ConfigError, match=rf"^measure.{name}=\[\] leaves nothing to do; allowed"):
                    from_hydra(empty)


def test_numbers_in_lists_and_dictionaries_have_the_domain_of_the_field() -> None:
    run = RunConfig(seed=[1, -1], model=ModelConfig(architecture={"a": {"b": [1, math.nan]}}))
    assert [key for key, _ in outside(run)] == ["seed.1", "model.architecture.a.b.1"]


def test_text_is_printable_but_for_prompts() -> None:
    escape = "\x1b[31m"
    free = RunConfig(prompt=escape, negative_prompt=f"{escape}\n")
    assert [*outside(free)] == []
    device = DeviceConfig(name=escape, sources={"call_s": "a\u202eb", "launch_s": "水 🍏"})
    assert [key for key, _ in outside(device)] == ["name", "sources.call_s"]
