"""The HTML page in a real browser: no errors, no requests, no sideways scrolling, filters and keys that work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, chromium
from test_report_html import DRAWN, HOSTILE, SHOWN, hostile

from bnfold.report import as_html
from bnfold.results import Comparison

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SITES = tuple(
    replace(DRAWN, name=f"/stage.{i}/a/long/path/of/modules/in/a/model/bn/BatchNormalization_{i}") for i in range(40)
)
REPORT = replace(SHOWN, sites=(*SITES, *SHOWN.sites[1:]))
PAGES = {
    "conversion": REPORT,
    "hostile": hostile(REPORT),
    "comparison": Comparison("1", "a.onnx", "b.onnx", SHOWN.verification, SHOWN.latency),
}
SCREENS = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The address of every page."""
    folder = tmp_path_factory.mktemp("pages")
    for name, result in PAGES.items():
        (folder / f"{name}.html").write_text(as_html.dumps(result), "utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in PAGES}


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_errors_requests_or_sideways_scrolling(
    name: str, width: int, scheme: str, browser: Browser, pages: dict[str, str], tmp_path: Path
) -> None:
    browser.open(pages[name], width=width, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true })")
    assert browser.problems == []
    assert browser.requests == [pages[name]]
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5_000
    # Dark paper under a dark scheme, light paper under a light one.
    red = browser.evaluate("+getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (red < 64) == (scheme == "dark")


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("<script>throw new Error('planted')</script>", "planted"),
        ("<script>console.error('planted')</script>", "planted"),
        ("<script>Promise.reject(new Error('planted'))</script>", "planted"),
        ('<img src="missing.png">', "ERR_FILE_NOT_FOUND"),
    ],
)
def test_errors_in_a_page_are_noticed(planted: str, found: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(f"<!DOCTYPE html><title>x</title>{planted}", "utf-8")
    browser.open(path.as_uri())
    assert len(browser.problems) == 1
    assert found in browser.problems[0]


def test_a_script_that_got_into_a_page_would_not_run(browser: Browser, pages: dict[str, str], tmp_path: Path) -> None:
    text = as_html.dumps(REPORT).replace("</main>", "<script>document.title = 'taken'</script></main>")
    (tmp_path / "bad.html").write_text(text, "utf-8")
    browser.open((tmp_path / "bad.html").as_uri())
    assert browser.evaluate("document.title") == "bnfold convert: net.onnx"
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_hostile_names_are_shown_as_they_are(browser: Browser, pages: dict[str, str]) -> None:
    browser.open(pages["hostile"])
    shown = browser.evaluate("document.querySelector('details.site .name').textContent")
    assert shown.startswith(HOSTILE[:40])


def visible(browser: Browser) -> int:
    return browser.evaluate("[...document.querySelectorAll('details.site')].filter(row => row.offsetHeight > 0).length")


def choose(browser: Browser, field: str, value: str) -> None:
    event = "input" if field == "search" else "change"
    browser.evaluate(
        f"(() => {{ const it = document.getElementById('{field}'); it.value = '{value}';"
        f" it.dispatchEvent(new Event('{event}')) }})()"
    )


def test_search_and_filters(browser: Browser, pages: dict[str, str]) -> None:
    browser.open(pages["conversion"])
    total = len(REPORT.sites)
    assert visible(browser) == total
    choose(browser, "search", "STAGE.7 transpose")
    assert visible(browser) == 1
    assert browser.evaluate("document.getElementById('shown').textContent") == f"1 of {total} entries"
    choose(browser, "search", "no such thing")
    assert visible(browser) == 0
    assert browser.evaluate("document.getElementById('none').hidden") is False
    choose(browser, "search", "")
    for field, value, number in [("status", "kept", 4), ("reason", "shared-value", 2), ("kind", "hand-written", 0)]:
        choose(browser, field, value)
        assert visible(browser) == number
    choose(browser, "reason", "")
    assert visible(browser) == 1


def test_the_page_works_by_keyboard(browser: Browser, pages: dict[str, str]) -> None:
    browser.open(pages["conversion"])
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    for _ in range(20):
        browser.press("Tab", 9)
        if browser.evaluate("document.activeElement.parentElement.className") == "site":
            break
    else:
        pytest.fail("the first entry of the list cannot be reached")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.parentElement.open") is True
    assert (
        browser.evaluate(
            "document.activeElement.parentElement.querySelector('svg.graph').getBoundingClientRect().width"
        )
        > 50
    )


def test_everything_is_printed(browser: Browser, pages: dict[str, str]) -> None:
    browser.open(pages["conversion"])
    closed = browser.evaluate("document.querySelectorAll('details:not([open])').length")
    assert closed > len(REPORT.sites)
    choose(browser, "search", "no such thing")
    # What printing does to the page is undone when it is over, so it is looked at while it happens.
    browser.evaluate(
        "addEventListener('beforeprint', () => { window.printed = ["
        " document.querySelectorAll('details:not([open])').length,"
        " [...document.querySelectorAll('details.site')].filter(row => row.offsetHeight > 0).length ] })"
    )
    assert browser.pdf().startswith(b"%PDF")
    assert browser.evaluate("window.printed[0]") == 0
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == closed
    browser.open(pages["conversion"], media="print")
    choose(browser, "search", "no such thing")
    assert visible(browser) == len(REPORT.sites)


def test_without_scripts_everything_is_there_but_the_filters(browser: Browser, pages: dict[str, str]) -> None:
    browser.open(pages["conversion"], scripts=False)
    assert visible(browser) == len(REPORT.sites)
    assert browser.evaluate("document.querySelector('.filters').offsetHeight") == 0
    assert browser.evaluate("document.querySelector('details.site').textContent").find("BatchNormalization_0") > 0
