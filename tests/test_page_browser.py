"""A run's page in a real browser: no errors, figures drawn, tabs and filters, phone and dark."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfsc_tune.pages.page import write_page
from dfsc_tune.results import load
from tests.support.synthetic_run import CATEGORY, make_run

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (set CHROMIUM to its path)"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("run"), categories=(CATEGORY, "box"), error="<b>broken</b>"
    )
    write_page(load(folder), None, folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(browser, page_file: Path) -> Iterator[object]:
    """The page, open; the test fails if it logs an error, throws, or asks for the network."""
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    # Patient with a busy machine.
    opened.set_default_timeout(120_000)
    problems: list[str] = []
    opened.on("console", lambda x: problems.append(x.text) if x.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "request",
        lambda x: None if x.url.startswith(("file:", "data:", "blob:")) else problems.append(x.url),
    )
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert problems == []


def scroll_through(page) -> None:
    """Brings every figure of the open tab near, so that it is drawn."""
    for figure in page.query_selector_all(".figure"):
        if figure.is_visible():
            figure.scroll_into_view_if_needed()
            page.wait_for_function("x => x.dataset.drawn && x.querySelector('svg')", arg=figure)


def test_every_figure_is_drawn(page) -> None:
    scroll_through(page)
    shown = [x for x in page.query_selector_all(".figure") if x.is_visible()]
    assert len(shown) == 10
    for figure in shown:
        # Marks of any kind: points, bars, lines or the panes of parallel coordinates.
        assert figure.query_selector(".point, .js-line, .bars path, .parcoords") is not None


def test_tabs_show_one_category_at_a_time(page) -> None:
    panels = page.query_selector_all(".panel")
    assert [panel.is_visible() for panel in panels] == [True, False]
    page.click("#tab-1")
    assert [panel.is_visible() for panel in panels] == [False, True]
    assert page.get_attribute("#tab-1", "aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    assert [panel.is_visible() for panel in panels] == [True, False]


def test_the_filter_keeps_matching_trials(page) -> None:
    section = "#panel-0 section.trials"
    page.fill(f"{section} input.filter", "pruned sampler")
    rows = [x for x in page.query_selector_all(f"{section} tbody tr") if x.is_visible()]
    assert rows
    assert all("pruned" in row.inner_text() for row in rows)
    assert page.inner_text(f"{section} .shown") == f"{len(rows)} of 40 shown"


def test_the_chosen_threshold_moves_the_line(page) -> None:
    section = "#panel-0 section.thresholds"
    scroll_through(page)
    line = f"document.querySelector('{section} .figure').layout.shapes[0].x0"
    before = page.evaluate(line)
    page.select_option(f"{section} select.threshold", index=3)
    page.wait_for_function(f"{line} !== {before}")
    marked = page.query_selector_all(f"{section} tr.marked")
    assert len(marked) == 1
    threshold = float(marked[0].query_selector("td:nth-child(2)").inner_text())
    assert page.evaluate(line) == pytest.approx(threshold)


def test_a_phone_needs_no_sideways_scrolling(page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_dark_mode_recolours_figures_and_print_is_light_narrow_and_whole(page) -> None:
    scroll_through(page)
    color = "document.querySelector('.figure[data-drawn]').layout.font.color"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{color} !== '{light}'")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(color) == light
    assert all(panel.is_visible() for panel in page.query_selector_all(".panel"))
    assert page.evaluate("document.querySelectorAll('.figure:not([data-drawn])').length") == 0
    widths = "[...document.querySelectorAll('.figure .main-svg')].map(x => x.clientWidth)"
    assert max(page.evaluate(widths)) <= 720
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert [x.is_visible() for x in page.query_selector_all(".panel")] == [True, False]


def test_errors_of_trials_stay_text(page) -> None:
    assert "<b>broken</b>" in page.inner_text("main")


def test_ten_thousand_trials_open_quickly(browser, tmp_path: Path) -> None:
    seconds: dict[int, list[float]] = {40: [], 10_000: []}
    for num_trials in seconds:
        folder = make_run(tmp_path / str(num_trials), num_trials=num_trials)
        write_page(load(folder), None, folder / "report.html")
    for num_trials in 3 * list(seconds):
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        opened.goto((tmp_path / str(num_trials) / "report.html").as_uri(), timeout=120_000)
        seconds[num_trials].append(time.perf_counter() - start)
        opened.close()
    # On a machine too busy to open even a small page in time, at least not much longer than it.
    assert min(seconds[10_000]) < max(3, 1.5 * min(seconds[40]))
