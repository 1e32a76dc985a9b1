"""A real headless Chromium, and reports to look at in it. Without either the tests are skipped, and say why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.timeline import timelines
from nsyskit.cli.report import with_beside
from nsyskit.ingest import open_trace
from nsyskit.report.html import render_html

TRACES = Path(__file__).resolve().parents[2] / "traces"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; nothing is downloaded.

    It ends with its module: Playwright keeps an event loop running, in which no other test could start its own.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    executable = which("chromium")
    if executable is None:
        pytest.skip("needs chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report_file(tmp_path_factory) -> Path:
    """The report of the demo trace."""
    return write_report(TRACES / "demo" / "trace.sqlite", tmp_path_factory.mktemp("report") / "demo.html")


def write_report(source: Path, target: Path) -> Path:
    trace = open_trace(source)
    told = with_beside(trace, analyze(trace), source)
    target.write_text(render_html(told, timelines=timelines(trace, window=told.window)), encoding="utf-8")
    return target


class Opened:
    """A page and everything it complained about or asked the network for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, said: Any) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)

    def show(self, selector: str) -> None:
        """Scroll to a figure and wait until it is drawn, with its data."""
        self.page.locator(selector).scroll_into_view_if_needed()
        self.page.wait_for_selector(f"{selector} .main-svg", timeout=20_000)


@pytest.fixture
def opened(chromium, report_file) -> Iterator[Opened]:
    """The demo's report in a window of 1600 × 1000, light; its own policy would forbid the test to look inside."""
    yield from _opened(chromium, report_file, bypass_csp=True)


@pytest.fixture
def guarded(chromium, report_file) -> Iterator[Opened]:
    """The same under the page's own policy, as a reader has it."""
    yield from _opened(chromium, report_file, bypass_csp=False)


def _opened(chromium: Any, file: Path, *, bypass_csp: bool) -> Iterator[Opened]:
    size = {"width": 1600, "height": 1000}
    context = chromium.new_context(viewport=size, color_scheme="light", bypass_csp=bypass_csp)
    with_page = Opened(context.new_page())
    with_page.page.goto(file.as_uri())
    yield with_page
    context.close()
