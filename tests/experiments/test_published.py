"""From a published row to a run: what is predicted, what is not and why, and what is doubtful."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from experiments.calibration.fit import resolve_target
from experiments.grid import model_config
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import open_model
from experiments.published import FOLDER, Target, find_target, target_run, targets, unpredicted
from experiments.runs.check import check_method, check_model, check_values
from experiments.session import empty_inputs
from pipefusion.core.parallel import Parallel
from tests.analysis.evidence.planted import Row, published
from tests.experiments.commands import config

LEGACY = {"source": "PipeFusion repo assets/some.png"}


def target(**changes: str) -> Target:
    found = find_target(published(**changes))
    assert isinstance(found, Target), found
    return found


def reason(**changes: str) -> str:
    found = find_target(published(**changes))
    assert isinstance(found, str), found
    return found


def facts(model: str, method: str, devices: int, steps: int) -> dict[str, object]:
    return {"model": model, "method": method, "devices": devices, "steps": steps}


FLUX, ONE = {"model": "Flux.1-dev", "steps": "28"}, {"method": "Original", "n_devices": "1"}
SERIAL = {"method": "serial", "warmup": None, "patches": []}
CARDS = {"hardware": "2x8xL40", "interconnect": "PCIe Gen4 in node; Ethernet across"}
RUNS: list[tuple[Row, dict[str, object]]] = [
    ({}, facts("pixart_alpha", "pipefusion", 8, 20) | {"cluster": "l40_pcie", "resolution": 2048, "split": "ceil"}),
    ({}, {"published_s": 3.5, "oom": False, "warmup": 1}),
    ({"value": "OOM"}, {"published_s": None, "oom": True}),
    # The older repository counts one more synchronous step.
    ({"setting": "W=0"}, {"warmup": 0}),
    ({"setting": "pp=8; W=2"}, {"warmup": 2}),
    (LEGACY, {"warmup": 2}),
    (LEGACY | {"setting": "W=0"}, {"warmup": 1}),
    (LEGACY | {"setting": "M=4; W=1 (8-dev rows match the W=1 bars)"}, {"warmup": 2}),
    (LEGACY | {"method": "DistriFusion"}, {"warmup": 2}),
    ({"method": "DistriFusion", "setting": "W=1 claimed"}, {"warmup": 1}),
    ({"method": "TP"}, {"warmup": None}),
    # Each model and spelling of a method.
    ({"model": "PixArt-alpha(XL-2-1024-MS)"}, facts("pixart_alpha", "pipefusion", 8, 20)),
    ({"model": "SD3-medium"}, facts("sd3_medium", "pipefusion", 8, 20)),
    ({"model": "Flux.1-schnell", "steps": "4", "method": "TP"}, facts("flux_schnell", "tensor", 8, 4)),
    ({"model": "HunyuanDiT", "steps": "50"} | ONE, facts("hunyuan_dit", "serial", 1, 50)),
    (FLUX | {"method": "Ulysses-2", "n_devices": "2"}, facts("flux_dev", "ulysses", 2, 28)),
    (FLUX | {"method": "Ring-4", "n_devices": "4"}, facts("flux_dev", "ring", 4, 28)),
    # On one GPU every method is serial.
    *((ONE | {"method": method}, SERIAL) for method in ("Original", "1 GPU", "hybrid", "SP-Ulysses")),
    # Patches are as stated, or searched.
    ({"setting": "M=16; W=1"}, {"patches": [16]}),
    ({"setting": "W=1 claimed, M searched in 2,4,8,16,32"}, {"patches": [2, 4, 8, 16, 32]}),
    ({"method": "TP", "setting": "M=16"}, {"patches": []}),
    # Hardware becomes a cluster.
    ({"hardware": "8xL20-48GB", "interconnect": "PCIe"}, {"cluster": "l20_pcie"}),
    (ONE | {"hardware": "4xA100-80GB", "interconnect": "PCIe"}, {"cluster": "a100_pcie"}),
    ({"hardware": "8xA100", "interconnect": "NVLink"}, {"cluster": "a100_nvlink"}),
    ({"hardware": "4xH100", "interconnect": "NVLink", "n_devices": "4"}, {"cluster": "h100_nvlink"}),
    (ONE | {"hardware": "4xT4-16GB", "interconnect": "PCIe"}, {"cluster": "t4_pcie"}),
    (CARDS, {"cluster": "l40_pcie"}),
    (CARDS | {"n_devices": "16"}, {"cluster": "l40_pcie_ethernet"}),
    # A product that states no degrees is searched; on two or four devices one is all there is.
    ({"method": "USP"}, {"products": [{"ulysses": 2}, {"ulysses": 4}]}),
    ({"method": "hybrid"}, {"products": [{"cfg": 2}, {"cfg": 2, "ulysses": 2}]}),
    ({"method": "hybrid", "n_devices": "4"}, {"products": []}),
    ({"method": "USP", "setting": "ulysses=2"}, {"products": []}),
    *((ONE | {"setting": setting}, {"host": host})
      for setting, host in (("", "eager"), ("torch.compile", "compiled"), ("onediff", "compiled"))),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "run"), RUNS)
def test_a_row_becomes_a_run(changes: Row, run: dict[str, object]) -> None:
    found = target(**changes)
    assert {key: getattr(found, key) for key in run} == run


@pytest.mark.parametrize(("setting", "stated"), [("M=4", False), ("ulysses=2", True)])
def test_degrees_that_are_not_stated_are_noted(setting: str, stated: bool) -> None:
    notes = target(method="USP", setting=setting).notes
    assert any("degrees are not stated" in note for note in notes) != stated


@pytest.mark.parametrize(
    ("model", "branches"),
    [("PixArt", 2), ("SD3-medium", 2), ("HunyuanDiT", 2), ("Flux.1-dev", 1), ("Flux.1-schnell", 1)],
)
@pytest.mark.fast_cases(2)
def test_only_models_with_guidance_run_a_batch_of_two(model: str, branches: int) -> None:
    config()
    cfg, opened = resolve_target(target(model=model, method="Original", n_devices="1"), config())
    assert cfg.guidance_scale is not None
    assert empty_inputs(opened.shape, 1, cfg.guidance_scale)[1].branches == branches


def test_a_compiled_row_runs_on_a_compiled_host() -> None:
    config()
    assert target_run(target(**ONE, setting="onediff"), config()).cluster.host == "compiled"


def test_published_tensor_parallelism_leaves_cross_attentions_whole() -> None:
    config()
    assert target_run(target(method="TP"), config()).method.cross == "whole"


def test_published_ulysses_exchanges_q_k_v_one_by_one() -> None:
    """In products as well; our own runs exchange them in one call."""
    config()
    for one in (target(method="SP-Ulysses"), target(setting="pp=4, ulysses=2")):
        assert target_run(one, config()).method.qkv == "separate"
        assert METHODS[one.method].Config().qkv == "packed"


@pytest.mark.parametrize(
    ("changes", "product"),
    [
        ({"method": "CFG+PipeFusion", "setting": "cfg=2,pp=4"}, Parallel(cfg=2, pipe=4)),
        ({"setting": "cfg=2,pp=8 [sic; pp=4 if 8 GPUs]; W=0"}, Parallel(cfg=2, pipe=4)),
        ({"setting": "pp=8; W=2"}, Parallel(pipe=8)),
        ({"method": "Ulysses-2 x Ring-2", "n_devices": "4"}, Parallel(ring=2, ulysses=2)),
        ({"method": "second best (USP ulysses=2 ring=4)"}, Parallel(ring=4, ulysses=2)),
        ({"method": "USP", "setting": "ulysses=2"}, Parallel(ring=4, ulysses=2)),
    ],
    ids=str,
)
def test_a_hybrid_that_states_its_degrees_is_their_product(changes: Row, product: Parallel) -> None:
    one = target(**changes)
    assert METHODS[one.method].parallel(one.devices, Parallel(**one.parallel)) == product


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "hybrid", "n_devices": "2"}, "whose degrees on 2 devices are not stated"),
        ({"method": "CFG+PipeFusion", "setting": "cfg=2,pp=8"}, "hybrid of several"),  # sixteen devices
        ({"method": "CFG+PipeFusion", "setting": "pp=8"}, "hybrid of several"),
        ({"method": "USP", "setting": "ulysses=3"}, "hybrid of several"),
        ({"method": "Ulysses-2 x Ring-2"}, "hybrid of several"),  # on eight devices
        ({"method": "Ring-4"}, "hybrid of several"),  # on eight devices
        ({"model": "PixArt-XL-2-256-MS"}, "no model PixArt-XL-2-256-MS here"),
        ({"model": "Mochi-1", "resolution": "49f 480x848"}, "no model Mochi-1 here"),
        ({"model": "HunyuanDiT", "steps": "20[sic; likely 50]"}, "steps is '20[sic; likely 50]'"),
        ({"metric": "FID"}, "trained weights"),
        ({"metric": "peak memory"}, "text encoders"),
        ({"metric": "speedup"}, "derived"),
        ({"hardware": "8xV100", "interconnect": "NVLink"}, "no profile of 8xV100"),
        ({"hardware": "8xL40", "n_devices": "16"}, "no profile of 8xL40"),
        ({"n_devices": "?"}, "n_devices is '?'"),
    ],
)
def test_what_is_not_predicted_has_its_reason(changes: Row, words: str) -> None:
    assert words in reason(**changes)


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({"method": "cfg=2,pp=4", "setting": "vs 1 GPU"}, ("pipefusion", {"cfg": 2})),
        ({"setting": "vs best USP (ulysses=4 ring=2)"}, ("ring", {"ulysses": 4})),
    ],
)
def test_a_ratio_of_the_text_that_states_degrees_is_a_run_without_seconds(
    changes: Row, run: tuple[str, dict[str, int]]
) -> None:
    one = target(metric="speedup", value="5.09", unit="x", **changes)
    assert (one.method, one.parallel) == run
    assert (one.published_s, one.oom, one.flags) == (None, False, [])


@pytest.fixture(scope="module")
def found() -> dict[str, Target]:
    return {one.row_id: one for one in targets()}


def test_every_published_row_is_a_target_or_has_a_reason(found: dict[str, Target]) -> None:
    others = unpredicted()
    assert not set(found) & set(others)
    lines = 0
    for path in FOLDER.glob("*.csv"):
        rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
        lines += (len(rows) - 1) * (path.stem != "table1_costs")
        for at, row in enumerate(rows[1:], start=2):
            one = found.get(f"{path.name}:{at}")
            # Ids are line numbers, whatever is quoted in a cell.
            if one is not None and path.stem != "third_party":
                timed = row[rows[0].index("metric")] == "latency"
                seconds = float(row[-2]) if timed and not one.oom else None
                assert (one.oom, one.published_s) == (row[-2] == "OOM", seconds)
    assert len(found) + len(others) == lines
    assert all(others.values())


def test_every_target_can_be_run_by_its_method(found: dict[str, Target]) -> None:
    shapes = {}
    for one in found.values():
        key = (one.model, one.resolution)
        if key not in shapes:
            shapes[key] = open_model(replace(model_config(one.model), resolution=one.resolution)).shape
        module = METHODS[one.method]
        keys = {} if one.warmup is None else {"warmup": one.warmup}
        for patches in one.patches or [None]:
            more = {} if patches is None else {"patches": patches, "split": one.split}
            method = module.Config(**keys, **more)
            given = Parallel(**one.parallel)
            assert module.problem(shapes[key], one.devices, one.steps, method, given) is None, one.row_id


@pytest.mark.slow
def test_the_run_of_a_target_is_what_was_published(found: dict[str, Target]) -> None:
    base = config()
    each = {
        key: one for one in found.values() for key in (one.model, one.method, one.cluster, str(one.parallel))
    }
    for one in each.values():
        patches = one.patches[0] if one.patches else None
        cfg = target_run(one, base)
        check_values(cfg)
        assert check_method(cfg, check_model(cfg)) is None
        assert (cfg.devices, cfg.steps, cfg.method.name) == (one.devices, one.steps, one.method)
        assert (cfg.cluster.name, cfg.model.name) == (one.cluster, one.model)
        assert cfg.model.resolution == one.resolution
        assert cfg.model.dtype in ("float16", "bfloat16")  # all that was published is of half precision
        assert getattr(cfg.method, "warmup", None) == one.warmup
        assert getattr(cfg.method, "patches", None) == patches
        assert {axis: getattr(cfg.parallel, axis) for axis in one.parallel} == one.parallel
        assert parallel_degrees(cfg).world == one.devices
