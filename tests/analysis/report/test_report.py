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
from analysis.report import exhibits, files, origin, page, sections, summary
from tests.analysis.report import sample

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results"
LIMIT_BYTES = 9 * 2**20
RAW = ("method,bytes,seconds\n", "ring,1222698304,0.123456789\n")
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


def test_text_becomes_html_with_its_tables_in_boxes() -> None:
    html = exhibits.html(f"# Title\nSome `a<b` *text*\n\n{sample.NUMBERS}\n- one\n- <i>two</i>\n", 'a "name"')
    assert html.startswith("<h4>Title</h4>\n<p>Some <code>a&lt;b</code> <em>text</em></p>")
    assert html.count("<tr>") == 5 and "<li>&lt;i&gt;two&lt;/i&gt;</li>" in html and "style" not in html
    assert html.count('aria-label="a &#34;name&#34;">\n<table>') == html.count("</table></div></div>") == 1


def test_raw_rows_are_shown_where_the_text_is_a_digest_of_them(tmp_path: Path) -> None:
    paths = {suffix: tmp_path / f"numbers{suffix}" for suffix in (".csv", ".md")}
    paths[".md"].write_text(sample.NUMBERS)
    for rows, whole in ((4, False), (5, True), (exhibits.WHOLE_UP_TO + 1, False)):
        paths[".csv"].write_text(RAW[0] + RAW[1] * (rows - 1) + "ulysses,,\n")
        one = exhibits.table(paths, "Numbers")
        assert (one.rows, one.whole is not None) == (rows, whole)
        if one.whole is not None:
            assert one.whole.iloc[0].tolist() == ["ring", "1222698304", "0.1235"]
            assert one.whole.iloc[-1].tolist() == ["ulysses", "–", "–"]


def test_there_is_a_colour_for_every_verdict() -> None:
    script = (Path(page.__file__).parent / "page.js").read_text()
    assert set(summary.VERDICTS) == set(VERDICTS) == set(re.findall(r'[{ ]"?([a-z][a-z ]+)"?: \["', script))


def test_the_smaller_picture_is_embedded(made_up: Path) -> None:
    png, svg = made_up / "figures/curve.png", made_up / "figures/curve.svg"
    smallest = min((png, svg), key=lambda path: len(files.data_uri(path)))
    assert files.picture([png, svg]).uri == files.data_uri(smallest)
    assert files.size(png) == (360, 160) and files.size(svg) == (864, 384)
    assert not set(files.data_uri(svg)) & set('"&#\n')  # what ends an attribute, or an address in it
    drawn = unquote(files.data_uri(svg).split(",", 1)[1])
    assert drawn.startswith("<svg") and drawn.endswith("</svg>") and "DOCTYPE" not in drawn


def test_an_exhibit_is_what_its_sidecar_lists(made_up: Path) -> None:
    shown = {one.name: one for one in exhibits.exhibits(made_up)}
    assert list(shown) == ["claims", "curve", "numbers", "published_vs_ours"]
    assert shown["curve"].paper == "Fig. 3" and shown["claims"].caption == "Every claim."
    assert [len(one.pictures) for one in shown.values()] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("name", "words"),
    [("row_id", "row"), ("peak_bytes", "peak, bytes"), ("lost_s", "lost, s"), ("a_b", "a b")],
)
def test_headings_of_raw_rows_are_words(name: str, words: str) -> None:
    assert exhibits.heading(name) == words


def test_every_section_in_order_and_nothing_twice(made_up: Path) -> None:
    placed = sections.placed(exhibits.exhibits(made_up))
    assert [section.name for section, _ in placed] == ["verdicts", "published", "further"]
    assert [one.name for one in placed[-1][1]] == ["curve", "numbers"]
    homes = [sections.SECTIONS[sections.rank(f"paper_{name}")[0]].name for name in ("schedule", "latency")]
    assert homes == ["schedule", "paper"]


def test_the_index_follows_the_numbers_of_the_paper() -> None:
    papers = ["Section 3", "Table 10", "Figure 4", "Tables 2 and 3", "The figure of scalability", "Fig. 12"]
    found = sorted([exhibits.Exhibit(name, paper=name) for name in papers], key=exhibits.paper_order)
    in_order = ["Figure 4", "Fig. 12", "Tables 2 and 3", "Table 10", "Section 3", "The figure of scalability"]
    assert [one.paper for one in found] == in_order


def test_records_that_say_the_same_stand_together() -> None:
    groups = origin.grouped(sample.SOURCES["records"])  # type: ignore[arg-type]
    assert [len(members) for _, members in groups] == [2, 1] and groups[1][0] == {}
    first = groups[0][0]
    assert (
        first["run on"] == "cpu a <CPU>, cores 2, memory 4.0 GiB" and first["kind"] == "measured or counted"
    )


def test_where_records_were_made_counts_each_once() -> None:
    records = sample.SOURCES["records"]
    machines = origin.machines(records * 2)  # type: ignore[operator]
    assert machines is not None and machines.to_dict("records") == [
        {
            "run on": "cpu a <CPU>, cores 2, memory 4.0 GiB",
            "versions": "torch 2.13.0",
            "records": 2,
            "commits": "c0ffeec0ffee-dirty",
        }
    ]
    assert origin.machines([{"record": None, "files": {}}]) is None


def test_summary_counts_the_verdicts(made_up: Path, tmp_path: Path) -> None:
    (line,) = summary.lines(made_up / "tables")
    assert line == (
        'Of 4 <a href="#verdicts">claims</a>, <strong>2 confirmed</strong>, <strong>1 not confirmed</strong>, '
        "<strong>0 undecided</strong>, <strong>1 not testable</strong> here."
    )
    assert summary.lines(tmp_path) == []


def test_the_page_is_sound_and_says_everything(made_up: Path) -> None:
    html = page.html(made_up)
    read = Reader(html)
    assert len(read.ids) == len(set(read.ids))
    assert {address[1:] for address in read.addresses if address.startswith("#")} <= set(read.ids)
    assert html.count("<img ") == 1 and "A line &amp; &lt;no&gt; tag." in html and "&lt;b&gt;fast" in html
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
        assert files.data_uri(path) in committed, path.name
    for path in pictures:
        assert f'data-name="{path.stem}"' in committed, path.name
        assert files.data_uri(path) in committed or files.data_uri(path.with_suffix(".svg")) in committed
    texts = [path.read_text() for path in RESULTS.glob("tables/*.md")]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("| ")]
    cells = {cell.strip() for line in lines for cell in line.strip("|").split(" | ")} - {"---", "---:"}
    assert cells and not [cell for cell in cells if exhibits.MARKDOWN.renderInline(cell) not in html]


def test_the_committed_page_needs_no_other_file_and_is_not_large(committed: str) -> None:
    addresses = Reader(committed).addresses
    assert all(re.match(r"data:|#|https?://", address) for address in addresses)
    assert not re.search(r"@import|url\((?!#)|<script src|fetch\(", unescape(committed.split("<body>")[0]))
    assert len(committed.encode()) < LIMIT_BYTES


def test_the_report_needs_no_torch() -> None:
    code = "import sys, analysis.report; sys.exit('torch' in sys.modules or 'selenium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
