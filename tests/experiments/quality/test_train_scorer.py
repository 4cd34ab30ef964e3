"""The scorer's training: it learns, its retrieval is counted right, and what is shipped scores what its card says."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from experiments.config import RunConfig
from experiments.errors import ConfigError, check_domains
from experiments.quality.scorer_card import card_text
from experiments.quality.text_score import FOLDER, Heads, load_heads, open_scorer
from experiments.quality.train_scorer import (
    Pairs,
    TrainScorerConfig,
    check_train_scorer,
    kept_at,
    listed,
    pairs_of,
    read_pairs,
    retrieval,
    spaced,
    train_heads,
    train_scorer,
)
from experiments.training.data import PackageConfig, as_stored

SMALL = TrainScorerConfig(width=16, hidden=64, epochs=15, batch=64, lr=3e-3, dropout=0.0)


def made_up(concepts: int, seed: int = 0) -> Pairs:
    """Two styles of each concept; image and text features are different random views of concept and style."""
    draw = torch.Generator().manual_seed(seed)
    views = torch.Generator().manual_seed(99)  # the same for every seed
    to_image, to_text = torch.randn(8, 1280, generator=views), torch.randn(8, 384, generator=views)
    style = torch.randn(2, 8, generator=views)
    hidden = torch.cat([torch.randn(concepts, 8, generator=draw)] * 2) + style.repeat_interleave(concepts, 0)
    names = [f"{seed} {k}" for k in range(concepts)]
    return Pairs(hidden @ to_image, hidden @ to_text, names * 2, [""] * concepts + ["flat"] * concepts)


def test_training_learns_pairs_it_has_not_seen() -> None:
    heads = train_heads(made_up(300), SMALL)
    found = retrieval(heads, made_up(50, seed=1))
    torch.manual_seed(0)
    before = retrieval(Heads(16, 64).eval(), made_up(50, seed=1))
    assert (found["n"], found["chance"]) == (100, 0.01)
    assert before["prompt_to_picture"]["r5"] < 0.3
    assert before["auc"] < 0.8
    assert found["prompt_to_picture"]["r1"] > 0.6
    assert found["picture_to_prompt"]["r5"] > 0.9
    assert found["auc"] > 0.95
    assert found["style"] > 0.95


def test_the_same_seed_gives_the_same_heads() -> None:
    pairs, brief = made_up(20), replace(SMALL, epochs=1, dropout=0.3)
    states = [train_heads(pairs, replace(brief, seed=seed)).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["image.2.weight"], states[2]["image.2.weight"])


def test_retrieval_on_planted_answers() -> None:
    heads = Heads()
    heads.image, heads.text = nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity())
    text = torch.eye(4)
    # Picture 1 is that of prompt 0 and nearly that of prompt 1; the others are their own.
    image = torch.eye(4)
    image[1] = torch.tensor([1.0, 0.9, 0, 0])
    found = retrieval(heads, Pairs(image, text, ["a", "b", "a", "b"], ["", "", "flat", "flat"]))
    assert found["prompt_to_picture"] == {"r1": 1.0, "r5": 1.0}
    assert found["picture_to_prompt"] == {"r1": 0.75, "r5": 1.0}
    assert found["style"] == 1.0
    # Of 12 wrong pairs one scores higher than picture 1 with its own prompt.
    assert found["auc"] == pytest.approx((3 + 11 / 12) / 4, abs=1e-4)
    assert retrieval(heads, Pairs(image, text, list("abcd"), [""] * 4))["style"] is None
    equal = retrieval(heads, Pairs(torch.ones(4, 4), text, list("abcd"), [""] * 4))
    assert (equal["prompt_to_picture"]["r1"], equal["auc"]) == (0.0, 0.5)


def test_held_out_concepts_are_spaced_and_never_all() -> None:
    assert spaced([str(k) for k in range(10)], 2) == ["2", "7"]
    with pytest.raises(ValueError, match="there are 3 concepts, so 3 cannot be held out"):
        spaced(["a", "b", "c"], 3)


def test_what_cannot_be_trained_is_one_line() -> None:
    def check(cfg: RunConfig) -> None:
        check_domains(cfg)
        check_train_scorer(cfg)

    for key, value in (("held_out", 0), ("epochs", 0), ("batch", 1), ("packages", []), ("categories", [])):
        with pytest.raises(ConfigError, match=rf"^measure\.{key}=.*; allowed: ") as error:
            check(RunConfig(measure=replace(SMALL, **{key: value})))
        assert "\n" not in str(error.value)
    check_train_scorer(RunConfig(measure=SMALL))


def plant(folder: Path, package: PackageConfig, concepts: int) -> None:
    """An unpacked package of flat squares."""
    root = folder / f"{package.name}-{package.version}"
    pictures = root / "img" / package.vendor / "64"
    pictures.mkdir(parents=True)
    table = []
    for k in range(concepts):
        entry = {"name": f"THING {k}", "image": f"{k}.png", "category": "Objects", "subcategory": "x"}
        table.append(entry | {"sort_order": k, f"has_img_{package.vendor}": k != 1})
        Image.new("RGBA", (64, 64), (20 * k, 90, 200 - 20 * k, 255)).save(pictures / f"{k}.png")
    (root / "emoji.json").write_text(json.dumps(table))


def test_from_packages_to_a_folder_that_scores(tmp_path: Path) -> None:
    packages = [PackageConfig(name="p"), PackageConfig(name="q", vendor="twitter", style="flat")]
    for package in packages:
        plant(tmp_path / "data", package, 8)
    cfg = replace(
        SMALL, packages=packages, held_out=2, data_dir=str(tmp_path / "data"), folder=str(tmp_path / "scorer")
    )
    assert train_scorer(RunConfig(measure=cfg), tmp_path / "run") == "ok"
    facts = json.loads((tmp_path / "scorer/scorer.json").read_text())
    assert facts["concepts"] == {"train": 5, "held_out": 2}
    assert facts["held_out"] == ["thing 2", "thing 6"]
    assert facts["config"] == asdict(cfg)
    again = read_pairs(cfg)  # from the features that were kept
    assert "flat" in again.styles
    assert "thing 1" not in again.concepts
    assert len(list((tmp_path / "data").glob("scorer-features-*"))) == 1
    assert (
        retrieval(load_heads(tmp_path / "scorer"), again.of(facts["held_out"]))
        == facts["retrieval"]["held_out"]
    )
    assert open_scorer(folder=tmp_path / "scorer").score(torch.rand(1, 3, 8, 8), ["thing 2"]).shape == (1,)


def test_the_shipped_card_says_what_its_record_says() -> None:
    facts = json.loads((FOLDER / "scorer.json").read_text())
    found = facts["retrieval"]["held_out"]
    assert (FOLDER / "README.md").read_text() == card_text(facts)
    assert f"{found['prompt_to_picture']['r1']:.1%}" in card_text(facts)
    assert found["n"] == 2 * len(facts["held_out"])
    assert found["prompt_to_picture"]["r1"] > 20 * found["chance"]


def test_the_shipped_scorer_retrieves_what_its_card_says() -> None:
    facts = json.loads((FOLDER / "scorer.json").read_text())
    options = TrainScorerConfig(**facts["config"])
    options.packages = as_stored({"packages": facts["config"]["packages"]}, options.data_dir).packages
    folder = Path(options.data_dir).expanduser()
    if not all((folder / f"{package.name}-{package.version}").is_dir() for package in options.packages):
        pytest.skip("the pictures are not on this machine")
    items, styles = listed(options)
    if not kept_at(items, options).is_file():
        pytest.skip("the features of the pictures are not on this machine, and take minutes")
    pairs = read_pairs(options)
    few = pairs_of(items[:3], styles[:3], options)  # what is kept is what the networks give today
    torch.testing.assert_close(few.image, pairs.image[:3], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(few.text, pairs.text[:3], rtol=1e-3, atol=1e-4)
    found = retrieval(load_heads(FOLDER), pairs.of(facts["held_out"]))
    stated = facts["retrieval"]["held_out"]
    for way in ("prompt_to_picture", "picture_to_prompt"):
        assert found[way] == pytest.approx(stated[way], abs=0.01)
    assert found["auc"] == pytest.approx(stated["auc"], abs=0.002)
