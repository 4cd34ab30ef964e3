"""What watching finds: nothing in exact methods, in displaced ones all of it explained; and it changes nothing."""

from __future__ import annotations

import pytest
import torch

from experiments.methods import METHODS
from experiments.staleness.errors import StaleErrors
from experiments.staleness.redundancy import Changes
from experiments.staleness.settings import Setting
from experiments.staleness.traced import Place
from tests.experiments.staleness.cases import STEPS, model, run, seen, serial

EXACT = [Setting(name, 1 if name == "serial" else 2) for name in METHODS if METHODS[name].exact]
BANDED = [name for name in METHODS if not (METHODS[name].exact or METHODS[name].has("patches"))]
STALE = [Setting("pipefusion", 1, 4, 1), Setting("pipefusion", 2, 3, 0), Setting("pipefusion", 1, 8, 2)]
STALE += [Setting(name, 4, warmup=w) for name in BANDED for w in (0, 2)]


class Counting(StaleErrors):
    """Also remembers the most steps whose K, V were kept for a layer."""

    most = 0

    def _settle(self, site, step, parts):
        super()._settle(site, step, parts)
        self.most = max(self.most, len(self._kept[site]))


def errors(setting: Setting, name: str = "pixart_tiny") -> tuple[list[dict], Counting]:
    watcher = Counting(model(name).shape, seen(setting, name))
    watched = run(setting, watcher, name)
    assert torch.equal(watched.steps, run(setting, name=name).steps), "watching changed the result"
    assert not watcher._pending
    return [*watcher.rows()], watcher


@pytest.mark.parametrize("setting", EXACT, ids=lambda setting: setting.method)
def test_exact_methods_have_no_error_and_nothing_stale(setting):
    rows, watcher = errors(setting)
    assert {(row["step"], row["layer"]) for row in rows} == {(t, l) for t in range(STEPS) for l in range(4)}
    assert max(row["attention_error"] for row in rows) < 1e-5
    assert all(row["k_error"] is None and row["unexplained"] is None for row in rows)
    assert watcher.most == 0


@pytest.mark.parametrize("setting", STALE, ids=str)
def test_what_is_known_of_stale_attention_explains_it(setting):
    rows, watcher = errors(setting)
    stale = [row for row in rows if row["k_error"] is not None]
    synchronous = [row for row in rows if row["step"] < setting.warmup]
    assert stale and max(row["unexplained"] for row in stale) < 1e-5
    assert min(row["attention_error"] for row in stale) > 1e-4
    assert max((row["attention_error"] for row in synchronous), default=0) < 1e-5
    assert not any(row["k_error"] for row in synchronous)
    assert watcher.most <= 2, "K, V of more than two steps in memory"
    if setting.warmup == 0:
        first = next(row for row in stale if row["step"] == 0)
        assert first["k_error"] == first["v_error"] == 1.0  # zeros


@pytest.mark.parametrize(
    "setting", [STALE[0], *(Setting(name, 3, warmup=1) for name in ("distrifusion", "pcpp"))], ids=str
)
def test_the_prompt_of_an_mm_dit_is_attended_to_and_never_stale(setting):
    rows, _ = errors(setting, "sd3_tiny")
    stale = [row for row in rows if row["k_error"] is not None]
    assert stale and max(row["unexplained"] for row in stale) < 1e-5
    assert max(row["attention_error"] for row in stale) > 1e-4


def test_stale_k_and_v_of_the_first_layer_are_the_change_of_serial_s():
    """In the first displaced step everything before layer 0 is serial's: what is stale is what serial changes."""
    shape = model().shape
    changes = Changes(shape, [range(4), range(4, 8)])
    run(Setting("serial"), changes)
    by_band = {
        (row["row_start"], row["quantity"]): row["change"]
        for row in changes.rows()
        if row["step"] == 1 and row["layer"] == 0
    }
    rows, _ = errors(Setting("distrifusion", 2, warmup=1))
    for row in rows:
        if row["step"] == 1 and row["layer"] == 0:
            other = 4 - row["row_start"]
            assert row["k_error"] == pytest.approx(by_band[other, "k"], rel=1e-4)
            assert row["v_error"] == pytest.approx(by_band[other, "v"], rel=1e-4)


def test_a_row_that_comes_twice_is_an_error():
    shape = model().shape
    watcher = StaleErrors(shape, seen(Setting("serial")))
    half = torch.zeros(1, 32, shape.heads, shape.head_dim)
    watcher.attended(Place(0, 0, range(4), 0), half, half, half, half, 0)
    with pytest.raises(ValueError, match="not each row once"):
        watcher.attended(Place(1, 0, range(4), 0), half, half, half, half, 0)


def test_changes_are_relative_to_the_later_step():
    shape = model().shape
    changes = Changes(shape, [range(4), range(4, 8)])
    before, after = torch.ones(2, 64, shape.hidden), torch.ones(2, 64, shape.hidden)
    after[0, 32:] = 2.0  # one of two pictures, its lower half
    for step, image in enumerate((before, after)):
        changes.entered(Place(0, step, range(8), 3), image)
    assert [*changes.rows()] == [
        {"quantity": "hidden", "step": 1, "layer": 3, "row_start": 0, "row_stop": 4, "change": 0.0},
        {"quantity": "hidden", "step": 1, "layer": 3, "row_start": 4, "row_stop": 8, "change": 0.25},
    ]
    with pytest.raises(ValueError, match="whole steps"):
        changes.entered(Place(0, 2, range(4), 3), before)


def test_latents_change_from_the_noise_on():
    changes = Changes(model().shape, [range(8)])
    changes.latents(serial().inputs)
    rows = [*changes.rows()]
    assert [(row["quantity"], row["step"], row["layer"]) for row in rows] == [
        ("latent", step, None) for step in range(1, STEPS)
    ]
    want = (serial().steps[0] - serial().noise).flatten(1).norm(dim=1) / serial().steps[0].flatten(1).norm(
        dim=1
    )
    assert rows[0]["change"] == pytest.approx(float(want.mean()))
