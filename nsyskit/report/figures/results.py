"""Figures of the ledgers, sums and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.devices import BUSY_PARTS, DeviceLedger, DevicesResult
from nsyskit.analysis.gaps import GapsResult
from nsyskit.analysis.host_functions import HostFunctionsResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.launch import LaunchResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.threads import PARTS, ThreadsResult
from nsyskit.analysis.timeline import gpu_label
from nsyskit.analysis.verdict import Verdict
from nsyskit.report.figures.base import (
    Drawing,
    device_name,
    drawing,
    laid_out,
    over,
    plain,
    series,
    time_unit,
    unique_names,
)
from nsyskit.report.palette import PART_COLORS, SERIES_COLORS
from nsyskit.report.words import PARTS as PART_WORDS
from nsyskit.report.words import SYNC_CLASSES, THREAD_PARTS
from nsyskit.trace import Window
from nsyskit.units import human_bytes, human_ns

PHASE_COLORS: Final = {"prefill": "#3a7fc4", "decode": "#2a8a5a", "mixed": "#9a6ac4"}
SLOW_TIMES: Final = 1.5
_TOP: Final = 25
_HATCH: Final = "/"


@drawing.register
def _devices(result: DevicesResult) -> Drawing:
    """A bar a GPU: what it did and why it idled."""
    parts = {part: [_busy_part(ledger, part) for ledger in result.devices] for part in BUSY_PARTS}
    parts |= {cause: [ledger.idle[cause] for ledger in result.devices] for cause in CAUSES}
    names = [device_name(ledger) for ledger in result.devices]
    return _stacked(names, parts, words=PART_WORDS, hatched=frozenset(CAUSES))


@drawing.register
def _threads(result: ThreadsResult) -> Drawing:
    """A bar a driver thread; hatched where a GPU that it feeds idles."""
    shown = result.threads[:_TOP]
    names = [f"{thread.name or 'thread'} {thread.tid}" for thread in shown]
    halves = {
        f"{part} (GPU {half})": [getattr(thread, half)[part] for thread in shown]
        for half in ("busy", "idle")
        for part in PARTS
    }
    words = {name: THREAD_PARTS[name.split(" ")[0]] + name[name.index(" ") :] for name in halves}
    return _stacked(names, halves, words=words, hatched=frozenset(name for name in halves if "idle" in name))


@drawing.register
def _verdict(result: Verdict) -> Drawing:
    """At most how much faster the window gets without each part of idle time."""
    known = [bound for bound in result.bounds if bound.max_speedup][::-1]
    bars = series(
        "bar",
        x=[bound.max_speedup for bound in known],
        y=[bound.part for bound in known],
        orientation="h",
        marker={"color": [PART_COLORS[bound.part] for bound in known]},
        customdata=[PART_WORDS[bound.part] for bound in known],
        hovertemplate="without “%{customdata}”: at most %{x:.3f}×<extra></extra>",
    )
    return laid_out([bars], rows=len(known), x="at most, times faster", x_range=(1, None))


@drawing.register
def _program(result: ProgramResult) -> Drawing:
    """Tokens per second as printed beside those of the trace, a pair of bars a measurement."""
    rows = [row for row in result.rows if row.numbers.tokens_per_s][:_TOP]
    names = unique_names([plain(f"{row.numbers.tool} {row.numbers.label}") for row in rows])
    rates = {
        "printed": [row.numbers.tokens_per_s for row in rows],
        "by the trace": [row.trace_tokens_per_s for row in rows],
    }
    bars = [
        series("bar", y=names, x=values, name=name, orientation="h", marker={"color": color})
        for (name, values), color in zip(rates.items(), SERIES_COLORS, strict=False)
    ]
    return laid_out(bars, rows=2 * len(rows), x="tokens per second", legend=2, yaxis={"autorange": "reversed"})


@drawing.register
def _limits(result: LimitsResult) -> Drawing:
    """How fast the matrix kernels read their weights, by format, against the memory."""
    rows = result.by_quant.reverse()
    bars = series(
        "bar",
        x=rows["gb_per_s"].to_list(),
        y=[str(quant) for quant in rows["quant"]],
        orientation="h",
        marker={"color": "#2a8a5a"},
        customdata=[human_ns(value) for value in rows["ns_per_token"]],
        hovertemplate="%{y}: %{x:.1f} GB/s, %{customdata} a token<extra></extra>",
    )
    drawn = laid_out([bars], rows=rows.height, x="GB/s")
    return over(drawn, **_upright(result.memory_bandwidth / 1e9, "the memory's")) if result.memory_bandwidth else drawn


def _upright(x: float, label: str) -> dict[str, Any]:
    """A dashed line over the whole height, with its meaning."""
    line = {"type": "line", "x0": x, "x1": x, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain"}
    note = {"text": label, "x": x, "xref": "x", "xanchor": "left", "y": 1, "yref": "y domain", "yanchor": "top"}
    return {"shapes": [line | {"line": {"dash": "dash"}}], "annotations": [note | {"showarrow": False}]}


@drawing.register
def _steps(result: StepsResult) -> Drawing:
    """Time per token of every step, over time; the slowest ones are ringed and say what was different."""
    drawn = []
    for phase, color in PHASE_COLORS.items():
        rows = result.steps.filter((pl.col("phase") == phase) & pl.col("period_ns").is_not_null())
        if rows.height:
            points = _points(rows, result.window)
            drawn.append(series("scatter", **points, name=phase, mode="markers", marker={"color": color}))
    slow = result.steps.join(result.slowest.select("index", "cause", "times"), on="index", how="inner")
    slow = slow.filter(pl.col("times") >= SLOW_TIMES)
    if slow.height:
        notes = [
            f"{times:.1f}× the median: {plain(cause)}" for times, cause in slow.select("times", "cause").iter_rows()
        ]
        points = _points(slow, result.window)
        points["text"] = [f"{text}<br>{note}" for text, note in zip(points["text"], notes, strict=True)]
        ring = {"symbol": "circle-open", "size": 14, "color": "#d0453a", "line": {"width": 2}}
        drawn.append(series("scatter", **points, name="slowest, against their like", mode="markers", marker=ring))
    return laid_out(
        drawn,
        rows=11,
        x=f"{time_unit(result.window).name} from the window's start",
        y="ms per token",
        legend=len(drawn),
        yaxis={"rangemode": "tozero"},
    )


@drawing.register
def _depth(result: DepthResult) -> Drawing:
    """Milliseconds per step against depth, and of that what attention takes; a colour a batch size."""
    drawn = []
    for at, ((batch,), rows) in enumerate(result.bins.group_by("batch", maintain_order=True)):
        middle = ((rows["lo"] + rows["hi"]) / 2).to_list()
        bounds = [
            f"{lo:,} to {hi:,}, {steps:,} steps" for lo, hi, steps in rows.select("lo", "hi", "steps").iter_rows()
        ]
        color = SERIES_COLORS[at % len(SERIES_COLORS)]
        lines = {"step": rows["ms_p50"], "attention": rows["attention_ns"] / 1e6}
        for name, values in lines.items():
            if values.null_count() == rows.height:
                continue
            line = series(
                "scatter", x=middle, y=values.to_list(), name=f"{name}, batch of {batch}", mode="lines+markers",
                line={"color": color, "dash": "solid" if name == "step" else "dot"}, text=bounds,
                hovertemplate="%{y:.3f} ms<br>%{text}<extra>%{fullData.name}</extra>",
            )  # fmt: skip
            drawn.append(line)
    unit = "decode steps since the last prompt" if result.basis == "since_prefill" else "tokens in context"
    return laid_out(drawn, rows=10, x=unit, y="ms per step", legend=len(drawn), yaxis={"rangemode": "tozero"})


@drawing.register
def _roles(result: RolesResult) -> Drawing:
    """Time of a step's matrix kernels, a bar a layer, a colour a tensor."""
    drawn = []
    inside = result.cells.filter(pl.col("layer").is_not_null())
    for at, role in enumerate(inside["role"].unique(maintain_order=True)):
        rows = inside.filter(pl.col("role") == role)
        bars = series(
            "bar",
            x=rows["layer"].to_list(),
            y=(rows["ns"] / 1e3).to_list(),
            name=role,
            marker={"color": SERIES_COLORS[at % len(SERIES_COLORS)]},
            customdata=[[row["type"] or "cache", _rate(row)] for row in rows.iter_rows(named=True)],
            hovertemplate="layer %{x}: %{y:.1f} µs, %{customdata[0]}, %{customdata[1]}<extra>%{fullData.name}</extra>",
        )
        drawn.append(bars)
    return laid_out(drawn, rows=10, x="layer", y="µs a step", legend=len(drawn), barmode="stack")


def _rate(row: Mapping[str, Any]) -> str:
    return "–" if row["gb_per_s"] is None else f"{row['gb_per_s']:.1f} GB/s"


def _points(rows: pl.DataFrame, window: Window) -> dict[str, Any]:
    """``customdata`` is where the step lies in the window, and its index, for the script that shows it."""
    origin, unit = window.start_ns, time_unit(window)
    texts = [
        f"step {index}, {phase}, {n_tokens:,} tokens<br>{human_ns(period_ns)} in all"
        for index, phase, n_tokens, period_ns in rows.select("index", "phase", "n_tokens", "period_ns").iter_rows()
    ]
    return {
        "x": ((rows["begin_ns"] - origin) / unit.ns).to_list(),
        "y": (rows["period_ns"] / rows["n_tokens"] / 1e6).to_list(),
        "text": texts,
        "customdata": rows.select(pl.col("begin_ns") - origin, pl.col("end_ns") - origin, "index").rows(),
        "hovertemplate": "%{y:.3f} ms per token<br>%{text}<extra></extra>",
    }


@drawing.register
def _sync(result: SyncResult) -> Drawing:
    """Time in synchronizing calls by what they waited for."""
    rows = result.by_class.filter(pl.col("calls") > 0)
    colors = {"no_wait": "#8a8a8a", "upload": "#3a7fc4", "gpu_wait": "#2a8a5a", "host_bound": "#d0453a"}
    bars = [
        series(
            "bar",
            x=[row["total_ns"] / 1e6],
            y=["sync time"],
            orientation="h",
            name=f"{row['class']}: {SYNC_CLASSES[row['class']]}",
            marker={"color": colors[row["class"]]},
            hovertemplate=f"{row['class']}: {human_ns(row['total_ns'])} in {row['calls']:,} calls<extra></extra>",
        )
        for row in rows.iter_rows(named=True)
    ]
    return laid_out(bars, rows=1, x="ms", barmode="stack", legend=len(bars))


@drawing.register
def _launch(result: LaunchResult) -> Drawing:
    """Quantiles of launch call, queue and kernel, on a logarithmic axis."""
    parts = {
        "launch call": (result.api_ns, "#d0751a"),
        "queue": (result.queue_ns, "#c48a1a"),
        "kernel": (result.kern_ns, "#2a8a5a"),
    }
    symbols = {"p50": "circle", "p90": "diamond", "p99": "line-ns-open"}
    drawn = []
    for name, (values, color) in parts.items():
        points = {mark: getattr(values, mark) for mark in symbols}
        known = {mark: value for mark, value in points.items() if value}
        if known:
            marks = series(
                "scatter",
                x=[value / 1e3 for value in known.values()],
                y=[name] * len(known),
                mode="lines+markers+text",
                name=name,
                text=list(known),
                textposition="top center",
                line={"color": color, "width": 1},
                showlegend=False,
                marker={"size": 11, "color": color, "symbol": [symbols[mark] for mark in known]},
                customdata=[human_ns(value) for value in known.values()],
                hovertemplate="%{y} %{text}: %{customdata}<extra></extra>",
            )
            drawn.append(marks)
    room = [-0.5, len(drawn) - 0.4]  # for the topmost labels
    return laid_out(drawn, rows=5, x="µs, logarithmic", x_type="log", yaxis={"range": room})


@drawing.register
def _gaps(result: GapsResult) -> Drawing:
    """Idle time by the length of the gap it lies in."""
    bars = []
    for index, device in enumerate(result.devices):
        rows = list(device.hist.iter_rows(named=True))
        bars.append(
            series(
                "bar",
                x=[_length_bin(row) for row in rows],
                y=[row["total_ns"] / 1e6 for row in rows],
                name=gpu_label(device.use),
                marker={"color": SERIES_COLORS[index % len(SERIES_COLORS)]},
                customdata=[[f"{row['count']:,}", human_ns(row["total_ns"])] for row in rows],
                hovertemplate="%{customdata[0]} gaps of %{x}: %{customdata[1]}<extra>%{fullData.name}</extra>",
            )
        )
    return laid_out(bars, rows=10, y="idle ms in gaps of this length", legend=len(bars) if len(bars) > 1 else 0)


@drawing.register
def _hotspots(result: HotspotResult) -> Drawing:
    """Kernel time by category, family or quant type."""
    rows = result.rows.head(_TOP).reverse()
    return _bars([str(name) for name in rows[result.by]], rows, color="#2a8a5a", share="share")


@drawing.register
def _sums(result: SumResult) -> Drawing:
    """The rows of a sum with most time (or bytes)."""
    if result.kind == "kern_exec_sum":
        raise NotImplementedError("launches and their kernels are told by the figure of LaunchResult")
    rows = result.rows.head(_TOP).reverse()
    names = unique_names([name or "" for name in rows["name"]])
    if result.kind != "mem_size_sum":
        return _bars(names, rows, color="#2a8a5a" if result.kind == "kernel_sum" else "#3a7fc4", share="time_share")
    bars = series(
        "bar",
        x=rows["total_bytes"].to_list(),
        y=names,
        orientation="h",
        marker={"color": "#3a7fc4"},
        customdata=[human_bytes(value) for value in rows["total_bytes"]],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )
    return laid_out([bars], rows=rows.height, x="bytes")


@drawing.register
def _copies(result: CopiesResult) -> Drawing:
    """How many copies of each size, by direction and host-side memory."""
    keys = result.hist.select("label", "memory").unique(maintain_order=True)
    drawn = []
    for index, (label, memory) in enumerate(keys.iter_rows()):
        rows = result.hist.filter((pl.col("label") == label) & pl.col("memory").eq_missing(memory))
        bars = series(
            "bar",
            x=[_size_bin(row) for row in rows.iter_rows(named=True)],
            y=rows["count"].to_list(),
            name=f"{label} {memory or ''}".strip(),
            marker={"color": SERIES_COLORS[index % len(SERIES_COLORS)]},
            customdata=[
                [human_bytes(row["bytes"]), human_ns(row["total_ns"]), _speed(row)]
                for row in rows.iter_rows(named=True)
            ],
            hovertemplate="%{y:,} copies of %{x}: %{customdata[0]} in %{customdata[1]}, %{customdata[2]}"
            "<extra>%{fullData.name}</extra>",
        )
        drawn.append(bars)
    sizes = result.hist.sort("lo_bytes").unique("lo_bytes", maintain_order=True)
    order = [_size_bin(row) for row in sizes.iter_rows(named=True)]
    return laid_out(
        drawn,
        rows=12,
        x="size",
        y="copies, logarithmic",
        legend=keys.height,
        xaxis={"categoryorder": "array", "categoryarray": order, "type": "category"},
        yaxis={"type": "log", "dtick": 1},
    )


@drawing.register
def _host_functions(result: HostFunctionsResult) -> Drawing:
    """Where the driver threads' samples stood while a GPU idled."""
    frames = [device.functions for device in result.devices if device.functions.height]
    order = ["samples", "function", "cause", "module"]
    rows = pl.concat(frames).sort(order, descending=[True, False, False, False]).head(15) if frames else pl.DataFrame()
    shown = list(rows.iter_rows(named=True))[::-1]
    bars = series(
        "bar",
        x=[row["samples"] for row in shown],
        y=unique_names([f"{row['function']} ({row['module']})" for row in shown]),
        orientation="h",
        marker={"color": [PART_COLORS[row["cause"]] for row in shown]},
        customdata=[row["cause"] for row in shown],
        hovertemplate="%{y}: %{x} samples of %{customdata}<extra></extra>",
    )
    return laid_out([bars], rows=len(shown), x="samples while the GPU idled")


@drawing.register
def _os_threads(result: OsThreadsResult) -> Drawing:
    """OS runtime calls by thread; driver threads first."""
    shown = result.threads[:_TOP][::-1]
    names = [f"{thread.name or 'thread'} {thread.tid}{' (drives a GPU)' if thread.driver else ''}" for thread in shown]
    bars = series(
        "bar",
        x=[thread.total_ns / 1e6 for thread in shown],
        y=names,
        orientation="h",
        marker={"color": ["#c4574a" if thread.driver else "#8a8a8a" for thread in shown]},
        customdata=[human_ns(thread.total_ns) for thread in shown],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )
    return laid_out([bars], rows=len(shown), x="ms in OS calls (union per thread)")


def _busy_part(ledger: DeviceLedger, part: str) -> int:
    return int(getattr(ledger, f"{part}_ns"))


def _stacked(
    names: Sequence[str], parts: Mapping[str, Sequence[int]], *, words: Mapping[str, str], hatched: frozenset[str]
) -> Drawing:
    labels = unique_names(names)
    bars = [
        series(
            "bar",
            x=[value / 1e6 for value in values],
            y=labels,
            orientation="h",
            name=words[part],
            marker={
                "color": PART_COLORS[part.split(" ")[0]],
                "pattern": {"shape": _HATCH if part in hatched else "", "solidity": 0.25},
            },
            customdata=[human_ns(value) for value in values],
            hovertemplate="%{y}: %{customdata} %{fullData.name}<extra></extra>",
        )
        for part, values in parts.items()
        if any(values)
    ]
    order = {"autorange": "reversed"}
    return laid_out(bars, rows=2 * len(labels), x="ms", barmode="stack", legend=len(bars), yaxis=order)


def _bars(names: Sequence[str], rows: pl.DataFrame, *, color: str, share: str) -> Drawing:
    bars = series(
        "bar",
        x=[value / 1e6 for value in rows["total_ns"]],
        y=list(names),
        orientation="h",
        marker={"color": color},
        customdata=[
            [human_ns(row["total_ns"]), f"{row[share] * 100:.1f} %", f"{row['count']:,}"]
            for row in rows.iter_rows(named=True)
        ],
        hovertemplate="%{y}: %{customdata[0]} (%{customdata[1]}), %{customdata[2]}×<extra></extra>",
    )
    return laid_out([bars], rows=rows.height, x="ms")


def _length_bin(row: Mapping[str, Any]) -> str:
    low = human_ns(row["lo_ns"])
    return f"over {low}" if row["hi_ns"] is None else f"{low} – {human_ns(row['hi_ns'])}"


def _size_bin(row: Mapping[str, Any]) -> str:
    """A power-of-two bin by its lower edge, in powers of 1024, which are exact there."""
    value = row["lo_bytes"]
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= factor:
            return f"{value // factor} {unit}"
    return f"{value} B"


def _speed(row: Mapping[str, Any]) -> str:
    return "–" if row["gb_per_s"] is None else f"{row['gb_per_s']:.2f} GB/s"
