"""The scorer's training: it learns, its retrieval is counted right, and what is shipped scores what its card says."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.config import RunConfig
from experiments.emoji import Item, PackageConfig, stored_packages
from experiments.errors import ConfigError, check_domains
from experiments.quality.text_score import FOLDER, Heads, load_heads, open_scorer
from experiments.recipes.cards import write_scorer_card
from experiments.recipes.train_scorer import (
    Pairs,
    TrainScorerConfig,
    compute_pairs,
    features_file,
    list_items,
    read_pairs,
    retrieval,
    train_heads,
    train_scorer,
)
from tests.experiments.recipes.fake_emoji import entry, fake_package

SMALL = TrainScorerConfig(width=16, hidden=64, epochs=15, batch=64, lr=3e-3, dropout=0.0)


def items(concepts: str, styles: list[str]) -> list[Item]:
    return [Item(concept, style) for concept, style in zip(concepts, styles, strict=True)]


def made_up(concepts: int, seed: int = 0) -> Pairs:
    """Two styles of each concept; image and text features are different random views of concept and style."""
    draw = torch.Generator().manual_seed(seed)
    views = torch.Generator().manual_seed(99)  # the same for every seed
    to_image, to_text = torch.randn(8, 1280, generator=views), torch.randn(8, 384, generator=views)
    style = torch.randn(2, 8, generator=views)
    hidden = torch.cat([torch.randn(concepts, 8, generator=draw)] * 2) + style.repeat_interleave(concepts, 0)
    named = [Item(f"{seed} {k}", style) for style in ("", "flat") for k in range(concepts)]
    return Pairs(hidden @ to_image, hidden @ to_text, named)


@pytest.mark.slow
def test_training_learns_pairs_it_has_not_seen() -> None:
    found = retrieval(train_heads(made_up(300), SMALL), made_up(50, seed=1))
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
    found = retrieval(heads, Pairs(image, text, items("abab", ["", "", "flat", "flat"])))
    assert found["prompt_to_picture"] == {"r1": 1.0, "r5": 1.0}
    assert found["picture_to_prompt"] == {"r1": 0.75, "r5": 1.0}
    assert found["style"] == 1.0
    # Of 12 wrong pairs one scores higher than picture 1 with its own prompt.
    assert found["auc"] == pytest.approx((3 + 11 / 12) / 4, abs=1e-4)
    apart = items("abcd", [""] * 4)
    assert retrieval(heads, Pairs(image, text, apart))["style"] is None
    equal = retrieval(heads, Pairs(torch.ones(4, 4), text, apart))
    assert (equal["prompt_to_picture"]["r1"], equal["auc"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("key", "value"), [("held_out", 0), ("epochs", 0), ("batch", 1), ("packages", []), ("categories", [])]
)
def test_what_cannot_be_trained_is_one_line(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^measure\.{key}=.*; allowed: [^\n]*$"):
        check_domains(RunConfig(measure=replace(SMALL, **{key: value})))


@pytest.mark.slow
def test_from_packages_to_a_folder_that_scores(tmp_path: Path) -> None:
    packages = [PackageConfig(name="p"), PackageConfig(name="q", vendor="twitter", style="flat")]
    left_out = [
        entry(8, has_img_google=False, has_img_twitter=False),
        entry(9, name="THING 0"),  # of equal names the first counts
        entry(10, "Symbols"),
        entry(11, subcategory="time"),
    ]
    for package in packages:
        fake_package(tmp_path / "data", 7, package, left_out)
    out, folder = tmp_path / "run", tmp_path / "scorer"
    cfg = replace(SMALL, packages=packages, held_out=2, data_dir=str(tmp_path / "data"), folder=str(folder))
    with pytest.raises(
        ConfigError, match=r"^measure.held_out=7 leaves none of 7 concepts to learn; allowed: "
    ):
        train_scorer(RunConfig(measure=replace(cfg, held_out=7)), out)
    assert train_scorer(RunConfig(measure=cfg), out) == "ok"
    facts = json.loads((folder / "scorer.json").read_text())
    assert facts["concepts"] == {"train": 5, "held_out": 2}
    assert facts["held_out"] == ["thing 1", "thing 5"]
    assert facts["config"] == asdict(cfg)
    again = read_pairs(cfg)  # from the features that were kept
    assert len(list((tmp_path / "data").glob("scorer-features-*"))) == 1
    assert [item.style for item in again.items] == [""] * 7 + ["flat"] * 7
    found = retrieval(load_heads(folder), again.of(facts["held_out"]))
    assert found == facts["retrieval"]["held_out"]
    assert open_scorer(folder=folder).score(torch.rand(1, 3, 8, 8), ["thing 2"]).shape == (1,)


def test_the_shipped_card_says_what_its_record_says(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "scorer")
    write_scorer_card(folder)
    for name in ("README.md", "NOTICE"):
        assert (folder / name).read_text() == (FOLDER / name).read_text()
    facts = json.loads((FOLDER / "scorer.json").read_text())
    found = facts["retrieval"]["held_out"]
    assert f"{found['prompt_to_picture']['r1']:.1%}" in (FOLDER / "README.md").read_text()
    assert found["n"] == 2 * len(facts["held_out"])
    assert found["prompt_to_picture"]["r1"] > 20 * found["chance"]


def test_the_shipped_scorer_retrieves_what_its_card_says() -> None:
    facts = json.loads((FOLDER / "scorer.json").read_text())
    options = TrainScorerConfig(**facts["config"] | {"packages": stored_packages(facts["config"])})
    folder = Path(options.data_dir).expanduser()
    if not all((folder / f"{package.name}-{package.version}").is_dir() for package in options.packages):
        pytest.skip("the pictures are not on this machine")
    listed = list_items(options)
    if not features_file(listed, options).is_file():
        pytest.skip("the features of the pictures are not on this machine, and take minutes")
    pairs = read_pairs(options)
    few = compute_pairs(listed[:3], options)  # what is kept is what the networks give today
    torch.testing.assert_close(few.image, pairs.image[:3], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(few.text, pairs.text[:3], rtol=1e-3, atol=1e-4)
    found = retrieval(load_heads(FOLDER), pairs.of(facts["held_out"]))
    stated = facts["retrieval"]["held_out"]
    for way in ("prompt_to_picture", "picture_to_prompt"):
        assert found[way] == pytest.approx(stated[way], abs=0.01)
    assert found["auc"] == pytest.approx(stated["auc"], abs=0.002)
