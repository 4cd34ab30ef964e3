"""Displaced methods, with steps that really are stale, against the naive reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipefusion.core.split import split_rows
from tests.cases import Case, case_model, case_scheduler, inputs, relative_error, stock_network
from tests.reference import Task, banded, denoise
from tests.reference_schedules import asyncdiff, compressed, parastep, rotational
from tests.sampling import simulate

GUIDED = {"guidance": 4.5, "images": 2}


def reference(
    case: Case,
    patches: int,
    warmup: int,
    sees: str,
    rows_seen: list[list[int]] | None = None,
    unit: int = 1,
) -> Tensor:
    """The latents of these patches, each a multiple of `unit` token rows."""
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, patches, unit)]
    with torch.inference_mode():
        return denoise(task(case), bands, warmup, sees, rows_seen)


def task(case: Case) -> Task:
    model = case_model(case)
    noise, cond = inputs(case, model)
    prompts = cond.stacked("prompt_embeds"), cond.stacked("prompt_mask")
    return Task(stock_network(case), case_scheduler(case), noise, *prompts, case.guidance)


@pytest.mark.parametrize(
    ("devices", "patches", "warmup", "settings"),
    [
        (3, 4, 1, {}),
        (4, 2, 0, {"scheduler": "ddim"}),
        (3, 5, 2, GUIDED),
        (1, 12, 1, {"scheduler": "flow_euler"}),
        (4, 7, 0, GUIDED | {"scheduler": "flow_euler"}),
    ],
)
@pytest.mark.fast_cases(2)
def test_pipefusion(devices, patches, warmup, settings):
    case = Case("pipefusion", {"patches": patches, "warmup": warmup}, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    assert relative_error(got, reference(case, patches, warmup, "pipefusion")) <= 1e-5


# As many patches as stages, more and fewer, so few that a prediction descends from a latent of two steps before.
ROTATED = [
    (2, 2, {}, {}, [2, 2]),
    (3, 5, {"warmup": 2, "forecast": "taylor1"}, GUIDED | {"steps": 6}, [2, 1, 1]),
    (4, 2, {"forecast": "taylor2"}, {"steps": 6, "scheduler": "flow_euler"}, [1, 1, 1, 1]),
    (4, 3, {"forecast": "taylor3", "split": [1, 0, 2, 1]}, {"steps": 7, "scheduler": "ddim"}, [1, 0, 2, 1]),
]


@pytest.mark.parametrize(("devices", "patches", "own", "settings", "sizes"), ROTATED)
@pytest.mark.fast_cases(2)
def test_rotational_pipefusion(devices, patches, own, settings, sizes):
    case = Case("pipefusion", {"patches": patches, "order": "rotational"} | own, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, patches)]
    order = ("last", "taylor1", "taylor2", "taylor3").index(own.get("forecast", "last"))
    with torch.inference_mode():
        want = rotational(task(case), bands, sizes, own.get("warmup", 1), order)
    assert relative_error(got, want) <= 1e-5


@pytest.mark.parametrize(("name", "sees"), [("distrifusion", "distrifusion"), ("naive_patch", "naive")])
@pytest.mark.parametrize(
    ("devices", "warmup", "settings"), [(3, 1, {}), (4, 0, {"scheduler": "ddim"}), (4, 2, GUIDED)]
)
@pytest.mark.fast_cases(2)
def test_patch_parallel(name, sees, devices, warmup, settings):
    case = Case(name, {"warmup": warmup}, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    assert relative_error(got, reference(case, devices, warmup, sees)) <= 1e-5


@pytest.mark.parametrize(("devices", "warmup", "synced"), [(3, 1, [1]), (4, 2, [3, 0]), (2, 1, [0, 1, 2, 3])])
def test_layers_that_stay_synchronous(devices, warmup, synced):
    case = Case("distrifusion", {"warmup": warmup, "sync_layers": synced}, **GUIDED)
    got = simulate(case.on(devices), repeats=1)[0].latents
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, devices)]
    with torch.inference_mode():
        want = banded(task(case), bands, warmup, synced)
    assert relative_error(got, want) <= 1e-5


@pytest.mark.parametrize(
    ("name", "own", "bits"),
    [
        ("distrifusion", {"warmup": 1, "compress": "int1", "sync_layers": [2]}, 1),
        ("ring", {"whole_steps": 1, "compress": "int2"}, 2),
        ("ring", {"whole_steps": 2, "compress": "int1"}, 1),
    ],
)
@pytest.mark.fast_cases(1)
def test_quantized_residuals(name, own, bits):
    case = Case(name, own, **GUIDED)
    got = simulate(case.on(3), repeats=1)[0].latents
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, 3)]
    whole = own.get("warmup", own.get("whole_steps"))
    with torch.inference_mode():
        seen = own.get("sync_layers", []), bits, name == "ring"
        want = banded(task(case), bands, whole, *seen)
        exact = banded(task(case), bands, whole, seen[0], None, seen[2])
    # Rounding decides for a number between two levels; each such one may move latents by some 1e-5.
    assert relative_error(got, want) <= 3e-4 < 6e-4 <= relative_error(got, exact)


@pytest.mark.parametrize(
    ("devices", "own", "sizes"), [(3, {"patches": 5}, [2, 1, 1]), (2, {"split": [1, 3]}, [1, 3])]
)
def test_hidden_states_of_low_rank(devices, own, sizes):
    case = Case(
        "pipefusion", {"warmup": 2, "patches": 2, "compress": "lowrank"} | own, **GUIDED | {"steps": 5}
    )
    got = simulate(case.on(devices), repeats=1)[0].latents
    bands = [list(band) for band in split_rows(case_model(case).shape.token_rows, case.method["patches"])]
    with torch.inference_mode():
        want, forgetful = (compressed(task(case), bands, sizes, 2, feedback) for feedback in (True, False))
    assert relative_error(got, want) <= 1e-5 < 1e-3 <= relative_error(got, forgetful)


# Of 12 token rows: half of a neighbouring band of four or, rounded up, of three; nearly nothing; all of it.
NEAR = [
    (3, 1, 0.5, [(0, 6), (2, 10), (6, 12)], {}),
    (4, 0, 0.5, [(0, 5), (1, 8), (4, 11), (7, 12)], {"scheduler": "ddim"}),
    (4, 2, 0.01, [(0, 4), (2, 7), (5, 10), (8, 12)], GUIDED),
    (4, 1, 1.0, [(0, 6), (0, 9), (3, 12), (6, 12)], GUIDED),
]


@pytest.mark.parametrize(("devices", "warmup", "fraction", "near", "settings"), NEAR)
@pytest.mark.fast_cases(2)
def test_pcpp(devices, warmup, fraction, near, settings):
    case = Case("pcpp", {"warmup": warmup, "fraction": fraction}, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    rows_seen = [[*range(*rows)] for rows in near]
    assert relative_error(got, reference(case, devices, warmup, "pcpp", rows_seen)) <= 1e-5
    assert relative_error(got, reference(case, devices, warmup, "distrifusion")) > 1e-3


# Layers of each of the stages: 4 on 2, 3 and 4 devices.
LAGGED = [
    (2, {}, {}, [2, 2]),
    (3, {"warmup": 2}, GUIDED, [2, 1, 1]),
    (4, {"time_shift": True}, {"steps": 6, "scheduler": "flow_euler"}, [1, 1, 1, 1]),
    (3, {"stride": 2, "split": [1, 1, 2]}, {"steps": 6, "scheduler": "ddim"}, [1, 1, 2]),
    (2, {"stride": 2, "time_shift": True, "split": [3, 1]}, GUIDED | {"steps": 7}, [3, 1]),
]


@pytest.mark.parametrize(("devices", "own", "settings", "sizes"), LAGGED)
def test_asyncdiff(devices, own, settings, sizes):
    case = Case("asyncdiff", own, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    with torch.inference_mode():
        warmup, stride, shift = (
            own.get(key, usual) for key, usual in (("warmup", 1), ("stride", 1), ("time_shift", False))
        )
        want = asyncdiff(task(case), sizes, warmup, stride, shift)
    assert relative_error(got, want) <= 1e-5


# Whole rounds; a short last one; no step for the last ranks; one round after another synchronous step.
ROUNDS = [
    (2, 1, {"steps": 5}),
    (3, 2, GUIDED | {"steps": 7}),
    (4, 1, {"steps": 3, "scheduler": "flow_euler"}),
    (3, 3, GUIDED | {"steps": 6, "scheduler": "ddim"}),
]


@pytest.mark.parametrize(("devices", "warmup", "settings"), ROUNDS)
def test_parastep(devices, warmup, settings):
    case = Case("parastep", {"warmup": warmup}, **settings)
    got = simulate(case.on(devices), repeats=1)[0].latents
    with torch.inference_mode():
        want = parastep(task(case), devices, warmup)
    assert relative_error(got, want) <= 1e-5


def test_the_reference_itself_equals_the_stock_model_when_synchronous():
    case = Case("serial", **GUIDED)
    network, scheduler, latent, text, mask, _ = task(case)
    with torch.inference_mode():
        for time in scheduler.timesteps:
            out = network(
                torch.cat([latent] * 2),
                encoder_hidden_states=text,
                encoder_attention_mask=mask,
                timestep=time.expand(4),
                return_dict=False,
            )[0]
            negative, positive = out.chunk(2)
            latent = scheduler.step(negative + 4.5 * (positive - negative), time, latent, return_dict=False)[
                0
            ]
    assert relative_error(reference(case, 3, case.steps, "pipefusion"), latent) <= 1e-5
