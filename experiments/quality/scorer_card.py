"""The card of the shipped scorer, written from scorer.json so that its numbers are never typed in."""

from __future__ import annotations

from typing import Any

NOTICE = """\
The heads in this folder were trained on pictures and texts of others:

- Pictures: Noto Emoji, Copyright Google LLC, Apache License 2.0 (https://github.com/googlefonts/noto-emoji),
  as packed in the npm package emoji-datasource-google 16.0.0.
- Pictures: Twemoji, Copyright Twitter, Inc and other contributors, CC-BY 4.0
  (https://creativecommons.org/licenses/by/4.0/, https://github.com/twitter/twemoji), as packed in the npm package
  emoji-datasource-twitter 16.0.0.
- Names and categories: emoji-data, Copyright Cal Henderson, MIT License (https://github.com/iamcal/emoji-data).
- Text encoder (not in this folder): all-MiniLM-L6-v2, sentence-transformers, Apache License 2.0.
- Image features (not in this folder): EfficientNet-Lite0, Copyright Google LLC, Apache License 2.0.

The heads themselves are under the licence of this repository, Apache License 2.0.
"""


def card_text(facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    config, concepts = facts["config"], facts["concepts"]
    styles = " and ".join(
        f"{package['name']}{' (`' + package['style'] + ' ...`)' if package['style'] else ''}"
        for package in config["packages"]
    )
    return f"""\
# emoji_scorer: does a picture fit its prompt?

Cosine x 100 between a picture and a prompt, from two small heads over frozen networks. **It is no CLIP**: it has seen \
{concepts["train"]:,} emoji concepts and knows emoji. Its scores compare pictures of the same prompts with each other; \
they mean nothing beside a CLIPScore. With a CLIP at hand, `measure.clip=FOLDER` takes that instead.

| | |
|---|---|
| image | {facts["image"]} |
| text | {facts["text"]} |
| heads | LayerNorm, {config["hidden"]} hidden channels, {config["width"]} in common |
| data | {styles}; caption = lower-case name behind the style's word |
| training | contrastive, both ways; {config["epochs"]} rounds of AdamW in batches of {config["batch"]} |
| seconds, date | {facts["seconds"]:g} after the features, which take longer; {facts["date"]} |
| hardware | {facts["hardware"]} |
| command | `python run.py experiment=train_scorer` |

## Score

{score_text(facts)}

## Licence

Apache-2.0. See `NOTICE` for the pictures, names and networks it was made with.
"""


def score_text(facts: dict[str, Any]) -> str:
    """Retrieval as a table, with what it was among."""
    lines = [
        "| pairs | n | chance of R@1 | prompt to picture, R@1 | R@5 | picture to prompt, R@1 | R@5 | AUC | style |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "held_out": "held-out concepts, all styles",
        "train": "training, all styles",
    }
    for key, name in names.items():
        found = facts["retrieval"][key]
        there, back = found["prompt_to_picture"], found["picture_to_prompt"]
        style = "–" if found["style"] is None else f"{found['style']:.1%}"
        lines.append(
            f"| {name} | {found['n']} | {found['chance']:.2%} | {there['r1']:.1%} | {there['r5']:.1%} "
            f"| {back['r1']:.1%} | {back['r5']:.1%} | {found['auc']:.3f} | {style} |"
        )
    return "\n".join(
        [
            f"{facts['concepts']['held_out']} concepts were kept out of training in every style (`scorer.json` lists "
            "them). Is a prompt's own picture the nearest of all n, and a picture's own prompt? AUC: the chance that a "
            "right pair scores higher than a wrong one. Style: how often a picture fits its own style's prompt better "
            "than the other style's. Sizes, rounds and dropout were chosen by these same concepts among two dozen, "
            "which flatters the numbers a little.",
            "",
            *lines,
        ]
    )
