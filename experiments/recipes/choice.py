"""The concept rule: which pictures the small model learns, and which are kept from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from experiments.emoji import DATA_DIR, Item, PackageConfig, Table, drawn, make_item
from experiments.errors import ConfigError
from experiments.spaced import spaced
from pipefusion.core.domain import Count, Grid, Natural

THINGS = ["Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects"]
# Two dozen clock faces differ only in where two thin hands point, letters in boxes by the letter.
ALIKE = ["time", "alphanum", "keycap"]


@dataclass
class DataConfig:
    """Which pictures are learnt, which are kept unseen."""

    packages: Grid[PackageConfig] = field(default_factory=lambda: [PackageConfig()])
    data_dir: str = DATA_DIR
    concepts: Count = 256
    unseen: Natural = 32  # concepts kept out of training altogether
    held_out_pairs: Natural = 0  # (concept, style) pairs kept out while the concept is seen in another style
    categories: Grid[str] = field(default_factory=lambda: [*THINGS])
    skip_subcategories: list[str] = field(default_factory=lambda: [*ALIKE])


def choose(tables: Sequence[Table], cfg: DataConfig, learnt: Collection[str] = ()) -> list[Item]:
    """The concept rule, a pure function of the packages' tables. Raises ConfigError.

    Only categories of things that stand alone on a plain ground (no people, flags or letters). Candidates are the base
    emoji every vendor draws. `concepts + unseen` of them are taken, the same number from each category (a category
    that has fewer gives all, and the others more), evenly spaced in the Unicode sort order, so that neighbours, which
    look alike, are thinned out. Of those, every k-th is unseen. Held-out pairs go round the styles, evenly spaced over
    the seen concepts. Where training goes on from weights that have `learnt` captions already, none of these is kept
    out: the next concept that is new in all styles is unseen instead, the concept's next style held out.
    """
    rows = [
        candidates(table, package, cfg.categories, cfg.skip_subcategories)
        for table, package in zip(tables, cfg.packages, strict=True)
    ]
    shared = set.intersection(*({entry["unified"] for entry in table} for table in rows))
    shown = [entry for entry in rows[0] if entry["unified"] in shared]
    pools = [[entry for entry in shown if entry["category"] == each] for each in cfg.categories]
    total, styles = cfg.concepts + cfg.unseen, len(cfg.packages)
    shares = quotas([len(pool) for pool in pools], total)
    chosen = [entry for pool, share in zip(pools, shares, strict=True) for entry in spaced(pool, share)]
    items = [[make_item(entry, package) for package in cfg.packages] for entry in chosen]
    fresh = [[item.caption not in learnt for item in row] for row in items]
    new = {k for k in range(total) if all(fresh[k])}
    if len(new) < cfg.unseen:
        text = f"{cfg.unseen} are asked for, and {len(new)} of the concepts are new; allowed: 0..{len(new)}"
        raise ConfigError("measure.data.unseen", text)
    unseen: set[int] = set()
    for even in spaced(range(total), cfg.unseen):
        turns = ((even + turn) % total for turn in range(total))
        unseen.add(next(k for k in turns if k in new and k not in unseen))
    if cfg.held_out_pairs and styles < 2:
        text = f"{cfg.held_out_pairs} needs two styles: a concept must be seen in another one; allowed: 0"
        raise ConfigError("measure.data.held_out_pairs", text)
    able = [k for k in range(total) if k not in unseen and any(fresh[k])]
    if cfg.held_out_pairs > len(able):
        text = f"{cfg.held_out_pairs} is more than a pair a concept that has one to keep out"
        raise ConfigError("measure.data.held_out_pairs", f"{text}; allowed: 0..{len(able)}")
    pairs = set()
    for turn, k in enumerate(spaced(able, cfg.held_out_pairs)):
        pairs.add((k, next(s for s in ((turn + more) % styles for more in range(styles)) if fresh[k][s])))
    roles = dict.fromkeys(pairs, "held_out") | {(k, s): "unseen" for k in unseen for s in range(styles)}
    return [
        make_item(entry, package, roles.get((k, style), "train"))
        for style, package in enumerate(cfg.packages)
        for k, entry in enumerate(chosen)
    ]


def candidates(
    table: Table, package: PackageConfig, categories: Collection[str], skip: Collection[str]
) -> Table:
    """The rows of these categories that the vendor has a picture of, in Unicode's order."""
    rows = [e for e in drawn(table, package) if e["category"] in categories and e["subcategory"] not in skip]
    return sorted(rows, key=lambda entry: entry["sort_order"])


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """How many each pool gives so that all give `total`, as equally as their sizes allow.

    Raises ConfigError if there are not so many.
    """
    if total > sum(sizes):
        text = f"{total} with those that stay unseen, and there are {sum(sizes)}; allowed: fewer"
        raise ConfigError("measure.data.concepts", text)
    given = [0] * len(sizes)
    while sum(given) < total:
        short = [k for k, size in enumerate(sizes) if given[k] < size]
        share, more = divmod(total - sum(given), len(short))
        for place, k in enumerate(short):
            given[k] = min(sizes[k], given[k] + share + (place < more))
    return given
