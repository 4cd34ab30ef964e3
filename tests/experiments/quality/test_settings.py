"""Grids become settings; what may stand in for what; what is wrong is one line."""

import pytest

from experiments.config import RunConfig
from experiments.errors import ConfigError, check_domains
from experiments.quality.measure import QualityConfig
from experiments.quality.settings import (
    Equality,
    Planned,
    Setting,
    StudyConfig,
    check_settings,
    settings_of,
    why_not,
)
from tests.experiments.runs import config


def quality(*studies: StudyConfig, pictures: int = 6):
    cfg = config("steps=4", "guidance_scale=2", "model.resolution=32", "cluster=sim")
    cfg.measure = QualityConfig(studies=list(studies), pictures=pictures)
    return cfg


PIPE = Setting("pipefusion", 4, 2, 1, 4, 2.0, "shipped", 32)


def test_a_grid_is_every_combination_and_serial_beside_each() -> None:
    study = StudyConfig(
        "warmup", ["pipefusion", "ulysses"], devices=[2, 4], patches=[2], warmup=[0, "S"], steps=[4, 8]
    )
    planned = settings_of(quality(study))
    named = {p.setting.key: p for p in planned}
    assert "pipefusion_N4_M2_W8_S8_g2_shipped_32px" in named
    assert "pipefusion_N4_M2_W4_S4_g2_shipped_32px" in named
    assert "ulysses_N2_S4_g2_shipped_32px" in named  # no M, no W: once for both warm-ups
    assert len(planned) == 2 * 2 * 2 + 2 * 2 + 2
    assert named["serial_N1_S4_g2_shipped_32px"].studies == []
    assert named["ulysses_N2_S4_g2_shipped_32px"].studies == ["warmup"]


def test_the_most_pictures_that_any_study_wants() -> None:
    many = StudyConfig("main", ["pipefusion"], patches=[2], pictures=20)
    few = StudyConfig("patches", ["pipefusion"], patches=[2, 4])
    planned = {p.setting: p for p in settings_of(quality(few, many))}
    assert planned[PIPE].pictures == 20
    assert planned[PIPE].studies == ["patches", "main"]
    assert planned[PIPE.serial].pictures == 20


def test_what_is_never_stale_has_serial_for_a_stand_in_and_needs_a_measurement() -> None:
    one_patch = Setting("pipefusion", 4, 1, 0, 4, 2.0, "shipped", 32)
    all_steps = Setting("distrifusion", 4, None, 4, 4, 2.0, "shipped", 32)
    assert one_patch.stand_in == all_steps.stand_in == PIPE.serial
    assert PIPE.stand_in == Setting("pipefusion", 1, 2, 1, 4, 2.0, "shipped", 32)
    stale = Setting("distrifusion", 4, None, 1, 4, 2.0, "shipped", 32)
    assert stale.stand_in == stale
    assert Planned(PIPE).source == PIPE
    assert Planned(PIPE, equality=Equality(0.0, 2)).source == PIPE.stand_in
    assert Planned(PIPE, equality=Equality(1e-3, 2)).source == PIPE


@pytest.mark.parametrize(
    ("study", "line"),
    [
        (StudyConfig(method=["pipefuson"]), "measure.studies.0.method='pipefuson' is unknown, nearest: pipefusion"),
        (StudyConfig(method=[]), "measure.studies.0.method=[] leaves nothing"),
        (StudyConfig(method=["pipefusion"], warmup=["all"]), "measure.studies.0.warmup='all' is no number of steps"),
        (StudyConfig(method=["serial"], scheduler=["euler"]), "scheduler='euler' is unknown"),
        (StudyConfig(method=["serial"], resolution=[33]), "model.resolution=33 is not a multiple of 4"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(study: StudyConfig, line: str) -> None:
    def check(cfg: RunConfig) -> None:
        check_domains(cfg)
        check_settings(cfg)

    with pytest.raises(ConfigError) as caught:
        check(quality(study))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_what_a_method_cannot_do_is_a_reason() -> None:
    cfg = quality(StudyConfig(method=["serial"]))
    assert "method.patches=16 is outside 1..8" in str(
        why_not(Setting("pipefusion", 2, 16, 1, 4, 2.0, "shipped", 32), cfg)
    )
    assert why_not(PIPE, cfg) is None
