"""The report in a terminal: trust, verdict and ledger bars first, then one table a section.

Fits 80 columns; wider terminals get more columns and longer names. Colour only where somebody looks, and never with
``NO_COLOR``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from io import StringIO
from typing import Any, Final

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nsyskit.analysis.advice import AdviceResult
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.devices import BUSY_PARTS, DeviceLedger, DevicesResult
from nsyskit.analysis.gaps import GapsResult
from nsyskit.analysis.host_functions import HostFunctionsResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.launch import LaunchResult, Quantiles
from nsyskit.analysis.layers import LayersResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.analysis.startup import StartupResult
from nsyskit.analysis.step_costs import LEDGER_PARTS, PhaseCost, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.threads import PARTS, ThreadsResult
from nsyskit.report.palette import PART_COLORS
from nsyskit.report.several_gpus import busy_sentence, copy_rows, phase_sentences, wait_rows
from nsyskit.report.words import growth_sentences, limit_sentences, prompt_sentence, start_sentence
from nsyskit.units import human_bytes, human_count, human_ns, human_share, printable

TITLES: Final = {
    "api_sum": "CUDA API", "osrt_sum": "OS runtime, all threads", "kernel_sum": "Kernels",
    "mem_time_sum": "Memory operations by time", "mem_size_sum": "Memory operations by size", "nvtx_sum": "NVTX ranges",
    "kern_exec_sum": "Launches and their kernels",
}  # fmt: skip
_LEVEL_STYLE: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}
_WIDE: Final = 120
_SMALL_SHARE: Final = 0.002
_SLOW: Final = 1.5
_ORDER: Final = (
    "step", "steps", "advice", "limits", "program", "startup", "devices", "several_gpus", "host_functions", "threads",
    "sync", "launch", "gaps", "category_sum", "family_sum", "quant_sum", "kernel_sum", "api_sum", "mem_time_sum",
    "mem_size_sum", "copies", "depth", "roles", "layers", "osrt_by_thread", "osrt_sum", "nvtx_sum", "kern_exec_sum",
)  # fmt: skip


MAY_LACK: Final = frozenset({"startup", "layers", "depth", "roles", "several_gpus"})
"""Nothing is missing where a trace has none of them: it begins later, or holds no decode step."""


def render_text(report: Report, *, top: int = 10, width: int | None = None, color: bool | None = None) -> str:
    """The whole report as text.

    Args:
        report: what to show.
        top: rows a table.
        width: columns; None takes the terminal's, 100 where there is none.
        color: None decides by whether stdout is a terminal and ``NO_COLOR`` is unset.
    """
    out = StringIO()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    columns = width or shutil.get_terminal_size((100, 24)).columns
    console = Console(file=out, width=max(columns, 60), force_terminal=color, no_color=not color, highlight=False)
    for block in _blocks(report, Layout(top, console.width)):
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"


def _blocks(report: Report, layout: Layout) -> list[RenderableType]:
    blocks: list[RenderableType] = [_header(report), _trust(report)]
    if report.verdict is not None:
        blocks += [Text(printable(report.verdict.sentence), style="bold"), _bounds(report), Text("")]
    for name in _ORDER:
        result = report.sections.get(name)
        if result is None:
            continue
        block = block_of(result, layout)
        if block is not None:
            blocks += [block, Text("")]
        if name == "steps" and set(report.sections) <= {"steps", "step"}:
            blocks += [_step_table(result, layout), Text("")]
    absent = sorted(name for name, result in report.sections.items() if result is None and name not in MAY_LACK)
    if absent:
        blocks.append(Text(f"not collected, so not shown: {', '.join(absent)}", style="dim"))
    return blocks


def _header(report: Report) -> Text:
    meta, window = report.meta, report.window
    where = "" if window is None else f" · window {window.kind} {human_ns(window.dur_ns)}"
    gpus = ", ".join(sorted({gpu.name for gpu in meta.gpus}))
    return Text(printable(f"{meta.name}{where}{' · ' + gpus if gpus else ''}"), style="bold")


def _trust(report: Report) -> Group:
    lines = [Text(f"{note.level}: {printable(note.message)}", style=_LEVEL_STYLE[note.level]) for note in report.trust]
    return Group(*lines, Text(""))


def _bounds(report: Report) -> Text:
    bounds = [bound for bound in (report.verdict.bounds if report.verdict else ()) if bound.max_speedup]
    if not bounds:
        return Text("")
    best = ", ".join(f"{bound.part} {bound.max_speedup:.2f}×" for bound in bounds[:3])
    return Text(f"At most, without that part of idle time: {best}", style="dim")


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows a table shows, and the columns of the terminal."""

    top: int
    width: int


@singledispatch
def block_of(result: object, layout: Layout) -> RenderableType | None:
    """One result as a block of the report; None when there is nothing to show."""
    raise NotImplementedError(type(result))


@block_of.register
def _sum(result: SumResult, layout: Layout) -> RenderableType | None:
    if result.rows.is_empty():
        return None
    if result.kind == "kern_exec_sum":
        return _exec_table(result.rows, layout)
    if result.kind == "mem_size_sum":
        return _size_table(result.rows, layout)
    return _duration_table(TITLES[result.kind], result.rows, layout)


def _duration_table(title: str, rows: pl.DataFrame, layout: Layout) -> Table:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "time": lambda row: human_share(row["time_share"]),
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
        "avg": lambda row: human_ns(row["avg_ns"]),
        "med": lambda row: human_ns(row["med_ns"]),
    }
    if layout.width >= _WIDE:
        columns |= {
            "min": lambda row: human_ns(row["min_ns"]),
            "max": lambda row: human_ns(row["max_ns"]),
            "stddev": lambda row: human_ns(row["stddev_ns"]),
        }
    if "category" in rows.columns and layout.width >= _WIDE:
        columns["category"] = lambda row: str(row["category"])
    return _table(title, rows, columns, layout, name=lambda row: shortened(row["name"] or ""))


def _size_table(rows: pl.DataFrame, layout: Layout) -> Table:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "total": lambda row: human_bytes(row["total_bytes"]),
        "count": lambda row: human_count(row["count"]),
        "avg": lambda row: human_bytes(row["avg_bytes"]),
        "med": lambda row: human_bytes(row["med_bytes"]),
        "max": lambda row: human_bytes(row["max_bytes"]),
    }
    return _table(TITLES["mem_size_sum"], rows, columns, layout, name=lambda row: row["name"])


def _exec_table(rows: pl.DataFrame, layout: Layout) -> Table:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "pairs": lambda row: human_count(row["count"]),
        "API avg": lambda row: human_ns(row["api_avg_ns"]),
        "queue avg": lambda row: "–" if row["queue_avg_ns"] is None else human_ns(row["queue_avg_ns"]),
        "kernel avg": lambda row: human_ns(row["kernel_avg_ns"]),
    }
    if layout.width >= _WIDE:
        columns["call"] = lambda row: row["api"]
    return _table(TITLES["kern_exec_sum"], rows, columns, layout, name=lambda row: shortened(row["kernel"]))


@block_of.register
def _hotspots(result: HotspotResult, layout: Layout) -> RenderableType | None:
    if set(result.rows[result.by]) <= {"other", "none"}:  # no kernel of llama.cpp: the split says nothing
        return None
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "time": lambda row: human_share(row["share"]),
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
    }
    return _table(f"Kernels by {result.by}", result.rows, columns, layout, name=lambda row: str(row[result.by]))


@block_of.register
def _devices(result: DevicesResult, layout: Layout) -> RenderableType | None:
    return Group(*(_device(ledger, layout.width) for ledger in result.devices)) if result.devices else None


def _device(ledger: DeviceLedger, width: int) -> RenderableType:
    name = ledger.use.name or f"GPU {ledger.use.device} of process {ledger.use.pids[0]}"
    title = f"{printable(name)}: busy {human_share(ledger.busy_share)} of {human_ns(ledger.window_ns)}"
    busy = {
        "kernel": ledger.kernel_ns, "graph": ledger.graph_ns, "memcpy": ledger.memcpy_ns, "memset": ledger.memset_ns,
    }  # fmt: skip
    parts = busy | {f"idle: {cause}": ledger.idle[cause] for cause in CAUSES}
    return _ledger_block(title, parts, ledger.window_ns, width)


@block_of.register
def _threads(result: ThreadsResult, layout: Layout) -> RenderableType | None:
    blocks = []
    for thread in result.threads[: layout.top]:
        title = f"driver thread {thread.tid} {printable(thread.name or '')}"
        parts = {f"{part} (GPU {half})": values[part]
                 for part in PARTS for half, values in (("busy", thread.busy), ("idle", thread.idle))}  # fmt: skip
        blocks.append(_ledger_block(title, parts, thread.window.dur_ns, layout.width))
    return Group(*blocks) if blocks else None


def _ledger_block(title: str, parts: Mapping[str, int], total: int, width: int) -> RenderableType:
    shown = {name: value for name, value in parts.items() if value}
    legend, small = [], 0
    for name, value in sorted(shown.items(), key=lambda item: -item[1]):
        if value < _SMALL_SHARE * total:
            small += value
            continue
        square = ("■ ", PART_COLORS[_part(name)])
        legend.append(Text.assemble(square, f"{name} {human_ns(value)} ({human_share(value / total)})"))
    if small:
        legend.append(Text(f"the rest {human_ns(small)}"))
    lines = _packed(legend, width - 2)
    return Group(Text(title, style="bold"), _bar(shown, total, width - 2), Padding(Group(*lines), (0, 0, 0, 2)))


def _packed(entries: Sequence[Text], width: int) -> list[Text]:
    """Entries side by side, as many as fit a line: a figure is never torn from its name or its unit."""
    lines: list[Text] = []
    for entry in entries:
        if lines and lines[-1].cell_len + 3 + entry.cell_len <= width:
            lines[-1].append("   ").append_text(entry)
        else:
            lines.append(entry)
    return lines


def _bar(parts: Mapping[str, int], total: int, width: int) -> Text:
    """A bar of ``width`` cells; every part gets its share, rounded so that the cells sum to the width."""
    bar, done, cells = Text("  "), 0, 0
    for name, value in parts.items():
        done += value
        upto = round(done / total * width) if total else 0
        glyph = "░" if "idle" in name else "█"
        bar.append(glyph * (upto - cells), style=PART_COLORS[_part(name)])
        cells = upto
    return bar


def _part(name: str) -> str:
    return name.removeprefix("idle: ").split(" (")[0]


@block_of.register
def _steps(result: StepsResult, layout: Layout) -> RenderableType | None:
    torn = f", {result.torn} torn at the edges" if result.torn else ""
    head = Text(f"Steps: {human_count(result.steps.height)} in the window{torn}", style="bold")
    blocks: list[RenderableType] = [head]
    for cost in result.by_phase.values():
        blocks += _phase(cost)
    if result.prompts is not None:
        blocks.append(Text(prompt_sentence(result.prompts)))
    for row in result.slowest.filter(pl.col("times") >= _SLOW).iter_rows(named=True):
        told = f"  step {row['index']} ({row['phase']}) took {row['times']:.1f}× the median: {row['cause']}"
        blocks.append(_clipped(told, layout.width, style="dim"))
    return Group(*blocks)


def _step_table(result: StepsResult, layout: Layout) -> Table:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "step": lambda row: str(row["index"]),
        "begins": lambda row: human_ns(row["begin_ns"] - result.window.start_ns),
        "forward": lambda row: human_ns(row["forward_end_ns"] - row["begin_ns"]),
        "to the next": lambda row: "–" if row["period_ns"] is None else human_ns(row["period_ns"]),
        "tokens": lambda row: human_count(row["n_tokens"]),
        "outputs": lambda row: "–" if row["n_outputs"] is None else human_count(row["n_outputs"]),
    }
    if layout.width >= _WIDE:
        columns |= {
            "GPU busy": lambda row: human_ns(sum(row[f"{part}_ns"] for part in BUSY_PARTS)),
            "launches": lambda row: human_count(row["launches"] + row["graph_launches"]),
            "syncs": lambda row: human_count(row["syncs"]),
        }
    return _table(
        "", result.steps, columns, layout, name=lambda row: f"{row['phase']} ({row['confidence']})", label="phase"
    )


@block_of.register
def _step(result: StepDetail, layout: Layout) -> RenderableType | None:
    row, total = result.row, result.window.dur_ns
    like = "" if result.times is None else f", {result.times:.2f}× the median of its like"
    title = f"Step {row['index']}: {row['phase']}, {row['evidence']}; {human_ns(total)}{like}"
    parts = {part if part in BUSY_PARTS else f"idle: {part}": ns for part, ns in result.ledger.items()}
    count: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
    }
    size: dict[str, Callable[[Mapping[str, Any]], str]] = {"bytes": lambda row: human_bytes(row["bytes"])}
    calls: dict[str, Callable[[Mapping[str, Any]], str]] = {"longest": lambda row: human_ns(row["max_ns"])}
    blocks: list[RenderableType] = [_ledger_block(printable(title), parts, total, layout.width)]
    if result.kernels.height:
        told = ", ".join(
            f"{category}{' ' + quant if quant else ''} {human_ns(ns)}"
            for category, quant, ns in result.categories.rows()
        )
        blocks += [Padding(Text(f"kernels: {told}"), (0, 0, 0, 2))]
        blocks.append(_table("Kernels", result.kernels, count, layout, name=lambda row: shortened(row["name"])))
    blocks.append(_table("Its thread's calls", result.calls, count | calls, layout, name=lambda row: row["name"]))
    if result.copies.height:
        copied = lambda row: f"{row['label']} {row['purpose']}"  # noqa: E731
        blocks.append(_table("Copies", result.copies, count | size, layout, name=copied, label="what"))
    return Group(*blocks)


def _phase(cost: PhaseCost) -> list[RenderableType]:
    quantiles = " ".join(f"{name} {value:.3f}" for name, value in cost.ms_per_token.items() if value is not None)
    rate = "" if cost.tokens_per_s is None else f"{cost.tokens_per_s:,.1f} tokens/s, "
    counts = f"{human_count(cost.count)} steps, {human_count(cost.tokens)} tokens"
    lines: list[RenderableType] = [Text(f"{cost.phase}: {rate}{counts}; ms/token {quantiles or '–'}")]
    total = sum(cost.ledger.values())
    if total:
        parts = sorted(cost.ledger.items(), key=lambda item: (-item[1], LEDGER_PARTS.index(item[0])))
        told = ", ".join(f"{part} {human_ns(ns)}" for part, ns in parts if ns >= _SMALL_SHARE * total)
        lines.append(Padding(Text(f"per token: {told}"), (0, 0, 0, 2)))
        categories = ", ".join(f"{name} {human_ns(ns)}" for name, ns in list(cost.categories.items())[:5])
        if categories:
            lines.append(Padding(Text(f"kernels: {categories}"), (0, 0, 0, 2)))
    return lines


@block_of.register
def _program(result: ProgramResult, layout: Layout) -> RenderableType | None:
    rows = [row for row in result.rows if row.numbers.tokens_per_s is not None or row.numbers.ms is not None]
    if not rows:
        return None
    frame = pl.DataFrame(
        {
            "name": [f"{row.numbers.tool} {row.numbers.label}" for row in rows],
            "printed": [row.numbers.tokens_per_s for row in rows],
            "ms": [row.numbers.ms for row in rows],
            "trace": [row.trace_tokens_per_s for row in rows],
            "difference": [row.difference for row in rows],
        },
        schema={"name": pl.String} | dict.fromkeys(("printed", "ms", "trace", "difference"), pl.Float64),
    )
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "printed ms": lambda row: _number(row["ms"], 2),
        "printed tokens/s": lambda row: _number(row["printed"], 1),
        "trace tokens/s": lambda row: _number(row["trace"], 1),
        "difference": lambda row: "–" if row["difference"] is None else f"{row['difference']:+.1%}",
    }
    return _table("What the program printed, and the trace", frame, columns, layout, name=lambda row: row["name"])


@block_of.register
def _advice(result: AdviceResult, layout: Layout) -> RenderableType | None:
    if result.withheld is not None:
        return Text(printable(result.withheld), style="dim")
    lines: list[RenderableType] = [Text("Experiments worth running, the one that can give most first", style="bold")]
    for item in result.items[: layout.top]:
        most = "" if item.max_speedup is None else f" (at most {item.max_speedup:.2f}× in {item.phase})"
        lines.append(Text(printable(f"• {item.change}{most}")))
        evidence = ", ".join(one.path for one in item.evidence)
        lines.append(Padding(Text(printable(f"because {item.why}")), (0, 0, 0, 2)))
        lines.append(
            Padding(Text(printable(f"from {evidence}; refuted if {item.refuted_by}"), style="dim"), (0, 0, 0, 2))
        )
    return Group(*lines)


@block_of.register
def _limits(result: LimitsResult, layout: Layout) -> RenderableType | None:
    lines = limit_sentences(result)
    blocks: list[RenderableType] = [Text("Limits", style="bold"), *(Text(line) for line in lines)]
    if result.by_quant.height:
        columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "GB/s": lambda row: f"{row['gb_per_s']:.1f}",
            "of peak": lambda row: human_share(row["share_of_peak"]),
            "a token": lambda row: human_ns(row["ns_per_token"]),
            "bytes": lambda row: human_bytes(row["bytes_per_token"]),
        }
        blocks.append(_table("", result.by_quant, columns, layout, name=lambda row: row["quant"], label="matrices"))
    return Group(*blocks)


@block_of.register
def _layers(result: LayersResult, layout: Layout) -> RenderableType | None:
    if result.why_none is not None:
        return Text(f"Layers are not shown: {result.why_none}")
    title = (
        f"{result.count} layers of {result.kernels_per_layer} kernels, mean of {result.steps} decode steps; "
        f"{human_share(result.covered)} of the kernels lie in layers"
    )
    by_layer: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "kernels": lambda row: human_ns(row["kernel_ns"]),
        "to the next": lambda row: human_ns(row["span_ns"]),
    }
    by_place: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "time": lambda row: human_ns(row["kernel_ns"]),
        "category": lambda row: row["category"],
    }
    whole = replace(layout, top=max(layout.top, result.layers.height, result.positions.height))
    return Group(
        _table(title, result.layers, by_layer, whole, name=lambda row: str(row["layer"]), label="layer"),
        _table("The mean layer, kernel by kernel", result.positions, by_place, whole, name=lambda row: row["family"]),
    )


@block_of.register
def _depth(result: DepthResult, layout: Layout) -> RenderableType | None:
    if result.bins.is_empty():
        return None
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "steps": lambda row: human_count(row["steps"]),
        "ms p50": lambda row: f"{row['ms_p50']:.3f}",
        "kernels": lambda row: "–" if row["kernel_ns"] is None else human_ns(row["kernel_ns"]),
        "attention": lambda row: "–" if row["attention_ns"] is None else human_ns(row["attention_ns"]),
        "share": lambda row: "–" if row["attention_share"] is None else human_share(row["attention_share"]),
    }
    whole = replace(layout, top=max(layout.top, result.bins.height))
    unit = "steps since the prompt" if result.basis == "since_prefill" else "tokens in context"
    table = _table(
        "Decode steps against depth", result.bins, columns, whole,
        name=lambda row: f"{row['lo']:,} to {row['hi']:,}, batch of {row['batch']}", label=unit,
    )  # fmt: skip
    lines = [f"Depth: {result.told}.", *growth_sentences(result)]
    return Group(table, *(Text(line) for line in lines))


@block_of.register
def _roles(result: RolesResult, layout: Layout) -> RenderableType | None:
    if result.why_none is not None:
        return Text(printable(f"Tensors are not told apart: {result.why_none}"))
    others = f", {result.others:,} more not shown" if result.others else ""
    title = f"Matrices by tensor, mean of {result.steps:,} decode steps of {result.batch}{others}"
    rate: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "time": lambda row: human_ns(row["ns"]),
        "bytes": lambda row: "–" if row["bytes"] is None else human_bytes(row["bytes"]),
        "GB/s": lambda row: _number(row["gb_per_s"], 1),
        "of peak": lambda row: "–" if row["share_of_peak"] is None else human_share(row["share_of_peak"]),
    }
    shares: dict[str, Callable[[Mapping[str, Any]], str]] = {"share": lambda row: human_share(row["share"])}
    whole = replace(layout, top=max(layout.top, result.roles.height, result.layers.height))
    by_role = _table(
        title, result.roles, shares | rate, whole, name=lambda row: f"{row['role']} ({row['types']})", label="tensor"
    )
    by_layer = _table(
        "A layer's matrices", result.layers, rate, whole, name=lambda row: str(row["layer"]), label="layer"
    )
    return Group(by_role, by_layer)


@block_of.register
def _several_gpus(result: SeveralGpusResult, layout: Layout) -> RenderableType | None:
    waits: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "idle": lambda row: human_ns(row["idle_ns"]),
        "of the window": lambda row: human_share(row["share"]),
        "handed over": lambda row: human_ns(row["peer_ns"]),
    }
    copied: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "count": lambda row: human_count(row["count"]),
        "bytes": lambda row: human_bytes(row["bytes"]),
        "time": lambda row: human_ns(row["total_ns"]),
        "GB/s": lambda row: _number(row["gb_per_s"], 2),
    }
    pairs, between = pl.DataFrame(wait_rows(result)), pl.DataFrame(copy_rows(result))
    blocks: list[RenderableType] = [
        Text("Several GPUs", style="bold"),
        *(Text(printable(line)) for line in (busy_sentence(result), *phase_sentences(result))),
    ]
    if pairs.height:
        blocks.append(_table("", pairs, waits, layout, name=lambda row: row["pair"], label="while another was busy"))
    if between.height:
        blocks.append(_table("", between, copied, layout, name=lambda row: row["pair"], label="copies between GPUs"))
    return Group(*blocks)


@block_of.register
def _startup(result: StartupResult, layout: Layout) -> RenderableType | None:
    blocks: list[RenderableType] = []
    if result.window is not None:
        columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "time": lambda row: human_ns(row["dur_ns"]),
            "CUDA calls": lambda row: human_ns(row["api_ns"]),
            "OS calls": lambda row: human_ns(row["os_ns"]),
            "on files": lambda row: human_ns(row["disk_ns"]),
            "uploading": lambda row: human_ns(row["copy_ns"]),
            "uploaded": lambda row: human_bytes(row["copy_bytes"]),
        }
        title = f"Start: {human_ns(result.window.dur_ns)} to the first token"
        blocks.append(_table(title, result.spans, columns, layout, name=lambda row: START_PARTS[row["name"]]))
        blocks.append(Text(start_sentence(result)))
    if result.milestones.height:
        told = ", ".join(f"{name} at {ms:,.1f} ms" for name, ms in result.milestones.rows())
        blocks.append(Text(printable(f"The program's log, on its own clock: {told}")))
    return Group(*blocks)


START_PARTS: Final = {
    "program": "before the first CUDA call",
    "driver": "driver: context, modules, memory",
    "upload": "loading the weights onto the GPU",
    "prepare": "until the first step",
    "warm_up": "warm-up",
    "wait": "waiting for work",
    "first_token": "the first prompt, to its first token",
}


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


@block_of.register
def _sync(result: SyncResult, layout: Layout) -> RenderableType | None:
    if result.share_of_api is None:
        return None
    told = (
        f"{human_share(result.share_of_api)} of API time in synchronize calls, "
        f"{human_share(result.sync_copy_share)} with blocking copies."
    )
    if result.wait_share is not None:
        told += f" Of the sync time of driver threads the GPU was busy {human_share(result.wait_share)}."
    table = _table(
        "", result.by_class,
        {"calls": lambda row: human_count(row["calls"]), "total": lambda row: human_ns(row["total_ns"])},
        layout, name=lambda row: f"{row['class']}: {SYNC_MEANING[row['class']]}",
    )  # fmt: skip
    return Group(Text("Sync", style="bold"), Text(told), table)


SYNC_MEANING: Final = {
    "no_wait": "nothing was unfinished",
    "upload": "waited for an upload only",
    "gpu_wait": "waited for a working GPU",
    "host_bound": "the GPU was idle for most of it",
}


@block_of.register
def _launch(result: LaunchResult, _layout: Layout) -> RenderableType | None:
    if not result.launches and not result.graph.launches:
        return None
    counts = f"{human_count(result.launches)} launch calls, {human_count(result.pairs)} kernels paired"
    parts = {"call": result.api_ns, "queue": result.queue_ns, "kernel": result.kern_ns}
    lines = [f"{counts}; {', '.join(f'{name} {_quantile_text(values)}' for name, values in parts.items())}"]
    if result.shorter_than_launch_share is not None:
        lines.append(
            f"{human_share(result.shorter_than_launch_share)} of kernels are shorter than their own launch call"
        )
    if result.excluded_capture:
        lines.append(f"{human_count(result.excluded_capture)} launches only recorded a graph and are left out")
    graph = result.graph
    if graph.launches:
        lines.append(
            f"{human_count(graph.launches)} graph launches ({human_share(graph.coverage)} recorded), "
            f"{graph.captures} captures, {graph.instantiations} instantiations, {graph.updates} updates, "
            f"{graph.destroys} destroys"
        )
    return Group(Text("Launch", style="bold"), *(Text(line) for line in lines))


def _quantile_text(values: Quantiles) -> str:
    return "–" if values.p50 is None or values.p99 is None else f"p50 {human_ns(values.p50)} p99 {human_ns(values.p99)}"


@block_of.register
def _gaps(result: GapsResult, layout: Layout) -> RenderableType | None:
    blocks = [
        _table(
            f"Longest gaps of {found.use.name or 'GPU'} {found.use.device}", found.longest,
            {
                "length": lambda row: human_ns(row["dur_ns"]),
                "at": lambda row: human_ns(row["start_ns"] - result.window.start_ns),
                "cause": lambda row: _causes(row, 2 if layout.width >= _WIDE else 1),
            },
            layout, name=_between, label="between",
        )
        for found in result.devices
        if found.longest.height
    ]  # fmt: skip
    return Group(*blocks) if blocks else None


@block_of.register
def _host_functions(result: HostFunctionsResult, layout: Layout) -> RenderableType | None:
    blocks: list[RenderableType] = []
    for device in result.devices:
        rows = device.functions.filter((pl.col("cause") == "host") & (pl.col("function") != "[unresolved]")).head(3)
        if rows.height:
            blocks.append(
                Text(printable(f"While {device.use.name or 'the GPU'} idled for the host, its driver threads were in"))
            )
        for row in rows.iter_rows(named=True):
            line = f"  {human_share(row['share'])} of {row['cause']} samples: {row['function']} ({row['module']})"
            blocks.append(_clipped(line, layout.width))
        callers = device.callers.filter(pl.col("cause") == "host").head(1)
        blocks += [_clipped(f"    under {_chain(row)}", layout.width, style="dim") for row in callers["frames"]]
    return Group(*blocks) if blocks else None


def _between(row: Mapping[str, Any]) -> str:
    return f"{shortened(row['before'] or '–')} → {shortened(row['after'] or '–')}"


def _bin(row: Mapping[str, Any]) -> str:
    return f"{row['label']} {row['memory']} [{human_bytes(row['lo_bytes'])}, {human_bytes(row['hi_bytes'])})"


def _causes(row: Mapping[str, Any], most: int) -> str:
    causes = sorted(((row[cause], cause) for cause in CAUSES if row[cause]), reverse=True)[:most]
    return ", ".join(f"{cause} {human_share(value / row['dur_ns'])}" for value, cause in causes)


@block_of.register
def _copies(result: CopiesResult, layout: Layout) -> RenderableType | None:
    if result.hist.is_empty():
        return None
    table = _table(
        "Copy sizes", result.hist,
        {
            "count": lambda row: human_count(row["count"]),
            "bytes": lambda row: human_bytes(row["bytes"]),
            "time": lambda row: human_ns(row["total_ns"]),
            "GB/s": lambda row: "–" if row["gb_per_s"] is None else f"{row['gb_per_s']:.2f}",
            "blocked": lambda row: human_count(row["blocking_count"]),
        },
        replace(layout, top=max(layout.top, 30)), name=_bin, label="what",
    )  # fmt: skip
    if not result.blocking_count:
        return table
    told = f"{human_count(result.blocking_count)} copies held their caller for {human_ns(result.blocking_ns)}"
    return Group(table, Text(told))


@block_of.register
def _os_threads(result: OsThreadsResult, layout: Layout) -> RenderableType | None:
    shown = result.threads[: layout.top]
    if not shown:
        return None
    blocks: list[RenderableType] = [Text("OS runtime by thread", style="bold")]
    for thread in shown:
        mark = " (drives a GPU)" if thread.driver else ""
        calls = ", ".join(
            f"{row['name']} {human_ns(row['total_ns'])} ×{row['count']}"
            for row in thread.calls.head(4).iter_rows(named=True)
        )
        head = f"{thread.tid} {thread.name or ''}{mark}: {human_ns(thread.total_ns)} of {human_ns(thread.span_ns)}"
        blocks.append(_clipped(f"{head}  {calls}", layout.width))
        blocks += [
            _clipped(f"    {human_ns(row['total_ns'])} under {_chain(row['frames'])}", layout.width, style="dim")
            for row in thread.chains.head(2).iter_rows(named=True)
        ]
    hidden = len(result.threads) - len(shown) + result.more
    if hidden > 0:
        blocks.append(Text(f"… and {hidden} more threads", style="dim"))
    return Group(*blocks)


def _chain(frames: Sequence[str]) -> str:
    """The functions of a chain that say something: without unresolved addresses."""
    known = [shortened(frame) for frame in frames if frame and not frame.startswith(("0x", "[Unknown"))]
    return " ← ".join(known[:4]) or "unresolved code"


def _clipped(text: str, width: int, *, style: str = "") -> Text:
    line = Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def _table(
    title: str, rows: pl.DataFrame, columns: Mapping[str, Callable[[Mapping[str, Any]], str]], layout: Layout, *,
    name: Callable[[Mapping[str, Any]], str], label: str = "name",
) -> Table:  # fmt: skip
    """A table with right-aligned figures and the name last, cut off where the line ends."""
    table = Table(
        title=Text(printable(title)) if title else None,  # a Text: rich would read brackets in a name as markup
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        collapse_padding=True,
    )
    shown = [
        ({column: cell(row) for column, cell in columns.items()}, row)
        for row in rows.head(layout.top).iter_rows(named=True)
    ]
    used = 0
    for column in columns:
        widest = max([len(column), *(len(cells[column]) for cells, _ in shown)])
        table.add_column(column, justify="right", no_wrap=True, width=widest)
        used += widest + 2
    # given the name's true width, rich would rather drop the figures than cut the name
    table.add_column(label, no_wrap=True, overflow="ellipsis", width=max(layout.width - used, 16))
    for cells, row in shown:
        table.add_row(*(Text(printable(cell)) for cell in cells.values()), Text(printable(name(row))))
    if rows.height > layout.top:
        table.caption, table.caption_justify = f"… and {rows.height - layout.top} more", "left"
    return table


def shortened(name: str) -> str:
    """A demangled name without return type and parameters: what tells one kernel from another fits a line."""
    bare = name.removeprefix("void ")
    depth = 0
    for index, char in enumerate(bare):
        depth += (char == "<") - (char == ">")
        if char == "(" and depth == 0 and index and not bare.startswith("(anonymous"):
            return bare[:index]
    return bare
