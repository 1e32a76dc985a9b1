"""The report in a real browser: what a person sees, clicks, types and hovers over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import TRACES, Opened, write_report
from served_run import served_run

SIZES = [(width, theme) for width in (380, 1600) for theme in ("light", "dark")]
TIMELINE = "#figure-timeline"


def status(opened: Opened, name: str = "timeline") -> str:
    return opened.page.locator(f"#status-{name}").inner_text()


def zoom(opened: Opened, start: float, end: float, figure: str = TIMELINE) -> None:
    """Zoom a figure to a part of its time axis, as dragging does."""
    opened.page.evaluate(
        """([id, from, to]) => Plotly.relayout(
              document.querySelector(id), { 'xaxis.range[0]': from, 'xaxis.range[1]': to })""",
        [figure, start, end],
    )
    opened.page.wait_for_timeout(400)


def test_the_verdict_is_read_before_any_script_has_run(chromium, report_file):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(report_file.as_uri())
    assert page.locator("h1").inner_text().startswith("The GPU waits for the CPU")
    assert page.locator(".verdict").get_attribute("data-bottleneck") == "host-bound"
    assert page.locator(".bar").first.bounding_box()["width"] > 500
    page.close()


def test_nothing_is_complained_about_and_nothing_is_fetched(guarded):
    for place in guarded.page.locator(".plot").all():
        guarded.show(f"#{place.get_attribute('id')}")
    guarded.page.wait_for_timeout(500)
    assert guarded.complaints == []
    assert [url for url in guarded.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_first_paint(guarded):
    guarded.page.wait_for_load_state()
    paints = guarded.page.evaluate(
        "new Promise(done => setTimeout(() => done(performance.getEntriesByType('paint')[0].startTime), 500))"
    )
    assert paints < 1000


@pytest.mark.parametrize(("width", "theme"), SIZES)
def test_fits_its_window(chromium, report_file, width, theme):
    opened = Opened(chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=theme))
    opened.page.goto(report_file.as_uri())
    opened.show("#figure-steps")
    opened.show(TIMELINE)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if theme == "light" else "rgb(16, 20, 24)")
    assert opened.complaints == []
    opened.page.close()


def test_the_theme_can_be_switched(opened):
    opened.show("#figure-steps")
    opened.page.locator("#theme").click()
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    color = opened.page.evaluate("document.querySelector('#figure-steps')._fullLayout.font.color")
    assert color == "#e6e9ed"


class TestTables:
    TABLE = "#kernels .table:has(caption:text-is('Kernels'))"

    def column(self, opened: Opened, number: int) -> list[float]:
        cells = opened.page.locator(f"{self.TABLE} tbody tr td:nth-child({number})").all()
        return [float(cell.get_attribute("data-value")) for cell in cells]

    def test_sort_by_a_click_and_by_the_keyboard(self, opened):
        counts = self.column(opened, 4)
        button = opened.page.locator(f"{self.TABLE} th:nth-child(4) button")
        button.click()
        assert self.column(opened, 4) == sorted(counts, reverse=True)
        heading = opened.page.locator(f"{self.TABLE} th:nth-child(4)")
        assert heading.get_attribute("aria-sort") == "descending"
        button.focus()
        opened.page.keyboard.press("Enter")
        assert self.column(opened, 4) == sorted(counts)
        assert heading.get_attribute("aria-sort") == "ascending"

    def test_search(self, opened):
        opened.page.locator(f"{self.TABLE} .search").fill("rms norm")
        shown = opened.page.locator(f"{self.TABLE} tbody tr:visible").all_inner_texts()
        assert shown
        assert all("rms_norm" in row for row in shown)
        found = opened.page.locator(f"{self.TABLE} .found").inner_text()
        assert re.fullmatch(rf"{len(shown)} of \d+", found)

    def test_all_rows_on_demand(self, opened):
        rows = opened.page.locator(f"{self.TABLE} tbody tr:visible")
        before = rows.count()
        opened.page.locator(f"{self.TABLE} .fold").click()
        assert rows.count() > before


class TestTimeline:
    def test_zooming_in_draws_finer_columns(self, opened):
        opened.show(TIMELINE)
        opened.page.wait_for_function("document.querySelector('#status-timeline').textContent")
        assert status(opened) == "One column is 43.04 µs (level 1 of 2)."
        zoom(opened, 10, 12)
        assert status(opened) == "One column is 5.380 µs (level 2 of 2)."

    def test_a_columns_parts_sum_to_it_at_every_level(self, opened):
        opened.show(TIMELINE)
        for part in ((0, 44), (10, 12)):
            zoom(opened, *part)
            sums = opened.page.evaluate(
                """id => { const lane = trace => trace.meta.lane === 0 && !trace.meta.hover;
                  const traces = document.querySelector(id).data.filter(lane);
                  return traces[0].y.map((_, at) => traces.reduce((sum, trace) => sum + trace.y[at], 0)); }""",
                TIMELINE,
            )
            assert min(sums) > 0.999
            assert max(sums) < 1.001

    def test_buttons_zoom_without_a_mouse(self, opened):
        opened.show(TIMELINE)
        box = opened.page.locator(".timeline").first
        whole = opened.page.evaluate("id => document.querySelector(id).layout.xaxis.range", TIMELINE)
        box.locator("[data-zoom=in]").focus()
        for _ in range(4):
            opened.page.keyboard.press("Enter")
            opened.page.wait_for_timeout(250)
        assert "level 2 of 2" in status(opened)
        box.locator("[data-zoom=reset]").click()
        opened.page.wait_for_timeout(400)
        assert opened.page.evaluate("id => document.querySelector(id).layout.xaxis.range", TIMELINE) == whole
        assert "level 1 of 2" in status(opened)

    def test_a_bubbles_hover_says_its_length_causes_and_neighbours(self, opened):
        figure = "#figure-events-3"
        opened.show(figure)
        opened.page.wait_for_function("document.querySelector('#status-events-3').textContent")
        middle = opened.page.evaluate(
            """id => { const place = document.querySelector(id), axis = place._fullLayout.xaxis;
              let best = null;
              for (const trace of place.data) if (trace.meta.lane === 0) trace.x.forEach((width, at) => {
                if (!best || width > best.width) best = { width, at: trace.base[at] + width / 2 };
              });
              const lane = place._fullLayout.yaxis, box = place.getBoundingClientRect();
              return [box.left + axis._offset + axis.d2p(best.at), box.top + lane._offset + lane._length / 2]; }""",
            figure,
        )
        opened.page.mouse.move(*middle)
        opened.page.wait_for_selector(f"{figure} .hovertext", timeout=5000)
        said = opened.page.locator(f"{figure} .hovertext").first.text_content()
        assert said.startswith("idle, host ")
        assert re.search(r"bubble of \d+\.\d µs on GPU 0 NVIDIA GeForce RTX 3060", said)
        assert re.search(r"host \d+\.\d %", said)
        assert "after memcpy DtoH" in said
        assert "before memcpy HtoD" in said

    def test_events_narrower_than_a_pixel_are_drawn_once_one_zooms_in(self, opened):
        figure = "#figure-events-2"
        opened.show(figure)
        opened.page.wait_for_function("document.querySelector('#status-events-2').textContent")
        assert "narrower than a pixel are drawn together" in status(opened, "events-2")
        zoom(opened, 200, 260, figure)
        assert status(opened, "events-2").endswith("every one is drawn.")

    def test_a_step_that_is_clicked_is_shown_in_the_timeline(self, opened):
        opened.show("#figure-steps")
        opened.page.evaluate(
            """() => { const place = document.querySelector('#figure-steps');
              place.emit('plotly_click', { points: [{ customdata: place.data[0].customdata[5] }] }); }"""
        )
        opened.page.wait_for_function(f"document.querySelector('{TIMELINE}').layout?.xaxis?.range[0] > 0")
        low, high = opened.page.evaluate("id => document.querySelector(id).layout.xaxis.range", TIMELINE)
        begin, end, _ = opened.page.evaluate("document.querySelector('#figure-steps').data[0].customdata[5]")
        assert low < begin / 1e6 < end / 1e6 < high


def test_a_slow_step_that_is_clicked_opens_its_comparison(opened):
    fold = opened.page.locator("#step-40")
    assert fold.get_attribute("open") is None
    opened.show("#figure-steps")
    opened.page.evaluate(
        """() => { const place = document.querySelector('#figure-steps');
          const points = place.data.flatMap((trace) => trace.customdata ?? []);
          place.emit('plotly_click', { points: [{ customdata: points.find((point) => point[2] === 40) }] }); }"""
    )
    opened.page.wait_for_selector("#step-40[open] table")
    assert "idle, CPU is launching work" in fold.inner_text()


def test_prints_every_figure(opened):
    """Also those that nobody scrolled to: they are drawn while the browser has nothing to do."""
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(place => place.querySelector('.main-svg'))", timeout=60_000
    )
    pdf = opened.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    widths = opened.page.evaluate("[...document.querySelectorAll('.plot')].map(place => place._fullLayout.width)")
    assert max(widths) < 1600


@pytest.mark.parametrize("name", ["bench-graph", "two-gpus-layer-split"])
def test_other_traces(chromium, tmp_path, name):
    opened = Opened(chromium.new_page(viewport={"width": 1200, "height": 900}))
    opened.page.goto(write_report(TRACES / name / "trace.sqlite", tmp_path / "report.html").as_uri())
    for place in opened.page.locator(".plot").all():
        opened.show(f"#{place.get_attribute('id')}")
    assert opened.complaints == []
    opened.page.close()


@pytest.mark.parametrize("width", [380, 1600])
def test_a_served_run(chromium, tmp_path, width):
    """Its requests and GPU samples are drawn, and nothing sticks out."""
    folder = served_run(tmp_path / "run")
    (folder / "trace.sqlite").write_bytes((TRACES / "demo" / "trace.sqlite").read_bytes())
    opened = Opened(chromium.new_page(viewport={"width": width, "height": 900}))
    opened.page.goto(write_report(folder, tmp_path / "report.html").as_uri())
    assert "Time to first token 5.000 ms" in " ".join(opened.page.locator(".tiles").inner_text().split())
    for name in ("requests", "gpu_samples"):
        opened.show(f"#figure-{name}")
    assert opened.page.locator("#figure-gpu_samples .yaxislayer-above").count() == 5
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.complaints == []
    opened.page.close()


AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(chromium, report_file, theme):
    """axe-core finds nothing serious; ``npm install --prefix tests/browser axe-core`` brings it."""
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm install --prefix tests/browser axe-core")
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, color_scheme=theme, bypass_csp=True)
    opened = Opened(context.new_page())
    opened.page.goto(report_file.as_uri())
    opened.show("#figure-steps")
    opened.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = opened.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        {"rule": violation["id"], "where": [node["target"] for node in violation["nodes"]][:3]}
        for violation in found["violations"]
        if violation["impact"] in {"serious", "critical"}
    ]
    assert serious == [], json.dumps(serious, indent=1)
    context.close()
