"""Which pictures are learnt and which are kept out, and what is said where they cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.errors import ConfigError
from experiments.training.data import DataConfig, PackageConfig, check_packages, choose, fetch, quotas
from tests.experiments.training.fake_emoji import entry


def test_the_concept_rule() -> None:
    table = [entry(k, "Objects" if k % 2 else "Activities") for k in range(40)]
    table[3]["subcategory"] = "time"
    table[5]["has_img_google"] = False
    cfg = DataConfig(concepts=10, unseen=2, categories=["Objects", "Activities"])
    items = choose([table], cfg)
    assert items == choose([list(reversed(table))], cfg)
    assert [item.role for item in items].count("train") == 10
    assert [item.role for item in items].count("unseen") == 2
    assert all(item.caption.islower() and item.concept not in ("thing 3", "thing 5") for item in items)
    objects = [item for item in items if int(item.concept.split()[1]) % 2]
    assert len(objects) == 6


def test_two_styles_and_held_out_pairs() -> None:
    table = [entry(k, "Objects") for k in range(40)]
    both = [PackageConfig(), PackageConfig(vendor="twitter", style="flat")]
    cfg = DataConfig(packages=both, concepts=10, unseen=2, held_out_pairs=4, categories=["Objects"])
    items = choose([table, table], cfg)
    held = [item for item in items if item.role == "held_out"]
    assert len(items) == 24
    assert len(held) == 4
    assert {item.caption.startswith("flat ") for item in held} == {True, False}
    trained = {item.concept for item in items if item.role == "train"}
    assert {item.concept for item in held} <= trained
    assert {item.caption for item in held} <= {f"{s}{item.concept}" for item in held for s in ("", "flat ")}
    with pytest.raises(ValueError, match="needs two styles"):
        choose([table], DataConfig(held_out_pairs=1, concepts=4, unseen=1, categories=["Objects"]))


def test_what_is_learnt_already_is_not_kept_out() -> None:
    table = [entry(k, "Objects") for k in range(40)]
    both = [PackageConfig(), PackageConfig(vendor="twitter", style="flat")]
    cfg = DataConfig(packages=both, concepts=10, unseen=2, held_out_pairs=4, categories=["Objects"])

    def kept_out(learnt: set[str]) -> dict[str, set[str]]:
        items = choose([table, table], cfg, learnt)
        assert len(items) == 24
        return {
            role: {item.caption for item in items if item.role == role} for role in ("held_out", "unseen")
        }

    usual = kept_out(set())
    learnt = {caption for role in usual.values() for caption in role if not caption.startswith("flat ")}
    other = kept_out(learnt)
    assert {role: len(captions) for role, captions in other.items()} == {"held_out": 4, "unseen": 4}
    assert learnt and not learnt & (other["held_out"] | other["unseen"])
    assert {f"flat {caption}" for caption in learnt & usual["held_out"]} <= other["held_out"]
    with pytest.raises(
        ConfigError, match=r"^measure.data.unseen=2 are asked for, and 0 of the concepts are new"
    ):
        kept_out({f"flat thing {k}" for k in range(40)})
    everything = {f"{style}thing {k}" for style in ("", "flat ") for k in range(40)}
    with pytest.raises(ConfigError, match=r"^measure.data.held_out_pairs=1 is more .*allowed: 0..0$"):
        choose([table, table], replace(cfg, unseen=0, held_out_pairs=1), everything)
    with pytest.raises(ConfigError, match=r"^measure.data.held_out_pairs=11 is more than a pair a concept"):
        choose([table, table], replace(cfg, held_out_pairs=11))


def test_quotas_share_what_small_categories_lack() -> None:
    assert quotas([9, 9, 9], 8) == [3, 3, 2]
    assert quotas([2, 9, 20], 18) == [2, 8, 8]
    assert quotas([2, 3, 4], 9) == [2, 3, 4]
    with pytest.raises(ValueError, match=r"concepts=10 with those that stay unseen, and there are 9"):
        quotas([2, 3, 4], 10)


def test_a_wrong_or_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PackageConfig()
    (tmp_path / f"{package.name}-{package.version}.tgz").write_bytes(b"not it")
    with pytest.raises(RuntimeError, match=r"checksum of .* expected sha512-") as caught:
        fetch(package, str(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="npm is not installed") as caught:
        fetch(package, str(tmp_path / "empty"))
    with pytest.raises(
        ConfigError, match=r"^measure.data_dir=.*empty has not all pictures \(npm is.*; allowed: a"
    ):
        check_packages([package], str(tmp_path / "empty"), "measure.data_dir")
    assert "\n" not in str(caught.value)
