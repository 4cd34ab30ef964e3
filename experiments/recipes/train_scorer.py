"""`measure=train_scorer`: the two heads of the shipped scorer, trained on emoji in two styles.

Concepts are held out altogether, in every style, and the scorer is judged on those: is a prompt's own picture the
nearest of all held-out ones, and the other way round?
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.records.files import replacing_folder
from experiments.config import RunConfig
from experiments.emoji import (
    DATA_DIR,
    Item,
    PackageConfig,
    check_packages,
    make_item,
    read_pictures,
    read_tables,
)
from experiments.errors import ConfigError, check_folder
from experiments.features import PREPROCESSING, features
from experiments.models.contents import hash_json
from experiments.quality.text_score import HEADS_FILE, TOKENS, Heads, load_heads, text_features
from experiments.recipes.cards import render, write_scorer_card
from experiments.recipes.choice import ALIKE, THINGS, candidates
from experiments.recipes.folder import origin
from experiments.recipes.score import place, shares
from experiments.records import write_json
from experiments.spaced import spaced
from experiments.tensors import write_tensors
from pipefusion.core.domain import Cores, Count, Domain, Grid, Seed, Share, Width

FACTS_FILE = "scorer.json"
FILES = (HEADS_FILE, FACTS_FILE, "README.md", "NOTICE")
"""All of a scorer's folder, which a new one replaces."""


@dataclass
class TrainScorerConfig:
    """Which pictures, how many concepts are kept out, and how the heads are trained."""

    name: str = "train_scorer"
    folder: str = "results/models/emoji_scorer"  # where the scorer is written
    packages: Grid[PackageConfig] = field(default_factory=lambda: [PackageConfig()])
    categories: Grid[str] = field(default_factory=lambda: [*THINGS])
    skip_subcategories: list[str] = field(default_factory=lambda: [*ALIKE])
    held_out: Count = 150  # concepts, evenly spaced
    data_dir: str = DATA_DIR
    width: Width = 256  # of the common space
    hidden: Width = 512
    dropout: Annotated[float, Domain(0, 0.95)] = 0.3
    epochs: Count = 25
    batch: Annotated[int, Domain(2, 1 << 20)] = 512
    lr: Share = 2e-3
    weight_decay: Annotated[float, Domain(0, 1)] = 0.1
    seed: Seed = 0
    threads: Cores = 0


@dataclass(frozen=True)
class Pairs:
    """Pictures and their captions as features: image [n, 1280], text [n, 384]; and which they are."""

    image: Tensor
    text: Tensor
    items: list[Item]

    def of(self, concepts: Collection[str]) -> Pairs:
        """Those of the given concepts."""
        kept = [k for k, item in enumerate(self.items) if item.concept in concepts]
        return Pairs(self.image[kept], self.text[kept], [self.items[k] for k in kept])


def check_train_scorer(cfg: RunConfig) -> None:
    """A folder that holds something else, packages that cannot be had. Raises ConfigError."""
    check_folder(Path(cfg.measure.folder), FILES, "measure.folder")
    check_packages(cfg.measure.packages, cfg.measure.data_dir, "measure.data_dir")


def train_scorer(cfg: RunConfig, out: Path) -> str:
    """Train, judge on the held-out concepts, write the scorer's folder; the run's status."""
    options: TrainScorerConfig = cfg.measure
    if options.threads:
        torch.set_num_threads(options.threads)
    pairs = read_pairs(options)
    concepts = list(dict.fromkeys(item.concept for item in pairs.items))
    if options.held_out >= len(concepts):
        text = f"{options.held_out} leaves none of {len(concepts)} concepts to learn"
        raise ConfigError("measure.held_out", f"{text}; allowed: fewer")
    held_out = spaced(concepts, options.held_out)
    seen, unseen = pairs.of(set(concepts) - set(held_out)), pairs.of(held_out)
    start = time.perf_counter()
    trained = train_heads(seen, options)
    seconds = time.perf_counter() - start
    with replacing_folder(Path(options.folder)) as fresh:  # the heads and their card
        save_file({name: value.half() for name, value in trained.state_dict().items()}, fresh / HEADS_FILE)
        (fresh / HEADS_FILE).chmod(0o644)  # safetensors writes for the owner alone
        heads = load_heads(fresh)  # as they are stored, rounded
        facts = {
            "retrieval": {"held_out": retrieval(heads, unseen), "train": retrieval(heads, seen)},
            "concepts": {"train": len(concepts) - len(held_out), "held_out": len(held_out)},
            "config": asdict(options),
            "image": f"EfficientNet-Lite0 (ImageNet), 1280-d after pooling; {PREPROCESSING}",
            "text": f"MiniLM (all-MiniLM-L6-v2), mean of at most {TOKENS} token states, 384-d",
            "seconds": round(seconds, 1),
            **origin(torch.device("cpu")),
            "held_out": held_out,
        }
        write_json(fresh / FACTS_FILE, facts)
        write_scorer_card(fresh)
    print(render("retrieval.md", **facts))
    return "ok"


def read_pairs(options: TrainScorerConfig) -> Pairs:
    """Every concept of the categories in every style. Features are kept beside the packages for the next time."""
    items = list_items(options)
    path = features_file(items, options)
    if not path.is_file():
        found = compute_pairs(items, options)
        write_tensors(path, {"image": found.image, "text": found.text})
    stored = load_file(path)
    return Pairs(stored["image"], stored["text"], items)


def features_file(items: list[Item], options: TrainScorerConfig) -> Path:
    """The file for the features of these pictures and captions, by all that decides them."""
    packages = [asdict(package) for package in options.packages]  # each with the digest of its pictures
    digest = hash_json([PREPROCESSING, TOKENS, packages, [[item.caption, item.file] for item in items]])
    return Path(options.data_dir).expanduser() / f"scorer-features-{digest[:16]}.safetensors"


def list_items(options: TrainScorerConfig) -> list[Item]:
    """The pictures, package by package in Unicode's order. Of equal names the first counts."""
    items: dict[tuple[str, str], Item] = {}
    tables = read_tables(options.packages, options.data_dir)
    for package, table in zip(options.packages, tables, strict=True):
        for entry in candidates(table, package, options.categories, options.skip_subcategories):
            item = make_item(entry, package)
            items.setdefault((package.name, item.concept), item)
    return list(items.values())


def compute_pairs(items: list[Item], options: TrainScorerConfig) -> Pairs:
    """The features of pictures and of their captions."""
    pictures = read_pictures(items, options.packages, options.data_dir)
    return Pairs(features(pictures), text_features([item.caption for item in items]), items)


def train_heads(pairs: Pairs, options: TrainScorerConfig) -> Heads:
    """Heads trained so that each picture is nearer to its caption than to the others of a batch, and the reverse.

    A concept's styles come in the same batch, so that it learns to distinguish their captions.
    """
    torch.manual_seed(options.seed)
    heads = Heads(options.width, options.hidden, options.dropout)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    concepts = [item.concept for item in pairs.items]
    number = {concept: k for k, concept in enumerate(dict.fromkeys(concepts))}
    which = torch.tensor([number[concept] for concept in concepts])
    rounds = math.ceil(len(pairs.image) / options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.epochs * rounds)
    for _ in range(options.epochs):
        for part in torch.randperm(len(number))[which].argsort(stable=True).chunk(rounds):
            image, text = heads(pairs.image[part], pairs.text[part])
            closer = heads.log_scale.exp() * image @ text.T
            right = torch.arange(len(part))
            loss = (F.cross_entropy(closer, right) + F.cross_entropy(closer.T, right)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return heads.eval().requires_grad_(False)


def retrieval(heads: Heads, pairs: Pairs) -> dict[str, Any]:
    """How often a prompt finds its own picture among all of `pairs` and a picture its own prompt, ties against.

    `auc` is the chance that a right pair scores higher than a wrong one; `style` how often a picture fits its own
    style's prompt better than the same concept's in another style.
    """
    image, text = heads(pairs.image, pairs.text)
    closer = text @ image.T
    n = len(closer)
    right = closer.diagonal().contiguous()
    wrong = closer[~torch.eye(n, dtype=torch.bool)].sort().values
    below = (torch.searchsorted(wrong, right) + torch.searchsorted(wrong, right, right=True)) / 2
    styles = [
        bool(right[k] > closer[other, k])
        for k, item in enumerate(pairs.items)
        for other, another in enumerate(pairs.items)
        if another.concept == item.concept and another.style != item.style
    ]
    own = torch.arange(n)
    return {
        "n": n,
        "chance": round(1 / n, 5),
        "prompt_to_picture": shares(place(closer, own), "r"),
        "picture_to_prompt": shares(place(closer.T, own), "r"),
        "auc": round(float(below.mean() / len(wrong)), 4),
        "style": round(sum(styles) / len(styles), 4) if styles else None,
    }
