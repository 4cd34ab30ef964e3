"""The report: one HTML file that needs nothing else, made from committed tables, figures and their sidecars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from analysis.files import write_text
from analysis.output import Output
from analysis.outputs import OUTPUTS
from analysis.report import figure, origin, summary, table, words
from analysis.report.environment import environment
from analysis.report.exhibits import PICTURES, TEXTS, Exhibit, exhibits, paper_order
from analysis.report.inline import inline
from analysis.report.sections import Section, placed

HERE = Path(__file__).parent
TITLE = "PipeFusion, reproduced claim by claim"
WHOLE_UP_TO = 500
"""Rows of a CSV that are shown; a longer one is a link."""


def write(results: Path, target: Path) -> Path:
    """Write the page; the same results give the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, html(results))
    return target


def html(results: Path, outputs: Sequence[Output] = OUTPUTS) -> str:
    """The whole page as text."""
    shown = exhibits(results, outputs)
    sections = placed(shown)
    where = environment([record for exhibit in shown for record in exhibit.records])
    contents = [(section.name, section.title) for section, _ in sections]
    body = "".join(_section(section, members, shown, results) for section, members in sections)
    return Template((HERE / "page.html").read_text()).substitute(
        title=escape(TITLE),
        style=(HERE / "style.css").read_text(),
        script=(HERE / "page.js").read_text(),
        summary="".join(f"<li>{inline(line)}</li>\n" for line in summary.lines(results / "tables")),
        contents="".join(
            f'<li><a href="#{name}">{escape(title)}</a></li>\n'
            for name, title in [
                *contents,
                *([("environment", "Where the records were made")] if where else []),
            ]
        ),
        body=body + where,
    )


def _section(section: Section, members: list[Exhibit], shown: list[Exhibit], results: Path) -> str:
    text = f"<p>{escape(section.text)}</p>\n" if section.text else ""
    index = _paper(shown) if section.name == "paper" else ""
    parts = "".join(_exhibit(member, results) for member in members)
    return (
        f'<section id="{section.name}">\n<h2>{escape(section.title)}</h2>\n{text}{index}{parts}</section>\n'
    )


def _paper(shown: list[Exhibit]) -> str:
    """Which output stands for which figure or table of the paper, wherever on the page it is."""
    rows = "".join(
        f'<tr><td>{escape(one.paper)}</td><td><a href="#{one.name}">{escape(one.title)}</a></td></tr>\n'
        for one in sorted(shown, key=paper_order)
        if one.paper
    )
    head = '<tr><th scope="col">in the paper</th><th scope="col">here</th></tr>'
    return (
        '<div class="box index" role="region" tabindex="0" aria-label="Figures and tables of the paper">'
        f"<table><thead>{head}</thead><tbody>\n{rows}</tbody></table></div>\n"
    )


def _exhibit(exhibit: Exhibit, results: Path) -> str:
    """Caption, pictures, tables, links to the raw numbers, and how they were made."""
    paper = f' <small class="paper">{escape(exhibit.paper)}</small>' if exhibit.paper else ""
    caption = f"<p>{escape(exhibit.caption)}</p>\n" if exhibit.caption else ""
    pictures = "".join(_figure(paths, exhibit) for paths in exhibit.files(PICTURES))
    tables = "".join(_table(paths, exhibit) for paths in exhibit.files(TEXTS))
    return (
        f'<article id="{escape(exhibit.name)}">\n<h3>{escape(exhibit.title)}{paper}</h3>\n'
        f"{caption}{pictures}{tables}{origin.made(exhibit)}</article>\n"
    )


def _figure(paths: list[Path], exhibit: Exhibit) -> str:
    alt = exhibit.caption or exhibit.title
    return f'<figure data-name="{escape(paths[0].stem)}">{figure.picture(paths, alt)}</figure>\n'


def _table(paths: list[Path], exhibit: Exhibit) -> str:
    """The words that were committed; the raw rows too where the words are a digest of them; a link to the CSV."""
    by_suffix = {path.suffix: path for path in paths}
    csv, text = by_suffix.get(".csv"), by_suffix.get(".md")
    shown = words.html(text.read_text(), exhibit.title) if text else ""
    if csv is None:
        return shown
    raw = table.read_csv(csv)
    in_words = sum(len(one.rows) for one in words.tables(text.read_text())) if text else 0
    if in_words < len(raw.rows) <= WHOLE_UP_TO:
        whole = table.render(raw, f"{exhibit.title}, every row", raw=True)
        label = f"Every row ({len(raw.rows)}), raw units"
        shown += f"<details><summary>{label}</summary>\n{whole}</details>\n" if text else whole
    link = f'<a download="{escape(csv.name)}" href="{figure.data_uri(csv)}">{escape(csv.name)}</a>'
    return f'{shown}<p class="raw">Raw numbers: {link}, {len(raw.rows)} rows</p>\n'
