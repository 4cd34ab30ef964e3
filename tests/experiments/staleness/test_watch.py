"""What watching finds: nothing in exact methods, in displaced ones all of it explained; and it changes nothing."""

from __future__ import annotations

import pytest
import torch

from experiments.config import RunConfig
from experiments.difference import NotFinite, norm_of_difference
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.staleness.errors import StaleErrors
from experiments.staleness.measure import position_errors
from experiments.staleness.redundancy import Changes
from experiments.staleness.traced import Place
from experiments.staleness.watch import Attention, WatchedView
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel
from pipefusion.core.split import split_rows
from tests.experiments.staleness.cases import (
    PICTURES,
    STEPS,
    case,
    run,
    run_label,
    seen,
    serial,
    shape,
)

EXACT = [case(name, 1 if name == "serial" else 2) for name in METHODS if METHODS[name].exact]
BANDED = [name for name in METHODS if METHODS[name].stale_kv and not METHODS[name].has("patches")]
STALE = [case("pipefusion", n, patches=m, warmup=w) for n, m, w in ((1, 4, 1), (2, 3, 0), (1, 8, 2))]
STALE += [case(name, 4, warmup=w) for name in BANDED for w in (0, 2)]
PRODUCTS = [
    case(name, 4, given=given, warmup=1, **({"patches": 2} if name == "pipefusion" else {}))
    for name in (*BANDED, "pipefusion")
    for given in (
        Parallel(cfg=2),
        Parallel(data=2),
        Parallel(ulysses=2),
        Parallel(ring=2),
        Parallel(tensor=2),
    )
]
PRODUCTS.append(case("pipefusion", 4, given=Parallel(ring=2), patches=2, warmup=1, ring="rotate"))


class Counting(StaleErrors):
    """Also remembers the most steps whose K, V were kept for a layer."""

    most = 0

    def _settle(self, site, step, parts):
        super()._settle(site, step, parts)
        self.most = max(self.most, len(self._kept[site]))


def errors(cfg: RunConfig) -> tuple[list[Row], Counting]:
    watcher = Counting(shape(cfg.model.name), parallel_degrees(cfg).mesh(), seen(cfg))
    assert torch.equal(run(cfg, watcher.watch), run(cfg)), "watching changed the result"
    assert not watcher._pending
    return watcher.rows, watcher


def relative(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """By step and picture [S, B]."""
    return norm_of_difference(got[1:], want[1:], 2)


@pytest.mark.parametrize("cfg", EXACT, ids=run_label)
@pytest.mark.fast_cases(2)
def test_exact_methods_are_serial_after_every_step_and_nothing_is_stale(cfg):
    rows, watcher = errors(cfg)
    assert {(row["step"], row["layer"]) for row in rows} == {(t, l) for t in range(STEPS) for l in range(4)}
    assert max(row["attention_error"] for row in rows) < 1e-5
    assert all(row["k_error"] is None and row["unexplained"] is None for row in rows)
    assert watcher.most == 0
    found = relative(run(cfg), serial())
    assert found.shape == (STEPS, PICTURES) and float(found.max()) < 1e-5


@pytest.mark.parametrize("cfg", STALE + PRODUCTS, ids=run_label)
@pytest.mark.fast_cases(4)
def test_what_is_known_of_stale_attention_explains_it(cfg):
    rows, watcher = errors(cfg)
    warmup, stale = cfg.method.warmup, [row for row in rows if row["k_error"] is not None]
    synchronous = [row for row in rows if row["step"] < warmup]
    assert stale and max(row["unexplained"] for row in stale) < 1e-5
    assert min(row["attention_error"] for row in stale) > 1e-4
    assert max((row["attention_error"] for row in synchronous), default=0) < 1e-5
    assert not any(row["k_error"] for row in synchronous)
    assert watcher.most <= 2, "K, V of more than two steps in memory"
    if warmup == 0:
        first = next(row for row in stale if row["step"] == 0)
        assert first["k_error"] == first["v_error"] == 1.0  # zeros


@pytest.mark.parametrize(
    "cfg",
    [case("pipefusion", 1, patches=4, model="sd3_tiny")]
    + [case("pipefusion", 4, given=Parallel(ulysses=2), patches=2, warmup=1, model="sd3_tiny")]
    + [case(name, 3, warmup=1, model="sd3_tiny") for name in ("distrifusion", "pcpp")],
    ids=run_label,
)
@pytest.mark.fast_cases(1)
def test_the_prompt_of_an_mm_dit_is_attended_to_and_never_stale(cfg):
    rows, _ = errors(cfg)
    stale = [row for row in rows if row["k_error"] is not None]
    assert stale and max(row["unexplained"] for row in stale) < 1e-5
    assert max(row["attention_error"] for row in stale) > 1e-4


def test_a_video_is_measured_by_latent_frame():
    """Of K, V of its own patches a job sees this step's: patches that follow are stale, and the last has none."""
    cfg, video = case("pipefusion", model="wan_tiny", patches=4, warmup=1), shape("wan_tiny")
    rows, _ = errors(cfg)
    stale = [row for row in rows if row["k_error"] is not None]
    assert {row["row_start"] for row in stale} == {0, 3, 6} and max(
        row["unexplained"] for row in stale
    ) < 1e-5
    changes, latents = Changes(video, split_rows(12, 12)), run(cfg)
    changes.latents(run(case("serial", model="wan_tiny"), changes.watch)[:-1])
    assert {(row["quantity"], row["row_start"], row["rows"]) for row in changes.rows} == {
        (quantity, frame, 1) for quantity in ("hidden", "k", "v", "latent") for frame in range(12)
    }
    errors_by_frame = [*position_errors(latents[-1], latents[0], video)]
    assert [(one["row"], one["column"]) for one in errors_by_frame] == [(frame, 0) for frame in range(12)]


def test_displaced_methods_leave_serial_with_the_first_displaced_step():
    for cfg in (case("pipefusion", 3, patches=4, warmup=2), case("distrifusion", 4, warmup=2)):
        found = relative(run(cfg), serial())
        assert float(found[:2].max()) < 1e-5 < float(found[2:].min())


def test_rows_that_are_not_embedded_in_every_step_are_an_error(monkeypatch):
    def upper(self, latent, rows, text, modulation):
        return self.inner.embed(latent, rows, text, modulation.value)

    monkeypatch.setattr(WatchedView, "embed", upper)
    with pytest.raises(NotFinite, match="the latent of a step"):
        run(case("serial"))


def test_stale_k_and_v_of_the_first_layer_are_the_change_of_serial_s():
    """In the first displaced step everything before layer 0 is serial's: what is stale is what serial changes."""
    changes = Changes(shape(), [range(4), range(4, 8)])
    run(case("serial"), changes.watch)
    by_band = {
        (row["row_start"], row["quantity"]): row["change"]
        for row in changes.rows
        if row["step"] == 1 and row["layer"] == 0
    }
    rows, _ = errors(case("distrifusion", 2, warmup=1))
    for row in rows:
        if row["step"] == 1 and row["layer"] == 0:
            other = 4 - row["row_start"]
            assert row["k_error"] == pytest.approx(by_band[other, "k"], rel=1e-4)
            assert row["v_error"] == pytest.approx(by_band[other, "v"], rel=1e-4)


def attention(rank: int, step: int, rows: range, layer: int, tokens: torch.Tensor) -> Attention:
    """Of one head and its image tokens [b, t, hs] alone."""
    heads = tokens[:, :, None]
    return Attention(Place(rank, step, rows, layer), tokens, heads, heads, heads, heads, 0)


def test_a_row_that_comes_twice_is_an_error():
    watcher = StaleErrors(shape(), Mesh({"patch": 2}), seen(case("serial")))
    half = torch.zeros(1, 32, shape().hidden)
    watcher.watch(attention(0, 0, range(4), 0, half))
    with pytest.raises(ValueError, match="not each row once"):
        watcher.watch(attention(1, 0, range(4), 0, half))


def test_changes_are_relative_to_the_later_step():
    changes = Changes(shape(), [range(4), range(4, 8)])
    before, after = torch.ones(2, 64, shape().hidden), torch.ones(2, 64, shape().hidden)
    after[0, 32:] = 2.0  # one of two pictures, its lower half
    for step, image in enumerate((before, after)):
        changes.watch(attention(0, step, range(8), 3, image))
    place = {"quantity": "hidden", "step": 1, "layer": 3, "rows": 4}
    upper = place | {"row_start": 0, "row_stop": 4, "change": 0.0}
    assert changes.rows[:2] == [upper, place | {"row_start": 4, "row_stop": 8, "change": 0.25}]
    with pytest.raises(ValueError, match="whole steps"):
        changes.watch(attention(0, 2, range(4), 3, before))


def test_latents_change_from_the_noise_on():
    changes, latents = Changes(shape(), [range(8)]), serial()
    changes.latents(latents[:-1])
    rows = changes.rows
    assert [(row["quantity"], row["step"], row["layer"]) for row in rows] == [
        ("latent", step, None) for step in range(1, STEPS)
    ]
    change = (latents[1] - latents[0]).flatten(1).norm(dim=1) / latents[1].flatten(1).norm(dim=1)
    assert rows[0]["change"] == pytest.approx(float(change.mean()))
