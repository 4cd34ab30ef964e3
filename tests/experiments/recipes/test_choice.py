"""Which pictures are learnt and which are kept out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.emoji import Item, PackageConfig
from experiments.errors import ConfigError
from experiments.recipes.choice import DataConfig, choose, quotas
from tests.experiments.recipes.fake_emoji import entry

TABLE = [entry(k) for k in range(40)]
STYLES = [PackageConfig(), PackageConfig(vendor="twitter", style="flat")]
TWO = DataConfig(packages=STYLES, concepts=10, unseen=2, held_out_pairs=4, categories=["Objects"])


def captions(items: list[Item], role: str) -> set[str]:
    return {item.caption for item in items if item.role == role}


def test_the_concept_rule() -> None:
    table = [entry(k, "Objects" if k % 2 else "Activities") for k in range(40)]
    table[3]["subcategory"] = "time"
    table[5]["has_img_google"] = False
    cfg = DataConfig(concepts=10, unseen=2, categories=["Objects", "Activities"])
    items = choose([table], cfg)
    assert items == choose([list(reversed(table))], cfg)
    assert (len(captions(items, "train")), len(captions(items, "unseen"))) == (10, 2)
    assert all(item.caption.islower() and item.concept not in ("thing 3", "thing 5") for item in items)
    assert sum(int(item.concept.split()[1]) % 2 for item in items) == 6


def test_two_styles_and_held_out_pairs() -> None:
    items = choose([TABLE, TABLE], TWO)
    held = [item for item in items if item.role == "held_out"]
    assert (len(items), len(held)) == (24, 4)
    assert {item.style for item in held} == {"", "flat"}
    assert {item.concept for item in held} <= {item.concept for item in items if item.role == "train"}
    assert all(item.caption == f"{item.style} {item.concept}".strip() for item in held)


def test_what_is_learnt_already_is_not_kept_out() -> None:
    usual = choose([TABLE, TABLE], TWO)
    learnt = {item.caption for item in usual if item.role != "train" and not item.style}
    other = choose([TABLE, TABLE], TWO, learnt)
    kept_out = captions(other, "held_out") | captions(other, "unseen")
    assert (len(captions(other, "held_out")), len(captions(other, "unseen"))) == (4, 4)
    assert learnt and not learnt & kept_out
    assert {f"flat {each}" for each in learnt & captions(usual, "held_out")} <= captions(other, "held_out")


EVERYTHING = {f"{style}thing {k}" for style in ("", "flat ") for k in range(40)}


@pytest.mark.parametrize(
    ("cfg", "learnt", "expected"),
    [
        (replace(TWO, packages=STYLES[:1]), set(), r"held_out_pairs=4 needs two styles"),
        (
            TWO,
            {f"flat thing {k}" for k in range(40)},
            r"unseen=2 are asked for, and 0 of the concepts are new",
        ),
        (replace(TWO, unseen=0), EVERYTHING, r"held_out_pairs=4 is more .*allowed: 0..0$"),
        (replace(TWO, held_out_pairs=11), set(), r"held_out_pairs=11 is more than a pair a concept"),
        (replace(TWO, concepts=39), set(), r"concepts=41 with those that stay unseen, and there are 40"),
    ],
)
def test_more_than_there_is_cannot_be_kept_out(cfg: DataConfig, learnt: set[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^measure.data.{expected}"):
        choose([TABLE] * len(cfg.packages), cfg, learnt)


def test_quotas_share_what_small_categories_lack() -> None:
    assert quotas([9, 9, 9], 8) == [3, 3, 2]
    assert quotas([2, 9, 20], 18) == [2, 8, 8]
    assert quotas([2, 3, 4], 9) == [2, 3, 4]
