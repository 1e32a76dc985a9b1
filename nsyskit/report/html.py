"""The report as one HTML file: opens offline, says first what bounds the run, draws its figures when they are seen.

The first screen is plain HTML and CSS. Figures are drawn by the plotly.js within the file, and only once somebody
scrolls to them. Ids are fixed and nothing of the day enters, so that equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import polars as pl

from nsyskit import __version__
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.devices import DevicesResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.timeline import EventsResult, Timelines
from nsyskit.report.figures import Drawing
from nsyskit.report.page import chapters as _chapters  # noqa: F401 - they register their results
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.overview import overview
from nsyskit.report.page.payload import asset, packed_json, packed_plotly, plotly_js
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import count, table, words
from nsyskit.report.page.timelines import Drawn
from nsyskit.report.words import absent
from nsyskit.units import human_ns, printable

Plotly = Literal["inline", "directory"]
PLOTLY_FILE: Final = "plotly.min.js"


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the page: its anchor, its heading, what it is for, and the sections of the report it shows."""

    anchor: str
    title: str
    lead: str
    names: tuple[str, ...]


CHAPTERS: Final = (
    Chapter("steps", "Phases and steps", "What a token cost, step by step.", ("steps", "step")),
    Chapter("depth", "Depth", "What a longer context costs a step.", ("depth",)),
    Chapter(
        "advice",
        "Experiments",
        "Each with its number, its bound and what would refute it.",
        ("advice",),
    ),
    Chapter(
        "kernels",
        "Kernel hotspots",
        "What the GPU spent its working time on.",
        ("category_sum", "family_sum", "quant_sum", "kernel_sum"),
    ),
    Chapter(
        "bubbles",
        "Bubbles",
        "Stretches in which a GPU did nothing, with what the CPU did meanwhile.",
        ("gaps", "host_functions"),
    ),
    Chapter("gpus", "Several GPUs", "Which worked when, and which waited for another.", ("several_gpus",)),
    Chapter("sync", "Sync", "A long wait for a busy GPU is healthy; a wait while it idles is not.", ("sync",)),
    Chapter(
        "launch",
        "Launches",
        "How long launching takes, and how far ahead of the GPU the CPU is.",
        ("launch", "kern_exec_sum"),
    ),
    Chapter(
        "copies",
        "Copies",
        "What moved between host and GPUs, how large and how fast.",
        ("copies", "mem_time_sum", "mem_size_sum"),
    ),
    Chapter(
        "limits", "Limits", "What a token must read and a prompt must compute, against what was measured.", ("limits",)
    ),
    Chapter("roles", "Tensors", "Which of the model's matrices take the time, and how fast each is read.", ("roles",)),
    Chapter(
        "requests",
        "Requests",
        "What the clients saw: time to the first token, between tokens, and what the server added.",
        ("requests",),
    ),
    Chapter(
        "gpu-memory",
        "GPU memory and clocks",
        "What was allocated; the GPUs' own counters.",
        ("gpu_memory", "gpu_samples"),
    ),
    Chapter("startup", "Start", "From the process's start to its first token.", ("startup",)),
    Chapter("program", "Program", "What it printed: its own rates beside the trace's.", ("program",)),
    Chapter(
        "host",
        "Host",
        "What the CPU's threads did, by CUDA call and by OS call.",
        ("threads", "osrt_by_thread", "api_sum", "osrt_sum", "nvtx_sum"),
    ),
)

WINDOWS: Final = {
    "steady": "looked at: the steady part, after warm-up",
    "gpu": "looked at: first to last GPU operation",
    "all": "looked at: all of it",
    "explicit": "looked at: the window asked for",
}

_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'self' file:; style-src 'unsafe-inline'; img-src data: blob:"
)


def render_html(report: Report, *, timelines: Timelines | None = None, plotly: Plotly = "inline") -> str:
    """A self-contained page; with ``plotly="directory"`` it loads ``plotly.min.js`` from beside it.

    Everything that comes from the trace is escaped. The page forbids itself the network.
    """
    report = with_rates(report)
    made = Sections()
    drawn = Drawn(made)
    told = [(chapter.anchor, chapter.title, _chapter(chapter, report, made)) for chapter in CHAPTERS]
    if timelines is not None:
        told.insert(1, ("timelines", "Timelines", drawn.chapter(timelines)))
    chapters = [chapter for chapter in told if chapter[2]]
    chapters.append(("provenance", "Provenance", _provenance(report, made.empty)))
    content = [
        _head_bar(report, [(anchor, title) for anchor, title, _ in chapters]),
        tag("main", overview(report), *(_section(*chapter) for chapter in chapters), id="main"),
        tag("footer", text(f"nsyskit {__version__}")),
    ]
    return page(report.meta.name, content, made.figures, plotly=plotly, details=drawn.packets)


def render_timeline(name: str, exact: EventsResult, *, plotly: Plotly = "inline") -> str:
    """A page of one window's events."""
    made = Sections()
    drawn = Drawn(made)
    window = exact.window
    facts = tag("p", tag("strong", text("nsyskit")), tag("span", text(name)), class_="facts")
    lead = f"From {window.start_ns:,} ns to {window.end_ns:,} ns of the trace's clock."
    body = tag(
        "section", tag("h1", text("Timeline")), tag("p", text(lead), class_="lead"), drawn.only(exact), id="overview"
    )
    content = [tag("header", facts), tag("main", body, id="main"), tag("footer", text(f"nsyskit {__version__}"))]
    return page(name, content, made.figures, plotly=plotly, details=drawn.packets)


def page(
    title: str, body: Sequence[Html], figures: dict[str, Drawing], *, plotly: Plotly, details: Sequence[Html] = ()
) -> str:
    """A whole document around ``body``; ``details`` are further packed data."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", text(f"{title} – nsyskit")),
        tag("style", Html(asset("page.css"))),
    )
    data = packed_json("figures", {name: _without_template(drawn) for name, drawn in figures.items()})
    library = packed_plotly() if plotly == "inline" else tag("script", src=PLOTLY_FILE, defer=True)
    script = tag("script", Html(asset("page.js")))
    skip = tag("a", text("Skip to the report"), href="#main", class_="skip")
    whole = tag("html", head, tag("body", skip, *body, data, *details, script, library), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _without_template(drawn: Drawing) -> Drawing:
    """The page brings the template."""
    layout = {key: value for key, value in drawn["layout"].items() if key != "template"}
    return {"data": drawn["data"], "layout": layout}


def library_file() -> bytes:
    """What ``plotly="directory"`` expects beside the page, under ``PLOTLY_FILE``."""
    return plotly_js()


def _head_bar(report: Report, anchors: Sequence[tuple[str, str]]) -> Html:
    meta, window = report.meta, report.window
    facts = [meta.name, *_programs(report)]
    facts += sorted({gpu.name for gpu in meta.gpus})
    if window is not None:
        facts.append(f"{WINDOWS[window.kind]}: {human_ns(window.dur_ns)}")
    links = (tag("a", text(title), href=f"#{anchor}") for anchor, title in anchors)
    theme = tag("button", text("Light / dark"), type="button", id="theme")
    return tag(
        "header",
        tag("p", tag("strong", text("nsyskit")), *(tag("span", text(fact)) for fact in facts), class_="facts"),
        tag("nav", *links, theme, aria_label="Sections"),
    )


def with_rates(report: Report) -> Report:
    """Kernels of one token with ``gb_per_s``, the rate at which their format's matrices are read, where it is known."""
    kernels: SumResult | None = report.sections.get("kernel_sum")
    limits: LimitsResult | None = report.sections.get("limits")
    if kernels is None or limits is None or limits.by_quant.is_empty():
        return report
    single = pl.col("category").str.starts_with("matmul") & (pl.col("batch") == 1)
    rates = limits.by_quant.select("quant", rate="gb_per_s")
    rows = kernels.rows.join(rates, on="quant", how="left", maintain_order="left")
    rows = rows.with_columns(gb_per_s=pl.when(single).then(pl.col("rate"))).drop("rate")
    return replace(report, sections={**report.sections, "kernel_sum": replace(kernels, rows=rows)})


def _programs(report: Report) -> list[str]:
    """The programs that drove a GPU, or made most OS calls."""
    devices: DevicesResult | None = report.sections.get("devices")
    os_threads: OsThreadsResult | None = report.sections.get("osrt_by_thread")
    pids = {pid for ledger in devices.devices for pid in ledger.use.pids} if devices else set()
    pids = pids or {thread.pid for thread in (os_threads.threads[:1] if os_threads else ())}
    names = {report.meta.program_of(pid) for pid in pids}
    return sorted(name for name in names if name)


def _section(anchor: str, title: str, body: Html) -> Html:
    heading = tag("h2", text(title), id=f"{anchor}-title")
    return tag("section", heading, body, id=anchor, aria_labelledby=f"{anchor}-title")


def _chapter(chapter: Chapter, report: Report, made: Sections) -> Html:
    shown = [block(result, made, name) for name in chapter.names if (result := report.sections.get(name)) is not None]
    if not any(shown):
        return NOTHING
    return join([tag("p", text(chapter.lead), class_="lead"), *shown])


def _provenance(report: Report, empty: Sequence[str]) -> Html:
    meta, window = report.meta, report.window
    facts = [
        ("trace", meta.name),
        ("container", meta.container),
        ("nsys", meta.nsys_version or "unknown"),
        ("export schema", meta.schema_version or "unknown"),
        ("collected", ", ".join(source for source, there in meta.sources.items() if there) or "nothing"),
        ("not collected", ", ".join(source for source, there in meta.sources.items() if not there) or "–"),
        ("GPUs of the machine", ", ".join(gpu.name for gpu in meta.gpus) or "unknown"),
        ("nsyskit", __version__),
    ]
    if window is not None:
        facts.append(("window", f"{window.kind}: {window.start_ns:,} ns to {window.end_ns:,} ns of the trace's clock"))
    if missing := absent(report):
        facts.append(("sections without a source", ", ".join(missing)))
    if empty:
        facts.append(("nothing to show", " ".join(empty)))
    listed = [item for name, value in facts for item in (tag("dt", text(name)), tag("dd", text(printable(value))))]
    rows = [{"table": name, "rows": number} for name, number in meta.tables.items()]
    tables = table("Rows by nsys table", rows, [words("table", lambda row: row["table"]), count("rows", "rows")])
    return join([tag("dl", *listed), tables])
