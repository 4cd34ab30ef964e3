"""Bundles of other programs are judged: equal, or the deviation that was put in is named, and where it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.conformance import loops, report
from experiments.conformance.bundle import on_device, read_bundle
from experiments.conformance.deviations import HYPOTHESES
from experiments.conformance.fields import BundleError
from experiments.conformance.reference import denoise as reference
from experiments.conformance.report import EXPLAINS, NOT_SEEN, Judgement, judge, message
from experiments.conformance.request import NONE, Deviation, Request, See
from pipefusion import method
from pipefusion.core import closed_forms as forms
from pipefusion.core import kv
from pipefusion.core.dit import DiT
from pipefusion.core.guidance import Guidance
from pipefusion.core.kv import StaleKV
from pipefusion.core.layout import make_layout
from pipefusion.core.ledger import Where
from pipefusion.core.mesh import Axis
from pipefusion.core.split import split_rows
from pipefusion.views.stock import StockView
from tests.cases import Case, case_model, case_scheduler, case_weights, inputs, relative_error, stock_network
from tests.experiments.conformance import engines
from tests.experiments.conformance.engines import CPU, LOUD, changed, naive, scheduled, simulated, write
from tests.reference_schedules import asyncdiff, compressed, rotational

MIXED = {"patches": 5, "warmup": 0}


LATENTS: dict[tuple[str, bytes, Deviation], Tensor] = {}
"""What deviations compute for a bundle's request and inputs. Most bundles here ask for the same."""


def judged(folder: Path) -> Judgement:
    """The judgement on a bundle, for which no deviation is run that was run for another with the same request."""
    bundle = read_bundle(folder)
    asked = (folder / "bundle.json").read_text(), (folder / "inputs.safetensors").read_bytes()

    def once(dit: DiT, request: Request, deviation: Deviation = NONE, see: See | None = None) -> Tensor:
        if see or (*asked, deviation) not in LATENTS:
            LATENTS[*asked, deviation] = loops.denoise(dit, request, deviation, see)
        return LATENTS[*asked, deviation]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "denoise", once)
        return judge(bundle, on_device(bundle, CPU))


@pytest.mark.parametrize(
    ("devices", "keys"), [(2, MIXED), (3, {"patches": 3, "warmup": 1, "text": "first_patch"})]
)
@pytest.mark.parametrize("family", ["pixart", "flux_tiny", "hunyuan_tiny", "sd3_tiny"])
@pytest.mark.fast_cases(3)
def test_the_reference_is_the_method(family: str, devices: int, keys: dict[str, Any]) -> None:
    case = LOUD.but(method=keys, model=family, architecture={}, images=2)
    model = case_model(case)
    noise, cond = inputs(case, model)
    cfg = method.Config(**keys)
    bands = split_rows(model.shape.token_rows, keys["patches"])
    stages = forms.stages(model.shape, devices, cfg.split)
    request = Request(noise, cond, case_scheduler(case), bands, stages, cfg.warmup, cfg.text)
    dit = model.view()
    dit.load(case_weights(case), CPU)
    assert relative_error(reference(dit, request)[-1], simulated(case, devices)[0]) <= 1e-6


def test_an_engine_that_is_right_is_equal(tmp_path: Path) -> None:
    """Patches of several sizes, an image that is not square."""
    case = LOUD.but(method={"patches": 5, "warmup": 1})
    noise = torch.randn(1, 3, 48, 32)
    judgement = judged(write(tmp_path, case, naive(case, noise=noise), noise=noise))
    assert judgement.equal and max(judgement.errors) < 1e-5
    assert judgement.named(NOT_SEEN) == ["kept buffers"]


def test_weights_may_lie_in_the_bundle(tmp_path: Path) -> None:
    """With their own scheduler, and in half the bits, where the tolerance is wider.

    Two steps: rounding adds up, differently on every processor.
    """
    case, weights = LOUD.but(steps=2), tmp_path / "weights"
    bundle = write(tmp_path, case, naive(case))
    stock_network(case).save_pretrained(weights / "transformer", variant="fp16")
    (weights / "scheduler").mkdir()
    (weights / "scheduler/scheduler_config.json").write_text(json.dumps(case_model(case).scheduler))
    changed(model={"folder": "weights"}, scheduler="absent")(bundle)
    with pytest.raises(BundleError, match="holds no weights; allowed"):
        read_bundle(bundle)
    changed(model={"folder": "weights", "variant": "fp16"})(bundle)
    assert max(judged(bundle).errors) < 1e-5
    changed(dtype="bfloat16")(bundle)
    judgement = judged(bundle)
    assert judgement.equal and max(judgement.errors) > 1e-3
    assert judgement.named(NOT_SEEN)


NAIVE = {
    "W+1": {"warmup": 2},
    "W-1": {"warmup": 0},
    "serial": {"warmup": 4},
    "displaced": {"sees": "distrifusion"},
    "never refreshed": {"sees": "naive"},
    "one scheduler": {"shared": True},
    "no history": {"forgetful": True},
    "backwards": {"backwards": True},
}


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.fast_cases(2)
def test_what_the_naive_loop_does_wrong_is_named(name: str, tmp_path: Path) -> None:
    judgement = judged(write(tmp_path, LOUD, naive(LOUD, **NAIVE[name])))
    assert judgement.named(EXPLAINS) == [name]
    assert judgement.latents is not None
    first = {"W-1": (0, None), "displaced": (1, 1), "never refreshed": (1, 1)}
    assert (judgement.latents.step, judgement.latents.patch) == first.get(name, (1, 0))


@pytest.mark.parametrize(
    ("name", "devices", "asked", "made"), [("M = N", 3, 4, 3), ("2 M", 3, 2, 4), ("M / 2", 2, 8, 4)]
)
@pytest.mark.fast_cases(1)
def test_another_number_of_patches_is_named(name, devices, asked, made, tmp_path: Path) -> None:
    ask, make = (LOUD.but(method={"patches": patches, "warmup": 1}) for patches in (asked, made))
    judgement = judged(write(tmp_path, ask, naive(make), devices))
    assert judgement.named(EXPLAINS) == [name]


BANDS = [[*band] for band in split_rows(case_model(LOUD).shape.token_rows, 4)]
COMPRESSED, ROTATED = {"compress": "lowrank"}, {"order": "rotational", "forecast": "taylor1"}
ASYNCHRONOUS = {"method": "asyncdiff", "patches": 1}
SCHEDULED = [
    ("equal", COMPRESSED, compressed, (BANDS, [2, 1], 1)),
    ("equal", ROTATED, rotational, (BANDS, [2, 1], 1, 1)),
    ("equal", ASYNCHRONOUS, asyncdiff, ([2, 1], 1, 1, False)),
    ("no feedback", COMPRESSED, compressed, (BANDS, [2, 1], 1, False)),
    ("rotated by one more", ROTATED, rotational, (BANDS, [2, 1], 1, 1, 1)),
    ("rotated by one less", ROTATED, rotational, (BANDS, [2, 1], 1, 1, -1)),
    ("last for taylor", ROTATED, rotational, (BANDS, [2, 1], 1, 0)),
    ("W+1", ROTATED, rotational, (BANDS, [2, 1], 2, 1)),
    ("one step late", ASYNCHRONOUS, asyncdiff, ([2, 1], 1, 1, False, 2)),
    ("other timestep", ASYNCHRONOUS, asyncdiff, ([2, 1], 1, 1, True)),
]


@pytest.mark.parametrize(("name", "asked", "loop", "made"), SCHEDULED)
@pytest.mark.fast_cases(3)
def test_other_schedules_are_judged(name, asked, loop, made, tmp_path: Path) -> None:
    case = LOUD.but(method=LOUD.method | asked)
    judgement = judged(write(tmp_path, case, scheduled(case, loop, *made)))
    assert judgement.equal == (name == "equal")
    assert judgement.named(EXPLAINS) == ([] if judgement.equal else [name])


combine = Guidance.combine


def lost(self: Guidance, prediction: Tensor, expert: int, at: Where) -> Tensor:
    whole = prediction.shape[2] == 48
    return combine(self, prediction, expert, at) if whole else prediction.chunk(2)[1]


def swapped(self: Guidance, prediction: Tensor, expert: int, at: Where) -> Tensor:
    return combine(self, torch.cat([*reversed(prediction.chunk(2))]), expert, at)


BUFFERS = {
    "KV late": engines.Late,
    "KV at the next patch": engines.NextPatch,
    "KV at the previous patch": engines.PreviousPatch,
    "KV halves swapped": engines.HalvesSwapped,
    "alone": engines.Alone,
}
GUIDANCE = {"guidance lost": lost, "guidance swapped": swapped}


@pytest.mark.parametrize("name", [*BUFFERS, *GUIDANCE])
@pytest.mark.fast_cases(2)
def test_what_the_method_does_wrong_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in BUFFERS:
        monkeypatch.setattr(kv, "StaleKV", BUFFERS[name])
    else:
        monkeypatch.setattr(Guidance, "combine", GUIDANCE[name])
    judgement = judged(write(tmp_path, LOUD, simulated(LOUD)))
    assert judgement.named(EXPLAINS) == [name]
    assert judgement.latents is not None and judgement.latents.step is None  # of the last latents alone


def test_references_that_are_kept_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "StaleKV", engines.ReferencesKept)
    case = LOUD.but(model="flux_kontext_tiny", architecture={}, scheduler="shipped", steps=3)
    assert judged(write(tmp_path, case, simulated(case))).named(EXPLAINS) == ["references kept"]


@pytest.mark.parametrize("warmup", [0, 1])
def test_kept_buffers_are_seen_without_a_warmup(
    warmup: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv, "StaleKV", engines.kept())
    case = LOUD.but(method={"patches": 4, "warmup": warmup})
    judgement = judged(write(tmp_path, case, simulated(case, images=2)))
    assert judgement.equal == (warmup == 1)
    assert judgement.named(EXPLAINS if warmup == 0 else NOT_SEEN) == ["kept buffers"]


@pytest.mark.parametrize(
    ("family", "asked", "done", "name"),
    [
        ("flux_tiny", {}, {"text": "first_patch"}, "other text"),
        ("sd3_tiny", {"text": "first_patch"}, {}, "other text"),
        ("sd3_tiny", {}, {"text": "first_patch", "warmup": 2}, "W+1, other text"),
    ],
)
@pytest.mark.fast_cases(1)
def test_a_stale_text_stream_is_named(
    family: str, asked: dict[str, Any], done: dict[str, Any], name: str, tmp_path: Path
) -> None:
    case = LOUD.but(model=family, architecture={}, scheduler="shipped", steps=3)
    engine = simulated(case.but(method=case.method | done))
    judgement = judged(write(tmp_path, case.but(method=case.method | asked), engine))
    assert judgement.named(EXPLAINS)[0] == name


def test_embedded_guidance_that_is_lost_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = LOUD.but(model="flux_tiny", architecture={}, scheduler="shipped", steps=3)
    view = type(case_model(case).view())
    real, calls = view.modulation, []

    def modulation(self: Any, timestep: Tensor, text: Any, batch: int) -> Any:
        calls.append(timestep)
        return real(self, timestep, text if len(calls) == 1 else text._replace(guidance_scale=1.0), batch)

    monkeypatch.setattr(view, "modulation", modulation)
    latents = simulated(case, devices=1)
    monkeypatch.undo()
    assert judged(write(tmp_path, case, latents)).named(EXPLAINS) == ["guidance lost"]


def with_hidden(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Latents and hidden states of one device, as its blocks return them."""
    view: type[StockView] = type(case_model(case).view())
    real, seen = view.block, []

    def block(self: Any, *args: Any) -> Any:
        tokens = real(self, *args)
        seen.append(tokens.image)
        return tokens

    monkeypatch.setattr(view, "block", block)
    latents = simulated(case, devices=1)
    monkeypatch.undo()
    shape = case_model(case).shape
    layout = make_layout(shape, lambda name: Axis(name, 0, (0,)), case.method["patches"])
    jobs = layout.jobs(case.steps, case.method["warmup"])
    names = [
        f"step{job.step}.{'whole' if len(job.patches) > 1 else f'patch{job.patches.start}'}.layer{layer}"
        for job in jobs
        for layer in range(shape.layers)
    ]
    return latents, dict(zip(names, seen, strict=True))


def test_hidden_states_name_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class LateInLayer2(engines.Late):
        def write(self, layer: int, *rest: Any) -> None:
            self.fresh = None
            super().write(layer, *rest) if layer == 2 else StaleKV.write(self, layer, *rest)

    latents, hidden = with_hidden(LOUD, monkeypatch)
    assert judged(write(tmp_path / "right", LOUD, latents, hidden=hidden)).compared == len(hidden)
    monkeypatch.setattr(kv, "StaleKV", LateInLayer2)
    latents, hidden = with_hidden(LOUD, monkeypatch)
    judgement = judged(write(tmp_path / "wrong", LOUD, latents, hidden=hidden))
    parting = judgement.hidden
    assert parting is not None and (parting.step, parting.patch, parting.layer) == (1, 0, 2)
    assert "hidden states at step 1, patch 0, layer 2" in message(read_bundle(tmp_path / "wrong"), judgement)
    assert judgement.named(EXPLAINS) == []


def test_hidden_states_of_a_step_of_the_wrong_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, hidden = with_hidden(LOUD.but(method={"patches": 4, "warmup": 2}), monkeypatch)
    bundle = write(tmp_path, LOUD, latents, hidden=hidden)
    judgement = judged(bundle)
    assert judgement.named(EXPLAINS) == ["W+1"]
    assert "step 1, layer 0 (the whole image at once" in message(read_bundle(bundle), judgement)


def test_what_nothing_explains_says_what_is_nearest(tmp_path: Path) -> None:
    latents = naive(LOUD, warmup=2)
    latents = [*latents[:-1], latents[-1] * 1.01]
    judgement = judged(write(tmp_path, LOUD, latents))
    assert not judgement.equal and judgement.named(EXPLAINS) == []
    assert "no known deviation explains it, nearest: W+1, off by" in message(read_bundle(tmp_path), judgement)


def test_every_deviation_is_documented() -> None:
    text = (engines.ROOT / "docs/conformance.md").read_text()
    for hypothesis in HYPOTHESES:
        for name in hypothesis.name.split(", "):
            assert name in text


def test_the_documented_writer_needs_nothing_of_this_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = engines.documented_writer()
    assert not any(name in code for name in ("experiments", "pipefusion", "baselines"))
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "__main__"})
    assert judged(tmp_path / "bundle").equal
