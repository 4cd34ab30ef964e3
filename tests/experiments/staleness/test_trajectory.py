"""The latent after every step, put together from what the schedulers of all patches and ranks returned."""

from __future__ import annotations

import pytest
import torch

from experiments.methods import METHODS
from experiments.staleness.settings import Setting
from experiments.staleness.trajectory import assembled, relative_errors
from tests.experiments.staleness.cases import PICTURES, STEPS, run, serial

EXACT = [Setting(name, 2) for name in METHODS if METHODS[name].exact and name != "serial"]


@pytest.mark.parametrize("setting", EXACT, ids=lambda setting: setting.method)
def test_exact_methods_are_serial_after_every_step(setting):
    errors = relative_errors(run(setting).steps, serial().steps)
    assert errors.shape == (STEPS, PICTURES) and float(errors.max()) < 1e-5


@pytest.mark.parametrize(
    "setting",
    [Setting("pipefusion", 1, 4, 2), Setting("pipefusion", 3, 4, 2), Setting("distrifusion", 4, warmup=2)],
    ids=str,
)
def test_displaced_methods_leave_serial_with_the_first_displaced_step(setting):
    errors = relative_errors(run(setting).steps, serial().steps)
    assert float(errors[:2].max()) < 1e-5
    assert float(errors[2:].min()) > 1e-5


def test_all_steps_of_pipefusion_depend_on_m_and_not_on_n():
    alone = run(Setting("pipefusion", 1, 4, 1)).steps
    assert float(relative_errors(run(Setting("pipefusion", 4, 4, 1)).steps, alone).max()) < 1e-5
    assert float(relative_errors(run(Setting("pipefusion", 1, 2, 1)).steps, alone)[-1].min()) > 1e-5


def test_inputs_are_the_noise_and_what_each_step_but_the_last_returned():
    inputs = serial().inputs
    assert torch.equal(inputs[0], serial().noise) and torch.equal(inputs[1:], serial().steps[:-1])
    assert not torch.equal(inputs[0], inputs[1])


def test_bands_that_are_no_picture_are_an_error():
    upper, lower = [torch.zeros(1, 3, 4, 8)], [torch.ones(1, 3, 4, 8)]
    assert assembled([[upper, lower]], 8)[0, 0, 0, :, 0].tolist() == [0] * 4 + [1] * 4
    assert torch.equal(assembled([[upper], [lower]], 8), assembled([[], [upper, lower]], 8))
    assert assembled([[upper + upper], [upper + upper]], 4).shape[0] == 2, "every rank has it all"
    for logs in ([[upper]], [[upper], [lower], [lower]], [[upper + upper, lower]]):
        with pytest.raises(RuntimeError, match="stepped"):
            assembled(logs, 8)


def test_relative_errors_are_by_step_and_picture():
    want = torch.ones(2, 2, 1, 2, 2)
    got = want.clone()
    got[1, 0] *= 1.5
    assert relative_errors(got, want).tolist() == [[0, 0], [0.5, 0]]
