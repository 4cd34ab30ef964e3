"""Pictures depend on prompt, seed and setting alone; what is there is not made again; failures end one setting only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.closure import Code
from experiments.config import RunConfig
from experiments.errors import RunFailed
from experiments.grid import serial_reference
from experiments.methods import METHODS
from experiments.quality.cells import QualityConfig
from experiments.quality.sample import (
    SAMPLE,
    exactly,
    find_source,
    picture_files,
    require,
    sample_all,
    sample_in_process,
)
from experiments.quality.settings import SampleConfig, in_float32, stand_in
from experiments.quality.store import Pictures, batches, remove_others, shared
from experiments.runner import grouped, make_cell
from experiments.runs.device import choose_device
from experiments.session import Session
from pipefusion.core.parallel import Parallel
from tests.experiments.commands import config

OWN = SampleConfig(batch=2)
TEXTS = ["red apple", "green dragon", "a tree", "red apple", "green dragon", "a tree"]


class OtherCode(Code):
    """The project's code after a change."""

    def sha256(self, names: frozenset[str]) -> str:
        return super().sha256(names)[::-1]


@pytest.fixture
def cfg() -> RunConfig:
    given = ("guidance_scale=2", "model.resolution=32", "cluster=sim", "log.progress=false", "seed=5")
    one = replace(config(*given), prompt=TEXTS, measure=QualityConfig(batch=2, workers=1))
    return with_method(one, "pipefusion", 2, patches=4, warmup=0)


def with_method(cfg: RunConfig, method: str, devices: int, **own: object) -> RunConfig:
    return replace(cfg, method=METHODS[method].Config(**own), devices=devices)


def test_batches_are_sampled_side_by_side(cfg: RunConfig, tmp_path: Path) -> None:
    session = Session(tmp_path)
    cells = [make_cell(SAMPLE, one, session) for one in batches(cfg, OWN, 5)]
    assert [len(group) for group in grouped(SAMPLE, cells)] == [1, 1, 1]


def latents(paths: tuple[Path, ...], count: int) -> torch.Tensor:
    return torch.cat([some for some, _ in Pictures(paths).read(count)])


def test_a_picture_is_a_run_with_its_seed_and_prompt(cfg: RunConfig, tmp_path: Path) -> None:
    session = Session(tmp_path)
    sample_all([(cfg, 5)], OWN, cfg, session)
    paths = picture_files(cfg, OWN, 5, session)
    runs = batches(cfg, OWN, 5)
    assert [(run.prompt, run.seed) for run in runs][1:] == [
        (["a tree", "red apple"], [7, 8]),
        (["green dragon"], [9]),
    ]
    alone = replace(cfg, prompt=TEXTS[3:], seed=8)
    sample_all([(alone, 1)], OWN, cfg, session)
    one = latents(picture_files(alone, OWN, 1, session), 1)
    torch.testing.assert_close(one[0], latents(paths, 5)[3], rtol=2e-3, atol=2e-3)
    some, images = next(Pictures(paths).read(2))
    shown = ((some.clamp(-1, 1) + 1) / 2 * 255).round() / 255
    torch.testing.assert_close(images, shown, rtol=0, atol=2.1 / 255)  # latents are kept in float16
    assert Pictures(paths).seconds(5) > Pictures(paths).seconds(2) > 0


def test_a_killed_run_goes_on_and_nothing_is_made_twice(cfg: RunConfig, tmp_path: Path) -> None:
    session = Session(tmp_path)
    sample_all([(cfg, 5)], OWN, cfg, session)
    first, middle, last = picture_files(cfg, OWN, 5, session)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (first, last)}
    made = middle.read_bytes()
    middle.unlink()
    sample_all([(cfg, 5)], OWN, cfg, session)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (first, last)}
    assert len(middle.read_bytes()) == len(made) and not [*tmp_path.rglob("*.tmp")]
    again = latents((middle,), 2)
    middle.write_bytes(made)
    assert torch.equal(again, latents((middle,), 2))
    more = picture_files(cfg, OWN, 6, session)  # the last file was not full: it alone is made again
    assert more[:2] == (first, middle) and not more[2].exists()
    assert picture_files(cfg, OWN, 5, session, 3) == (first, middle)


def test_what_other_code_has_made_is_removed(tmp_path: Path) -> None:
    sessions = [Session(tmp_path), Session(tmp_path, OtherCode())]
    own, other = (shared(session, "pictures") / "0.safetensors" for session in sessions)
    flat = tmp_path / "looks" / "0.safetensors"
    for path in (own, other, flat):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_others(Session(tmp_path))
    assert own.exists() and not other.parent.exists() and not flat.exists()


def test_other_weights_prompts_or_seeds_are_other_pictures(cfg: RunConfig, tmp_path: Path) -> None:
    session = Session(tmp_path)
    (path,) = picture_files(cfg, OWN, 2, session)
    changed = [
        replace(cfg, seed=6),
        replace(cfg, negative_prompt="blurry"),
        replace(cfg, prompt=TEXTS[1:]),
        replace(cfg, model=replace(cfg.model, text="minilm")),
        replace(cfg, model=replace(cfg.model, seed=1)),
        replace(cfg, devices=4),
    ]
    others = {picture_files(one, OWN, 2, session) for one in changed}
    others |= {picture_files(cfg, replace(OWN, device="cuda"), 2, session)}
    others |= {picture_files(cfg, OWN, 2, Session(tmp_path, OtherCode()))}
    assert len(others) == 8 and (path,) not in others
    assert picture_files(replace(cfg, resume=False), OWN, 2, session) == (path,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_a_gpu_are_those_of_a_cpu(cfg: RunConfig, method: str) -> None:
    own = {"patches": 2} if METHODS[method].has("patches") else {}
    run = with_method(replace(cfg, prompt=TEXTS[:1], seed=5), method, 1 if method == "serial" else 2, **own)
    made = []
    for device in ("cpu", "cuda"):
        one = in_float32(replace(run, cluster=replace(cfg.cluster, device=device)))
        made.append(sample_in_process(one, Session(), choose_device(device)))
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-3)


def test_a_setting_that_fails_has_a_reason_and_the_others_go_on(cfg: RunConfig, tmp_path: Path) -> None:
    session, bad = Session(tmp_path), replace(cfg, scheduler="nonsense")
    sample_all([(bad, 3), (cfg, 2)], OWN, cfg, session)
    require(picture_files(cfg, OWN, 2, session), session)
    with pytest.raises(RunFailed, match="nonsense") as caught:
        require(picture_files(bad, OWN, 3, session), session)
    assert caught.value.status == "failed"


def test_a_stand_in_is_used_where_a_measurement_agrees(
    cfg: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tmp_path)
    ring, stale = with_method(cfg, "ring", 2), with_method(cfg, "distrifusion", 2, warmup=0)
    bad = replace(ring, scheduler="nonsense")
    claims = [side for one in (cfg, ring, bad) for side in (one, stand_in(one))]
    sample_all([(in_float32(one), 2) for one in claims], exactly(OWN, 2), cfg, session)
    found, error = find_source(cfg, OWN, 2, session)
    assert found == replace(cfg, devices=1) and error == 0.0
    found, error = find_source(ring, OWN, 2, session)
    assert found == serial_reference(ring) and error is not None and error < 1e-5
    assert find_source(bad, OWN, 2, session) == (bad, None)  # what fails in the comparison is sampled itself
    assert find_source(stale, OWN, 2, session) == (stale, None)
    assert find_source(ring, OWN, 0, session) == (ring, None)
    monkeypatch.setattr("experiments.quality.sample.EQUAL", error / 2)
    assert find_source(ring, OWN, 2, session) == (ring, error)


def test_a_product_has_the_pictures_of_its_method(cfg: RunConfig, tmp_path: Path) -> None:
    session, product = Session(tmp_path), replace(cfg, devices=4, parallel=Parallel(cfg=2))
    sample_all([(in_float32(one), 2) for one in (product, stand_in(product))], exactly(OWN, 2), cfg, session)
    found, error = find_source(product, OWN, 2, session)
    assert found == stand_in(cfg) and error is not None and error < 1e-5
