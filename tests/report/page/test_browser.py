"""The page in a real browser: it opens without an error or a request, hovers and slides.

Needs playwright and a Chromium (`apt install chromium`); skipped where either is missing. With
KVPARETO_SCREENSHOTS set to a folder, pictures of the page are kept there.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvpareto.cli import run

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Watched:
    """A page and everything it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": 1000, "height": 900}, **options)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("figure#frontier svg")


@pytest.fixture
def report(plan_file: Path, receipt_file: Path, tmp_path: Path) -> Path:
    output = tmp_path / "report.html"
    assert run(["report", str(plan_file), str(receipt_file), "-o", str(output)]) == 0
    return output


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_error_or_request(browser: Any, report: Path, scheme: str) -> None:
    watched = Watched(browser, report, color_scheme=scheme)
    assert watched.errors == []
    assert watched.requests == [report.as_uri()]
    figures = [f.get_attribute("id") for f in watched.page.query_selector_all("figure.part")]
    assert figures == ["frontier", "memory", "ttft", "tpot", "chunk", "accuracy", "receipt-1"]
    if folder := os.environ.get("KVPARETO_SCREENSHOTS"):
        watched.page.screenshot(path=Path(folder) / f"report-{scheme}.png", full_page=True)
    watched.page.close()


def test_a_plan_of_llama_cpp_says_what_lies_where(
    browser: Any, placed_file: Path, plan_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report.html"
    assert run(["report", str(placed_file), "-o", str(output)]) == 0
    watched = Watched(browser, output)
    said = watched.page.text_content("#answer")
    best = json.loads(placed_file.read_text(encoding="utf-8"))["recommended"]
    assert watched.page.text_content("#answer .config") == best["config"]
    assert f"{best['placement']['device_layers']} of {best['placement']['layers']} layers" in said
    assert best["placement"]["command"] in said
    watched.page.fill("#budget", "0")
    assert best["placement"]["command"] not in watched.page.text_content("#answer")
    assert watched.errors == []
    watched.page.close()
    both = [str(plan_file), str(placed_file)]
    assert run(["report", "--compare", *both, "-o", str(output)]) == 0
    watched = Watched(browser, output)
    rows = watched.page.query_selector_all("figure#compare > .scroll tbody tr")
    assert [best["config"] in row.text_content() for row in rows] == [False, True]
    watched.page.select_option("#plan", "1")
    assert watched.page.text_content("#answer .config") == best["config"]
    assert watched.errors == []
    watched.page.close()


def test_open_numbers_stay_open_and_narrow_pages_fit(browser: Any, report: Path) -> None:
    page = Watched(browser, report).page
    page.click("figure#memory summary")
    page.focus("#context")
    page.keyboard.press("ArrowLeft")
    assert page.query_selector("figure#memory details").get_attribute("open") is not None
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_selector("figure#memory svg[width='368']")  # drawn anew, less the margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()


def test_everything_that_is_asked_for_has_a_name(browser: Any, report: Path) -> None:
    page = Watched(browser, report).page
    fields = page.query_selector_all("input, select")
    assert len(fields) >= 3
    for field in fields:
        label = page.query_selector(f"label[for={field.get_attribute('id')}]")
        assert label is not None
        assert label.text_content().strip()
    names = [b.get_attribute("aria-label") for b in page.query_selector_all(".tools button")]
    assert len(set(names)) == len(names) == 2 * len(page.query_selector_all("figure.part"))
    headings = [h.text_content() for h in page.query_selector_all("th")]
    assert all(text and text.strip() for text in headings)
    page.close()


def test_sliders_show_the_answers_in_the_data(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    page = watched.page
    (plan,) = json.loads(page.text_content("#data"))["plans"]
    for place, budget in ((0, plan["budgets"][0]), (24, plan["budgets"][24])):
        page.fill("#budget", str(place))
        answers = next(a for a in plan["answers"] if a["context"] == 16384)
        index = answers["recommended"][place]
        shown = page.text_content("#answer")
        assert f"{budget / 1e9:.2f} GB" in shown
        if index is None:
            assert "Nothing is safe" in shown
        else:
            assert page.text_content("#answer .config") == answers["points"][index]["config"]
    page.fill("#context", "0")
    first = plan["answers"][0]
    best = first["points"][first["recommended"][24]]
    assert page.text_content("#answer .config") == best["config"]
    assert f"{best['total'] / 1e9:.2f} GB" in page.text_content("#answer")
    assert watched.errors == []
    page.close()


def test_keys_move_a_slider(browser: Any, report: Path) -> None:
    page = Watched(browser, report).page
    page.focus("#budget")
    before = page.text_content("#answer h2")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#answer h2") != before
    page.close()


def test_hovering_a_point_names_its_configuration(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    box = watched.page.query_selector("figure#frontier g[data-mark=dot] > *").bounding_box()
    watched.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    watched.page.wait_for_selector("figure#frontier g[aria-label=tip] text")
    assert "keeps" in watched.page.text_content("figure#frontier g[aria-label=tip]")
    assert watched.errors == []
    watched.page.close()


def test_every_figure_has_a_table_and_a_name(browser: Any, report: Path) -> None:
    page = Watched(browser, report).page
    for figure in page.query_selector_all("figure.part"):
        assert len(figure.query_selector_all("tbody tr")) >= 2
        assert figure.query_selector("svg").get_attribute("aria-label")
    page.close()


def test_figures_are_saved_as_files(browser: Any, report: Path) -> None:
    page = Watched(browser, report).page
    with page.expect_download() as download:
        page.click("figure#memory button:has-text('SVG')")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "var(--" not in text
    page.close()
