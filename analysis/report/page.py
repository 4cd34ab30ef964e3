"""The report: one HTML file that needs nothing else, made from committed tables, figures and their sidecars."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.records.files import write_text
from analysis.report import origin, summary
from analysis.report.exhibits import exhibits, paper_order
from analysis.report.sections import placed

HERE = Path(__file__).parent
TITLE = "PipeFusion, reproduced claim by claim"


def write(results: Path, target: Path) -> Path:
    """Write the page; the same results give the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, html(results))
    return target


def html(results: Path) -> str:
    """The whole page as text."""
    shown = exhibits(results)
    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    return pages.get_template("page.html").render(
        title=TITLE,
        style=Markup((HERE / "style.css").read_text()),
        script=Markup((HERE / "page.js").read_text()),
        summary=summary.lines(results / "tables"),
        sections=placed(shown),
        index=sorted((one for one in shown if one.paper), key=paper_order),
        machines=origin.machines([record for exhibit in shown for record in exhibit.records]),
    )
