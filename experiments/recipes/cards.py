"""Cards and notices of what ships: templates beside this file, filled from its own files, so no number is typed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.records.files import write_text

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("cards")),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
TEMPLATES.filters["f"] = format


def render(template: str, **facts: Any) -> str:
    """A template of `cards/` filled with facts."""
    return TEMPLATES.get_template(template).render(facts)


def model_facts(folder: Path) -> dict[str, Any]:
    """Facts of a model: pipefusion_lab.json, prompts.json and (when there) score.json."""
    facts: dict[str, Any] = json.loads((folder / "pipefusion_lab.json").read_text())
    found = folder / "score.json"
    facts["score"] = json.loads(found.read_text()) if found.is_file() else None
    return facts | {"prompts": json.loads((folder / "prompts.json").read_text())}


def write_model_card(folder: Path) -> None:
    """README.md and NOTICE of a model, from the files of its folder."""
    facts = model_facts(folder)
    card = "video.md" if "frames" in facts else "model.md"
    write_text(folder / "README.md", render(card, **facts))
    write_text(folder / "NOTICE", render("NOTICE", what="weights", packages=facts["data"]["packages"]))


def score_template(facts: dict[str, Any]) -> str:
    """The template for the score of a model with these facts."""
    return "video_score.md" if "frames" in facts else "score.md"


def write_scorer_card(folder: Path) -> None:
    """README.md and NOTICE of a scorer, from its scorer.json."""
    facts = json.loads((folder / "scorer.json").read_text())
    write_text(folder / "README.md", render("scorer.md", **facts))
    write_text(folder / "NOTICE", render("NOTICE", what="heads", packages=facts["config"]["packages"]))
