"""The page as text: nothing unescaped, nothing left out, nothing from elsewhere, the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from analysis import report
from analysis.evidence.claim import VERDICTS
from analysis.report import exhibits, figure, origin, page, sections, summary, table, words
from analysis.report.environment import environment
from analysis.report.inline import inline
from tests.analysis.report import sample

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results"
LIMIT_BYTES = 9 * 2**20
VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """Elements of a page, and whether each was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="module")
def committed() -> str:
    return page.html(RESULTS)


def test_number_of_a_cell() -> None:
    cells = {
        "12.8 % (150)": 12.8,
        "611,349,152": 611349152,
        "2.9e-07": 2.9e-7,
        "−1.5": -1.5,
        "∞": float("inf"),
        "1.48×": 1.48,
        "± 0.5 s": 0.5,
        "0.08 [0.07, 0.09]": 0.08,
    }
    assert {cell: table.number(cell) for cell in cells} == cells
    assert [table.number(cell) for cell in ("0-11", "8xL40", "–", "", "ok", "latency.csv:2")] == [None] * 6
    assert table.number("0.7 × against 1.16 ×, which is said of a hybrid") is None


def test_a_column_is_of_numbers_when_most_of_what_it_says_are() -> None:
    assert table.is_numeric(["1.5", "–", "OOM", "2"])
    assert table.is_numeric(["as serial", "as serial", "as serial", "1.0", "2.0"])
    assert not table.is_numeric(["0-2", "3-5"])
    assert not table.is_numeric([])


def test_cells_are_escaped_and_keep_their_value() -> None:
    one = table.Table(("na<me", "bytes"), (("<script>", "1,024"), ("a & b", "–")))
    html = table.render(one, 'a "name"')
    assert "<script>" not in html and "&lt;script&gt;" in html and "na&lt;me" in html
    assert 'data-value="1024.0">1,024<' in html and 'aria-label="a &quot;name&quot;"' in html
    assert (
        table.render(table.Table(("x",), (("0.123456789",),)), "raw", raw=True).count(
            'data-value="0.123456789"'
        )
        == 1
    )


def test_a_verdict_is_a_word_and_a_colour() -> None:
    assert 'class="verdict no"' in table.verdict("not confirmed") and "not confirmed" in table.verdict(
        "not confirmed"
    )
    assert 'class="verdict open"' in table.verdict("not testable: no such GPU")
    assert table.verdict("<else>") == "&lt;else&gt;"


def test_verdicts_come_first() -> None:
    moved = table.verdict_first(table.Table(("claim", "Verdict"), (("a", "confirmed"),)))
    assert moved == table.Table(("Verdict", "claim"), (("confirmed", "a"),))
    assert table.verdict_first(moved) == moved


def test_there_is_a_colour_for_every_verdict() -> None:
    assert set(table.MARKS) == set(VERDICTS)


def test_inline() -> None:
    assert inline("`a<b` **b** *c* 2*p*hs [x](#y) [z](../z.md) <i>") == (
        '<code>a&lt;b</code> <strong>b</strong> <em>c</em> 2*p*hs <a href="#y">x</a> z &lt;i&gt;'
    )


def test_words_of_a_committed_table() -> None:
    html = words.html(f"# Title\nSome\ntext\n{sample.NUMBERS}- one\n- two\n|| x || is no table", "numbers")
    assert html.startswith("<h4>Title</h4>\n<p>Some\ntext</p>") and html.count("<tr>") == 5
    assert "<li>one</li><li>two\n|| x || is no table</li>" in html
    assert [len(one.rows) for one in words.tables(sample.NUMBERS)] == [4]


def test_the_smaller_picture_is_embedded(made_up: Path) -> None:
    png, svg = made_up / "figures/curve.png", made_up / "figures/curve.svg"
    smallest = min((png, svg), key=lambda path: len(figure.data_uri(path)))
    html = figure.picture([png, svg], 'it\'s "so"')
    assert figure.data_uri(smallest) in html and "&quot;so&quot;" in html
    assert figure.size(png) == (1440, 640) and figure.size(svg) == (864, 384)
    assert not set(figure.data_uri(svg)) & set('"&#\n')  # what ends an attribute, or an address in it
    drawn = unquote(figure.data_uri(svg).split(",", 1)[1])
    assert drawn.startswith("<svg") and drawn.endswith("</svg>") and "DOCTYPE" not in drawn


def test_files_belong_to_the_output_that_lists_them_or_that_they_are_named_after(made_up: Path) -> None:
    shown = {one.name: one for one in exhibits.exhibits(made_up, [sample.OUTPUT])}
    assert set(shown) == {"claims", "curve", "numbers", "orphan", "published_vs_ours"}
    assert shown["curve"].paper == "Fig. 3" and shown["claims"].caption == "Every claim."
    assert exhibits.owner("scaling_peak", {"scaling": 0, "sca": 0}, {}) == "scaling"
    assert exhibits.owner("peak", {"scaling": 0}, {"scaling": {"made": ["figures/peak.png"]}}) == "scaling"


def test_every_section_in_order_and_nothing_twice(made_up: Path) -> None:
    placed = sections.placed(exhibits.exhibits(made_up, [sample.OUTPUT]))
    assert [section.name for section, _ in placed] == ["verdicts", "published", "further"]
    assert [one.name for one in placed[-1][1]] == ["curve", "numbers", "orphan"]
    assert (
        sections.home("paper_schedule").name == "schedule" and sections.home("paper_latency").name == "paper"
    )


def test_the_index_follows_the_numbers_of_the_paper() -> None:
    papers = ["Section 3", "Table 10", "Figure 4", "Tables 2 and 3", "The figure of scalability", "Fig. 12"]
    found = sorted([exhibits.Exhibit(name, {}, paper=name) for name in papers], key=exhibits.paper_order)
    in_order = ["Figure 4", "Fig. 12", "Tables 2 and 3", "Table 10", "Section 3", "The figure of scalability"]
    assert [one.paper for one in found] == in_order


def test_records_that_say_the_same_stand_together() -> None:
    groups = origin.grouped(sample.SOURCES["records"])  # type: ignore[arg-type]
    assert [len(members) for _, members in groups] == [2, 1] and groups[1][0] == {}
    said = groups[0][0]
    assert (
        said["hardware"] == "cpu a <CPU>, cores 2, memory 4.0 GiB"
        and said["predicted"] == "measured or counted"
    )


def test_where_records_were_made_counts_each_once() -> None:
    records = sample.SOURCES["records"]
    html = environment(records * 2)  # type: ignore[arg-type]
    assert ">a &lt;CPU&gt;" not in html and "cpu a &lt;CPU&gt;, cores 2" in html and html.count("<tr>") == 2
    assert 'class="number">2<' in html and "c0ffeec0ffee-dirty" in html and "not said" not in html
    assert environment([{"record": None, "files": {}}]) == ""


def test_summary_counts_the_verdicts(made_up: Path, tmp_path: Path) -> None:
    (line,) = summary.lines(made_up / "tables")
    assert line == (
        "Of 4 [claims](#verdicts), **2 confirmed**, **1 not confirmed**, **0 undecided**, **1 not testable** here."
    )
    assert summary.lines(tmp_path) == []


def test_the_page_is_sound_and_says_everything(made_up: Path) -> None:
    html = page.html(made_up, [sample.OUTPUT])
    read = Reader(html)
    assert len(read.ids) == len(set(read.ids))
    assert {address[1:] for address in read.addresses if address.startswith("#")} <= set(read.ids)
    assert html.count("<img ") == 2 and "A line &amp; &lt;no&gt; tag." in html and "&lt;b&gt;fast" in html
    assert "python run.py experiment=claims" in html and "records/one/b.json" in html
    assert "c0ffeec0ffee-dirty" in html and "a &lt;CPU&gt;" in html


def test_the_same_results_give_the_same_bytes(made_up: Path, tmp_path: Path) -> None:
    first, second = (report.write(made_up, tmp_path / name) for name in ("a/one.html", "two.html"))
    assert first.read_bytes() == second.read_bytes()


def test_every_committed_table_and_figure_is_on_the_page(committed: str) -> None:
    read = Reader(committed)
    assert len(read.ids) == len(set(read.ids))
    assert {address[1:] for address in read.addresses if address.startswith("#")} <= set(read.ids)
    html = re.sub(r'"data:[^"]*"', "", committed)
    tables, pictures = sorted(RESULTS.glob("tables/*.csv")), sorted(RESULTS.glob("figures/*.png"))
    assert tables and pictures
    for path in tables:
        assert figure.data_uri(path) in committed, path.name
    for path in pictures:
        assert f'data-name="{path.stem}"' in committed, path.name
        assert figure.data_uri(path) in committed or figure.data_uri(path.with_suffix(".svg")) in committed
    cells = {
        cell
        for path in RESULTS.glob("tables/*.md")
        for one in words.tables(path.read_text())
        for row in one.rows
        for cell in row
    }
    assert cells and not [cell for cell in cells if inline(cell) not in html]


def test_the_committed_page_needs_no_other_file_and_is_not_large(committed: str) -> None:
    addresses = Reader(committed).addresses
    assert all(re.match(r"data:|#|https?://", address) for address in addresses)
    assert not re.search(r"@import|url\((?!#)|<script src|fetch\(", unescape(committed.split("<body>")[0]))
    assert len(committed.encode()) < LIMIT_BYTES


def test_the_report_needs_no_torch() -> None:
    code = "import sys, analysis.report; sys.exit('torch' in sys.modules or 'selenium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
