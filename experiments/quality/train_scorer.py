"""`measure=train_scorer`: the two heads of the shipped scorer, trained on emoji in two styles.

Concepts are held out altogether, in every style, and the scorer is judged on those: is a prompt's own picture the
nearest of all held-out ones, and the other way round?
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.files import replacing, replacing_folder
from experiments.config import RunConfig
from experiments.errors import check_folder, check_least, check_some
from experiments.features import PREPROCESSING, features
from experiments.quality.scorer_card import NOTICE, card_text, score_text
from experiments.quality.text_score import HEADS_FILE, TOKENS, Heads, load_heads, text_features
from experiments.training import data
from experiments.training.export import hardware

FACTS_FILE = "scorer.json"
FILES = (HEADS_FILE, FACTS_FILE, "README.md", "NOTICE")
"""All of a scorer's folder, which a new one replaces."""


@dataclass
class TrainScorerConfig:
    """Which pictures, how many concepts are kept out, and how the heads are trained."""

    name: str = "train_scorer"
    folder: str = "results/models/emoji_scorer"  # where the scorer is written
    packages: list[data.PackageConfig] = field(default_factory=lambda: [data.PackageConfig()])
    categories: list[str] = field(default_factory=lambda: data.DataConfig().categories)
    skip_subcategories: list[str] = field(default_factory=lambda: data.DataConfig().skip_subcategories)
    held_out: int = 150  # concepts, evenly spaced
    data_dir: str = "~/.cache/pipefusion-lab"
    width: int = 256  # of the common space
    hidden: int = 512
    dropout: float = 0.3
    epochs: int = 25
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Pairs:
    """Pictures and their captions as features: image [n, 1280], text [n, 384]; and which they are."""

    image: Tensor
    text: Tensor
    concepts: list[str]
    styles: list[str]

    def of(self, concepts: Collection[str]) -> Pairs:
        """Those of the given concepts."""
        kept = [k for k, concept in enumerate(self.concepts) if concept in concepts]
        names = ([of[k] for k in kept] for of in (self.concepts, self.styles))
        return Pairs(self.image[kept], self.text[kept], *names)


def check_train_scorer(cfg: RunConfig) -> None:
    """Raises ConfigError for what leaves nothing to train or to judge."""
    options: TrainScorerConfig = cfg.measure
    least = {"held_out": 1, "epochs": 1, "batch": 2, "width": 1, "hidden": 1}
    check_least(cfg, {f"measure.{key}": low for key, low in least.items()})
    check_some(cfg, "measure.packages", "measure.categories")
    check_folder(Path(options.folder), FILES, "measure.folder")
    data.check_packages(options.packages, options.data_dir, "measure.data_dir")


def train_scorer(cfg: RunConfig, out: Path) -> str:
    """Train, judge on the held-out concepts, write the scorer's folder; the run's status."""
    options: TrainScorerConfig = cfg.measure
    if options.threads:
        torch.set_num_threads(options.threads)
    pairs = read_pairs(options)
    concepts = list(dict.fromkeys(pairs.concepts))
    held_out = spaced(concepts, options.held_out)
    seen, unseen = pairs.of(set(concepts) - set(held_out)), pairs.of(held_out)
    folder = Path(options.folder)
    start = time.perf_counter()
    trained = train_heads(seen, options)
    seconds = time.perf_counter() - start
    with replacing_folder(folder) as fresh:  # the heads and what is said of them
        save_heads(trained, fresh)
        heads = load_heads(fresh)  # as they are stored, rounded
        facts = {
            "retrieval": {"held_out": retrieval(heads, unseen), "train": retrieval(heads, seen)},
            "concepts": {"train": len(concepts) - len(held_out), "held_out": len(held_out)},
            "config": asdict(options),
            "image": f"EfficientNet-Lite0 (ImageNet), 1280-d after pooling; {PREPROCESSING}",
            "text": f"MiniLM (all-MiniLM-L6-v2), mean of at most {TOKENS} token states, 384-d",
            "seconds": round(seconds, 1),
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(torch.device("cpu")),
            "torch": torch.__version__,
            "held_out": held_out,
        }
        (fresh / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
        (fresh / "README.md").write_text(card_text(facts))
        (fresh / "NOTICE").write_text(NOTICE)
    print(score_text(facts))
    return "ok"


def read_pairs(options: TrainScorerConfig) -> Pairs:
    """Every concept of the categories in every style. Features are kept beside the packages for the next time."""
    items, styles = listed(options)
    path = kept_at(items, options)
    if path.is_file():
        stored = load_file(path)
        return Pairs(stored["image"], stored["text"], [item.concept for item in items], styles)
    pairs = pairs_of(items, styles, options)
    with replacing(path) as temporary:
        save_file({"image": pairs.image, "text": pairs.text}, temporary)
    return pairs


def kept_at(items: list[data.Item], options: TrainScorerConfig) -> Path:
    """The file for the features of these pictures and captions."""
    packages = [asdict(package) for package in options.packages]  # each with the digest of its pictures
    key = json.dumps([PREPROCESSING, TOKENS, packages, [[item.caption, item.file] for item in items]])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(options.data_dir).expanduser() / f"scorer-features-{digest}.safetensors"


def listed(options: TrainScorerConfig) -> tuple[list[data.Item], list[str]]:
    """The pictures, package by package in Unicode's order, and the style of each. Of equal names the first counts."""
    items: list[data.Item] = []
    styles: list[str] = []
    for package, table in zip(options.packages, data.tables_of(source(options)), strict=True):
        found: dict[str, data.Item] = {}
        for entry in sorted(table, key=lambda entry: entry["sort_order"]):
            concept = data.concept_of(entry)
            there = entry.get(f"has_img_{package.vendor}") and entry["category"] in options.categories
            if there and entry["subcategory"] not in options.skip_subcategories and concept not in found:
                file = f"{package.vendor}/64/{entry['image']}"
                found[concept] = data.Item(concept, f"{package.style} {concept}".strip(), file, "train")
        items += found.values()
        styles += [package.style] * len(found)
    return items, styles


def pairs_of(items: list[data.Item], styles: list[str], options: TrainScorerConfig) -> Pairs:
    """The features of listed pictures and of their captions."""
    image = features(data.read_pictures(items, source(options)))
    text = text_features([item.caption for item in items])
    return Pairs(image, text, [item.concept for item in items], styles)


def source(options: TrainScorerConfig) -> data.DataConfig:
    return data.DataConfig(packages=options.packages, data_dir=options.data_dir)


def spaced(whole: Sequence[str], count: int) -> list[str]:
    """`count` of them, evenly spaced. Raises ValueError when there are not more than that."""
    if count >= len(whole):
        raise ValueError(f"there are {len(whole)} concepts, so {count} cannot be held out")
    return [whole[(2 * k + 1) * len(whole) // (2 * count)] for k in range(count)]


def train_heads(pairs: Pairs, options: TrainScorerConfig) -> Heads:
    """Heads trained so that each picture is nearer to its caption than to the others of a batch, and the reverse.

    A concept's styles come in the same batch, so that their captions are told apart.
    """
    torch.manual_seed(options.seed)
    heads = Heads(options.width, options.hidden, options.dropout)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    place = {concept: k for k, concept in enumerate(dict.fromkeys(pairs.concepts))}
    which = torch.tensor([place[concept] for concept in pairs.concepts])
    rounds = math.ceil(len(pairs.image) / options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.epochs * rounds)
    for _ in range(options.epochs):
        for part in torch.randperm(len(place))[which].argsort(stable=True).chunk(rounds):
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
    of = {key: k for k, key in enumerate(zip(pairs.concepts, pairs.styles, strict=True))}
    swaps = [
        (k, of[concept, other])
        for (concept, style), k in of.items()
        for other in sorted(set(pairs.styles))
        if other != style and (concept, other) in of
    ]
    told = [bool(right[k] > closer[other, k]) for k, other in swaps]
    return {
        "n": n,
        "chance": round(1 / n, 5),
        "prompt_to_picture": shares(closer),
        "picture_to_prompt": shares(closer.T),
        "auc": round(float(below.mean() / len(wrong)), 4),
        "style": round(sum(told) / len(told), 4) if told else None,
    }


def shares(closer: Tensor) -> dict[str, float]:
    """Share of rows of [n, n] whose diagonal is the largest, and among the five largest; ties count against."""
    place = (closer >= closer.diagonal()[:, None]).sum(1)
    return {f"r{k}": round(float((place <= k).float().mean()), 4) for k in (1, 5)}


def save_heads(heads: Heads, folder: Path) -> None:
    """heads.safetensors, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half() for name, tensor in heads.state_dict().items()}, folder / HEADS_FILE)
    (folder / HEADS_FILE).chmod(0o644)  # safetensors writes for the owner alone
