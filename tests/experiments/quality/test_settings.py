"""Grids become settings; what may stand in for what; what is wrong is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.config import RunConfig
from experiments.errors import ConfigError, check_domains
from experiments.grid import serial_reference
from experiments.methods import METHODS
from experiments.quality.cells import DTYPE, REAL, QualityConfig, StudyConfig, all_cells, all_settings
from experiments.quality.measure import QUALITY, check_settings
from experiments.quality.settings import setting_name, stand_in
from experiments.runner import study_cells
from experiments.session import Session
from pipefusion.core.parallel import Parallel
from tests.experiments.commands import config
from tests.experiments.quality.pictures import save_pictures


@pytest.fixture
def base(tmp_path: Path) -> RunConfig:
    """A run with captions and real pictures."""
    (tmp_path / "captions.txt").write_text("red apple\ngreen dragon\na tree")
    cfg = config("steps=4", "guidance_scale=2", "model.resolution=32", "cluster=sim")
    measure = QualityConfig(pictures=6, patches=[2], real=str(save_pictures(tmp_path / "real")))
    return replace(cfg, prompt_file=str(tmp_path / "captions.txt"), measure=measure)


def of(base: RunConfig, *studies: StudyConfig, **options: object) -> RunConfig:
    return replace(base, measure=replace(base.measure, studies=[*studies], **options))


def named(cfg: RunConfig) -> dict[str, RunConfig]:
    return {setting_name(one): one for one in all_settings(cfg, Session())}


def run(
    base: RunConfig, method: str, devices: int, parallel: Parallel | None = None, **own: object
) -> RunConfig:
    settings = METHODS[method].Config(**own)
    return replace(base, method=settings, devices=devices, parallel=parallel or Parallel())


def test_a_grid_is_every_combination_and_serial_beside_each(base: RunConfig) -> None:
    lists = {"devices": [2, 4], "warmups": [0, "S"], "steps": [4, 8]}
    settings = named(of(base, StudyConfig(study="warmup", methods=["pipefusion", "ulysses"], **lists)))
    assert "pipefusion_N4_M2_W8_S8_g2_shipped_32px" in settings
    assert "pipefusion_N4_M2_W4_S4_g2_shipped_32px" in settings
    assert len(settings) == 2 * 2 * 2 + 2 * 2 + 2  # Ulysses has no M, no W: once for both warm-ups
    assert settings["serial_N1_S4_g2_shipped_32px"].measure.studies == []
    assert settings["ulysses_N2_S4_g2_shipped_32px"].measure.studies == ["warmup"]


def test_sizes_and_products_are_told_apart(base: RunConfig) -> None:
    wide = replace(base, model=replace(base.model, resolution=None, height=32, width=64))
    (name, _) = named(of(wide, StudyConfig(methods=["pipefusion"], devices=[8], products=[Parallel(cfg=2)])))
    assert name == "pipefusion_N8_cfg2_M2_W1_S4_g2_shipped_32x64px"


def test_the_most_pictures_that_any_study_wants(base: RunConfig) -> None:
    many = StudyConfig(study="main", methods=["pipefusion"], pictures=20)
    few = StudyConfig(study="patches", methods=["pipefusion"], patches=[2, 4], warmups=[1, "S"])
    settings = named(of(base, few, many))
    pipe = settings["pipefusion_N4_M2_W1_S4_g2_shipped_32px"].measure
    assert (pipe.pictures, pipe.drawn, pipe.studies) == (20, 20, ["patches", "main"])
    exact = settings["pipefusion_N4_M2_W4_S4_g2_shipped_32px"]
    assert (exact.measure.pictures, exact.measure.drawn, exact.measure.compared) == (6, 20, 20)
    assert exact.prompt[:3] == exact.prompt[3:6] and len(exact.prompt) == 20


def test_what_is_never_stale_has_serial_for_a_stand_in(base: RunConfig) -> None:
    serial = run(base, "serial", 1)
    exact = [
        run(base, "pipefusion", 4, patches=1, warmup=0),
        run(base, "distrifusion", 4, warmup=4),
        run(base, "ring", 8, Parallel(cfg=2)),
        run(base, "serial", 2, Parallel(cfg=2)),
    ]
    assert all(stand_in(one) == serial_reference(one) == serial for one in exact)


def test_a_displaced_product_has_its_method_with_all_other_degrees_1(base: RunConfig) -> None:
    own = {"patches": 2, "warmup": 1}
    pipe = run(base, "pipefusion", 8, Parallel(cfg=2, ulysses=2), split="ceil", **own)
    assert stand_in(pipe) == run(base, "pipefusion", 1, **own)
    assert stand_in(run(base, "pipefusion", 4)) == run(base, "pipefusion", 1, patches=4)
    bands = run(base, "distrifusion", 8, Parallel(ring=2))
    assert stand_in(bands) == run(base, "distrifusion", 4) == stand_in(stand_in(bands))
    own["compress"] = "int4"  # between stages, by each rank that shares a patch
    assert stand_in(run(base, "pipefusion", 8, Parallel(cfg=2), **own)) == run(base, "pipefusion", 4, **own)
    shared = run(base, "pipefusion", 8, Parallel(ulysses=2), **own)
    assert stand_in(shared) == shared


def test_floors_are_of_real_pictures_and_of_serial_in_float32(base: RunConfig) -> None:
    cfg = replace(base, model=replace(base.model, dtype="bfloat16"))
    cfg = of(cfg, StudyConfig(methods=["ring"], steps=[2, 4]), fewest=6, float32_pictures=4)
    floors = [one for one in all_cells(cfg, Session()) if one.measure.what]
    assert [(one.measure.what, one.measure.pictures, one.method.name) for one in floors] == [
        (REAL, 6, "serial"),
        (DTYPE, 4, "serial"),
    ]
    assert floors[1].steps == 4


@pytest.mark.parametrize(
    ("study", "line"),
    [
        (StudyConfig(methods=["pipefuson"]), "measure.studies.0.methods='pipefuson' is unknown, nearest: pipefusion"),
        (StudyConfig(warmups=["all"]), "measure.studies.0.warmups='all' is no number"),
        (StudyConfig(steps=[0]), "measure.studies.0.steps.0=0 is too small"),
        (StudyConfig(schedulers=["euler"]), "measure.studies.0.schedulers='euler' is unknown"),
        (StudyConfig(models=["sd3_tiny"]), "measure.studies.0.models=['sd3_tiny'] are several"),
    ],
)  # fmt: skip
@pytest.mark.fast_cases(2)
def test_what_is_wrong_is_one_line(base: RunConfig, study: StudyConfig, line: str) -> None:
    def check(cfg: RunConfig) -> None:
        check_domains(cfg)
        check_settings(cfg, Session())

    with pytest.raises(ConfigError) as caught:
        check(of(base, study))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_what_a_method_cannot_do_is_a_reason(base: RunConfig) -> None:
    given = [Parallel(), Parallel(data=2)]
    study = StudyConfig(methods=["pipefusion"], devices=[2], patches=[2, 16], products=given)
    cells = study_cells(QUALITY, of(base, study, batch=3), Session())
    reasons = {one.place["setting"]: one.skipped for one in cells}
    assert "method.patches=16 is outside 1..8" in str(reasons["pipefusion_N2_M16_W1_S4_g2_shipped_32px"])
    assert reasons["pipefusion_N2_M2_W1_S4_g2_shipped_32px"] is None
    assert "2 does not divide the 3 pictures" in str(reasons["pipefusion_N2_data2_M2_W1_S4_g2_shipped_32px"])
