"""The HTML report as a file: what it says first, that it is safe, small, whole and the same again."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from page_figures import figures_of
from tiny_trace import api, fact, kernel, memcpy, open_tiny, os_call, process, string, thread_name, write_sqlite

from nsyskit.analysis.analyze import analyze
from nsyskit.analysis.limits import ModelLoad
from nsyskit.analysis.timeline import events, timelines
from nsyskit.cli import cli
from nsyskit.errors import MissingTableError
from nsyskit.ingest import open_trace
from nsyskit.report.html import CHAPTERS, library_file, render_html, render_timeline, with_rates
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.words import ADVICE, HEADLINES, PARTS
from nsyskit.trace import Window
from nsyskit.units import human_bytes, human_ns

DEMO = Path(__file__).resolve().parents[2] / "traces" / "demo" / "trace.sqlite"
TWO_GPUS = DEMO.parents[1] / "two-gpus-layer-split" / "trace.sqlite"
EVIL = "<script>alert(1)</script><b onmouseover=x>&\"'"
ROWS = (
    process(f"/home/zebra77/{EVIL}"), thread_name(EVIL),
    api(EVIL, 0, 1), api("cudaLaunchKernel", 0, 2, corr=1), kernel(f"void k<{EVIL}>(int)", 3, 8, short=EVIL, corr=1),
    api("cudaMalloc", 9, 14), kernel("k", 20, 22), memcpy("DtoH", 22, 24, 64),
)  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of the file: visible text, elements, packed data by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.packed: dict[str, bytes] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements are closed in order"

    def handle_data(self, data: str) -> None:
        attrs = self.elements[-1][1] if self.elements else {}
        if self.open and self.open[-1] == "script" and attrs.get("type") == "application/octet-stream":
            self.packed[str(attrs["id"])] = zlib.decompress(base64.b64decode(data))
        elif not self.open or self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(trace, **options: str) -> tuple[str, Page]:
    told = analyze(trace)
    try:
        drawn = timelines(trace, window=told.window)
    except MissingTableError:
        drawn = None
    html = render_html(told, timelines=drawn, **options)
    return html, Page(html)


def test_the_first_screen_says_what_bounds_the_run():
    _, page = page_of(open_trace(DEMO))
    start = page.said[: page.said.index("Phases and steps What a token cost")]
    assert "What bounds this run The GPU waits for the CPU host-bound" in start
    parts = (
        "Decode, ms per token", "GPU busy", "Most of it idle because 16.00 ms host: CPU runs the",
        "Worth trying first --backend-sampling",
        "Kernel time is spent in matmul_quant", "At most this much faster without",
        "Where each GPU's time went", "Where the driving threads' time went", "How far to trust this",
    )  # fmt: skip
    for part in parts:
        assert part in start
    assert "CUDA graphs were traced node by node" in start


def test_a_run_on_the_cpu_says_what_it_printed_and_hides_what_it_lacks(tmp_path):
    bench = (
        '[{"build_commit": "a", "n_prompt": 0, "n_gen": 8, "n_depth": 0, "avg_ts": 50.0, "avg_ns": 160000000}, '
        '{"build_commit": "a", "n_prompt": 0, "n_gen": 16, "n_depth": 0, "avg_ts": 25.0, "avg_ns": 640000000}]'
    )
    told = analyze(open_tiny(tmp_path, os_call("poll", 0, 8)), logs=(bench,))
    page = Page(render_html(told))
    assert "What bounds this run No verdict CUDA was not collected" in page.said
    assert "Decode, ms per token 30.00 median of 2 printed means, slowest 40.00 by the program's own clock" in page.said
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert sections == ["overview", "program", "host", "provenance"]  # no timelines were asked for
    assert "nothing to show No advice: no llama.cpp steps were found in this trace." in page.said


@pytest.mark.parametrize(("end", "near"), [(85, True), (51, False)])
def test_a_verdict_near_the_border_says_so(tmp_path, end, near):
    """Busy 85 of 100, then 51 of 100."""
    rows = [api("cudaLaunchKernel", 0, 1, corr=1), kernel("k", 1, end, corr=1), kernel("k", 100, 101)]
    assert ("near the border: from 85.0 % busy on" in page_of(open_tiny(tmp_path, *rows))[1].said) is near


def test_a_gpu_is_told_once_where_all_of_the_window_is_steps():
    _, page = page_of(open_trace(TWO_GPUS))
    bars = [attrs["aria-label"] for tag, attrs in page.elements if tag == "div" and attrs.get("class") == "bar"]
    names = [label.split(":")[0] for label in bars if label and label.startswith("GPU ")]
    assert sorted(names) == ["GPU 0 NVIDIA GeForce RTX 3060", "GPU 1 NVIDIA GeForce RTX 3060"]


def test_slow_steps_are_held_against_their_like():
    told = analyze(open_trace(DEMO))
    steps = told.sections["steps"].steps
    slow = steps.filter(pl.col("index") == 40).row(0, named=True)
    like = steps.filter(
        (pl.col("phase") == slow["phase"]) & (pl.col("n_tokens") == slow["n_tokens"]) & (pl.col("index") != 40)
    )
    page = Page(render_html(told))
    assert "step-40" in [attrs["id"] for tag, attrs in page.elements if tag == "details"]
    assert f"Step 40 against the median of {like.height} other decode steps of as many tokens" in page.said
    spent, median = slow["submit_ns"], float(like["submit_ns"].median())
    row = f"idle, CPU is launching work {human_ns(spent)} {human_ns(median)} +{human_ns(spent - median)}"
    assert row in page.said


def test_rates_of_kernels_stand_where_the_bytes_are_known():
    """Only the kernels of one token have the rate of their format."""
    told = analyze(open_trace(DEMO), load=ModelLoad(10**8, {"Q8_0": 10**8}))
    rate = told.sections["limits"].by_quant["gb_per_s"][0]
    rows = with_rates(told).sections["kernel_sum"].rows
    assert set(rows.drop_nulls("gb_per_s").select("quant", "batch", "gb_per_s").rows()) == {("Q8_0", 1, rate)}
    assert f"{rate:.1f}" in Page(render_html(told)).said
    without = analyze(open_trace(DEMO))
    assert with_rates(without) is without


def test_sections_in_the_order_of_the_house():
    _, page = page_of(open_trace(DEMO))
    sections = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert sections == [
        "overview", "steps", "timelines", "depth", "advice", "kernels", "bubbles", "sync", "launch", "copies",
        "startup", "program", "host", "provenance",
    ]  # fmt: skip


def test_the_bars_parts_are_the_ledgers(tmp_path):
    """Kernels 3–8 and 20–22, a copy 22–24 in a window 3–24: idle 8–20, of it 5 in cudaMalloc."""
    _, page = page_of(open_tiny(tmp_path, *ROWS))
    grown = [int(found) for tag, attrs in page.elements if tag == "span" and (found := _grow(attrs))]
    assert grown[:4] == [7, 2, 7, 5]
    assert sum(grown[:4]) == 24 - 3


def _grow(attrs: dict[str, str | None]) -> str:
    found = re.match(r"flex-grow:(\d+)", attrs.get("style") or "")
    return found[1] if found else ""


def test_names_of_the_trace_are_text(tmp_path):
    html, page = page_of(open_tiny(tmp_path, *ROWS))
    scripts = [attrs for tag, attrs in page.elements if tag == "script"]
    assert {attrs.get("type") for attrs in scripts} == {None, "application/octet-stream"}
    assert sum(attrs.get("type") is None for attrs in scripts) == 1
    assert not any("onmouseover" in attrs for _, attrs in page.elements)
    assert html.count("<script>alert(1)") == 0
    assert EVIL.split("<b", maxsplit=1)[0] in page.said  # shown, as text
    assert not page.open


def test_figures_do_not_read_names_as_markup(tmp_path):
    _, page = page_of(open_tiny(tmp_path, *ROWS))
    for identifier, content in page.packed.items():
        if identifier.startswith(("figures", "lod-")):
            assert b"<script" not in content
            assert b"<b " not in content


def test_no_secrets(tmp_path):
    secrets = [
        fact("PROCESS_0:ARGS", "--api-key hunter2"), fact("PROCESS_0:CWD", "/home/zebra77/models"),
        string(900, "TOKEN=hunter2"), fact("HOSTNAME", "zebra77-box", table="META_DATA_EXPORT"),
    ]  # fmt: skip
    html, page = page_of(open_tiny(tmp_path, *ROWS, *secrets))
    everything = html + " ".join(content.decode("latin-1") for content in page.packed.values())
    for secret in ("hunter2", "zebra77", "TOKEN"):
        assert secret not in everything


def test_the_same_bytes_again():
    assert page_of(open_trace(DEMO))[0] == page_of(open_trace(DEMO))[0]


def test_every_real_trace_has_a_small_whole_page(real_trace):
    html, page = page_of(open_trace(real_trace))
    assert figures_of(html)
    assert len(html.encode()) < 6_000_000
    assert not page.open
    assert page.said.count("What bounds this run") == 1
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_plotly_beside_the_page(tmp_path):
    html, page = page_of(open_trace(DEMO), plotly="directory")
    assert len(html) < 600_000
    assert "plotly-js" not in page.packed
    assert [attrs["src"] for tag, attrs in page.elements if tag == "script" and "src" in attrs] == ["plotly.min.js"]
    assert library_file().startswith(b"/**\n* plotly.js")


def test_nothing_of_the_network():
    html, _ = page_of(open_trace(DEMO))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert "default-src" in policy[1]
    assert "http" not in policy[1]
    assert not re.search(r'(src|href)="(https?:)?//', html)


def test_figures_stand_in_the_page_and_nowhere_twice():
    html, page = page_of(open_trace(DEMO))
    places = [attrs["data-figure"] for _, attrs in page.elements if "data-figure" in attrs]
    assert sorted(places) == sorted(figures_of(html))


def test_a_window_on_its_own():
    trace = open_trace(DEMO)
    exact = events(trace, Window("explicit", 0, 10**9), title="all of it", cap=100)
    page = Page(render_timeline("demo", exact))
    assert "too many for one figure, so neighbours are put together" in page.said
    assert not page.open


def test_words_for_everything():
    assert HEADLINES.keys() == ADVICE.keys()
    assert PARTS.keys() == PART_COLORS.keys()
    assert len({name for chapter in CHAPTERS for name in chapter.names}) == sum(len(one.names) for one in CHAPTERS)
    assert len({chapter.anchor for chapter in CHAPTERS}) == len(CHAPTERS)


class TestCommands:
    def test_the_models_bytes_tell_the_limits(self, tmp_path):
        target = tmp_path / "report.html"
        argv = ["report", str(DEMO), "-o", str(target), "--model-bytes", "100000000"]
        assert CliRunner().invoke(cli, argv).exit_code == 0
        assert "A decoded token reads 100.0 MB of weights" in Page(target.read_text(encoding="utf-8")).said

    def test_without_a_model_the_limits_are_those_of_what_was_printed(self, tmp_path):
        """The generator's llama-bench prints the size that its truth says a token reads."""
        bench = DEMO.parents[1] / "bench-graph"
        read = json.loads((bench / "truth.json").read_text())["facts"]["weights_read_bytes"]
        target = tmp_path / "report.html"
        assert CliRunner().invoke(cli, ["report", str(bench / "trace.sqlite"), "-o", str(target)]).exit_code == 0
        said = Page(target.read_text(encoding="utf-8")).said
        assert f"A decoded token reads {human_bytes(read)} of weights" in said
        assert "as the program printed it, token embeddings included; --model FILE.gguf tells more" in said

    def test_one_step_in_detail(self, tmp_path):
        target = tmp_path / "report.html"
        assert CliRunner().invoke(cli, ["report", str(DEMO), "-o", str(target), "--step", "40"]).exit_code == 0
        said = Page(target.read_text(encoding="utf-8")).said
        assert "Step 40: decode, 1 tokens, 1.060 ms" in said
        assert "CUDA calls of its thread" in said
        assert "What bounds this run" in said

    def test_markdown_from_analyze(self):
        result = CliRunner().invoke(cli, ["analyze", str(DEMO), "--format", "markdown", "--top", "1"])
        assert result.exit_code == 0
        assert result.stdout.startswith("## The GPU waits for the CPU (`host-bound`)")
        assert result.stdout.count("mul_mat_vec_q") == 1

    def test_report(self, tmp_path):
        target = tmp_path / "report.html"
        argv = ["report", str(DEMO), "-o", str(target), "--around", "+5ms", "--plotly", "directory"]
        result = CliRunner().invoke(cli, argv)
        assert (result.exit_code, result.stdout) == (0, f"{target}\n")
        assert (tmp_path / "plotly.min.js").stat().st_size == len(library_file())
        assert "Around the time asked for" in Page(target.read_text(encoding="utf-8")).said
        again = CliRunner().invoke(cli, argv)
        assert (again.exit_code, "--force" in again.stderr) == (6, True)

    def test_timeline(self, tmp_path):
        target = tmp_path / "t.html"
        argv = ["timeline", str(DEMO), "--from", "+1ms", "--to", "+3ms", "-o", str(target)]
        assert CliRunner().invoke(cli, argv).exit_code == 0
        assert "events in 2.000 ms" in Page(target.read_text(encoding="utf-8")).said

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["report", str(DEMO), "--around", "soon"], "'soon' is not a time"),
            (["timeline", str(DEMO), "--from", "+2ms", "--to", "+1ms"], "ends before it begins"),
        ],
    )
    def test_refusals(self, tmp_path, argv, said):
        result = CliRunner().invoke(cli, [*argv, "-o", str(tmp_path / "x.html")])
        assert (result.exit_code, said in result.stderr) == (2, True)
        assert not (tmp_path / "x.html").exists()

    def test_a_trace_without_rows_has_a_page(self, tmp_path):
        source = write_sqlite(tmp_path / "empty.sqlite", string(1, "x"), api("cuInit", 0, 1))
        target = tmp_path / "x.html"
        assert CliRunner().invoke(cli, ["report", str(source), "-o", str(target)]).exit_code == 0
