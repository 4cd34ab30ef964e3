"""The page in a real browser, from file://: it asks for nothing, complains of nothing, sorts, filters, fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from tests.analysis.report import browser as browsers
from tests.analysis.report import sample

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not browsers.installed(), reason=browsers.MISSING)]
RESULTS = Path(__file__).resolve().parents[3] / "results"
PHONE = 390
COLUMN = """
const table = document.querySelector(arguments[0] + " table");
const at = [...table.tHead.rows[0].cells].findIndex((one) => one.textContent.trim() === arguments[1]);
return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].textContent.trim());
"""
HEADING = """
const all = [...document.querySelectorAll(arguments[0] + " th")];
return all.find((one) => one.textContent.trim() === arguments[1]);
"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    browser = browsers.start()
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a small made-up folder, and that of what is committed."""
    folder = tmp_path_factory.mktemp("pages")
    made_up = sample.write(folder / "results")
    return {
        "made up": report.write(made_up, folder / "made_up.html"),
        "committed": report.write(RESULTS, folder / "committed.html"),
    }


@pytest.mark.parametrize("name", ["made up", "committed"])
def test_it_loads_alone_and_shows_every_picture(chrome: Any, pages: dict[str, Path], name: str) -> None:
    browsers.requests(chrome)
    browsers.complaints(chrome)
    browsers.opened(chrome, pages[name])
    assert browsers.complaints(chrome) == []
    asked = [address.split(":")[0] for address in browsers.requests(chrome)]
    assert asked.count("file") == 1 and set(asked) <= {"file", "data"}
    shown = chrome.execute_script(
        "return [...document.images].map((one) => [one.complete, one.naturalWidth, one.alt, one.clientWidth])"
    )
    assert shown and all(
        complete and natural > 0 and alt and width > 0 for complete, natural, alt, width in shown
    )


@pytest.mark.parametrize("name", ["made up", "committed"])
def test_a_phone_never_scrolls_sideways(chrome: Any, pages: dict[str, Path], name: str) -> None:
    for dark in (False, True):
        browsers.opened(chrome, pages[name], PHONE, dark)
        chrome.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= PHONE
        chrome.execute_script("document.querySelectorAll('.zoom').forEach((one) => one.click())")
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= PHONE
    tall = chrome.execute_script(
        "return [...document.querySelectorAll('.box')].filter((one) => one.clientHeight > innerHeight).length"
    )
    assert tall == 0


def test_a_verdict_is_seen_whole_on_a_laptop_and_is_a_card_on_a_phone(
    chrome: Any, pages: dict[str, Path]
) -> None:
    browsers.opened(chrome, pages["committed"], 1280)
    sides = "(one) => [one.scrollWidth, one.closest('.box').clientWidth]"
    found = chrome.execute_script(f"return [...document.querySelectorAll('table.fits')].map({sides})")
    assert found and all(table <= box for table, box in found)
    browsers.opened(chrome, pages["made up"], PHONE)
    label = "return getComputedStyle(document.querySelector('#claims td:nth-child(2)'), '::before').content"
    assert chrome.execute_script(label) == '"claim"'


def test_dark_and_light_differ(chrome: Any, pages: dict[str, Path]) -> None:
    colours = []
    for dark in (False, True):
        browsers.opened(chrome, pages["made up"], dark=dark)
        colours.append(chrome.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == "rgb(255, 255, 255)" and colours[1] != colours[0]


def test_a_header_sorts_numbers_both_ways_and_empty_cells_come_last(
    chrome: Any, pages: dict[str, Path]
) -> None:
    browsers.opened(chrome, pages["made up"])
    heading = chrome.execute_script(HEADING, "#numbers", "seconds")
    button = heading.find_element("tag name", "button")
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert chrome.execute_script(COLUMN, "#numbers", "seconds") == ["-1.0e-02", "9.5", "10.25", "–"]
    button.send_keys("\n")  # by keyboard
    assert heading.get_attribute("aria-sort") == "descending"
    assert chrome.execute_script(COLUMN, "#numbers", "seconds") == ["10.25", "9.5", "-1.0e-02", "–"]
    chrome.execute_script(HEADING, "#numbers", "method").find_element("tag name", "button").click()
    assert heading.get_attribute("aria-sort") is None
    assert chrome.execute_script(COLUMN, "#numbers", "method")[0] == "Ring"


def test_numbers_are_told_from_words(chrome: Any, pages: dict[str, Path]) -> None:
    browsers.opened(chrome, pages["made up"])
    cells = {
        "12.8 % (150)": 12.8,
        "611,349,152": 611349152,
        "2.9e-07": 2.9e-7,
        "−1.5": -1.5,
        "1.48×": 1.48,
        "± 0.5 s": 0.5,
        "0.08 [0.07, 0.09]": 0.08,
    }
    cells |= dict.fromkeys(("0-11", "8xL40", "–", "", "ok", "latency.csv:2"))  # type: ignore[arg-type]
    cells |= {"0.7 × against 1.16 ×, which is said of a hybrid": None}  # type: ignore[dict-item]
    assert chrome.execute_script("return arguments[0].map(number)", [*cells]) == [*cells.values()]
    assert chrome.execute_script("return [number('∞') === Infinity, number('−∞') === -Infinity]") == [
        True,
        True,
    ]


def test_every_numeric_column_of_the_committed_page_sorts(chrome: Any, pages: dict[str, Path]) -> None:
    browsers.opened(chrome, pages["committed"])
    wrong = chrome.execute_script(
        """
        const wrong = [];
        for (const heading of document.querySelectorAll(".sortable th.number")) {
          for (const sign of [1, -1]) {
            heading.querySelector("button").click();
            const rows = [...heading.closest("table").tBodies[0].rows];
            const found = rows.map((row) => value(row.cells[heading.cellIndex], true));
            const numbers = found.filter((one) => one !== null);
            const right = numbers.every((one, at) => at === 0 || sign * one >= sign * numbers[at - 1]);
            if (!right || found.slice(0, numbers.length).includes(null)) wrong.push(heading.textContent);
          }
        }
        return wrong;
        """
    )
    assert wrong == []


def test_the_filter_and_the_choice_of_a_verdict(chrome: Any, pages: dict[str, Path]) -> None:
    browsers.opened(chrome, pages["made up"])
    field = chrome.find_element("css selector", "#published_vs_ours input")
    field.send_keys("row 3 WORD")
    assert chrome.execute_script(COLUMN, "#published_vs_ours", "name")[0] == "row 3"
    rows = len(chrome.execute_script(COLUMN, "#published_vs_ours", "name"))
    output = chrome.find_element("css selector", "#published_vs_ours output").text
    assert 0 < rows < 40 and output == f"{rows} of 40 rows"
    choice = chrome.find_element("css selector", "#claims select")
    labels = [option.text for option in choice.find_elements("tag name", "option")]
    assert labels == ["all", "confirmed (2)", "not confirmed (1)", "not testable (1)"]
    choice.send_keys("confirmed")
    assert chrome.execute_script(COLUMN, "#claims", "claim") == ["<b>fast</b> & small", "large"]
