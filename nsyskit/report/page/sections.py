"""Each result as a piece of the page: a sentence, a figure, a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any, Final

import plotly.graph_objects as go
import polars as pl

from nsyskit.analysis.advice import AdviceResult, Item
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.devices import DevicesResult
from nsyskit.analysis.gaps import DeviceGaps, GapsResult
from nsyskit.analysis.host_functions import DeviceHostFunctions, HostFunctionsResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.launch import LaunchResult, Quantiles
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.os_threads import OsThread, OsThreadsResult
from nsyskit.analysis.program import ProgramResult, ProgramRow
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.analysis.startup import StartupResult
from nsyskit.analysis.step_costs import StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.analysis.sums import SumResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.threads import ThreadsResult
from nsyskit.analysis.timeline import gpu_label
from nsyskit.report.figures import figure
from nsyskit.report.page.bars import device_bar, phase_bar, thread_bar
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.several_gpus import several_gpus_block
from nsyskit.report.page.steps import slow_steps, step_detail
from nsyskit.report.page.tables import Column, Row, count, ns, share, size, table, words
from nsyskit.report.text import START_PARTS, TITLES, chain, shortened
from nsyskit.report.words import SYNC_CLASSES, growth_sentences, limit_sentences, prompt_sentence, start_sentence
from nsyskit.units import human_bytes, human_count, human_ns, human_share

NAME_CHARACTERS: Final = 110
_MAX_THREADS: Final = 12


@dataclass(slots=True)
class Sections:
    """Makes pieces of the page and keeps the figures that a script draws later, by their id."""

    figures: dict[str, go.Figure] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def nothing(self, line: str) -> Html:
        """A section that has nothing to show takes no room; ``line`` is told at the end of the page."""
        self.empty.append(line)
        return NOTHING

    def drawn(self, identifier: str, drawn: go.Figure, described: str) -> Html:
        """The place where a figure will stand; its height is fixed now, so that nothing jumps."""
        self.figures[identifier] = drawn
        height = int(drawn.layout.height)
        return tag(
            "div",
            class_="plot",
            id=f"figure-{identifier}",
            data_figure=identifier,
            role="group",
            aria_label=described,
            style=f"height:{height}px",
        )

    @singledispatchmethod
    def block(self, result: object, name: str) -> Html:
        """One result; ``name`` is its section's name in the report."""
        raise NotImplementedError(f"{name}: {type(result).__name__}")

    @block.register
    def _devices(self, result: DevicesResult, name: str) -> Html:  # noqa: ARG002 - one signature for all
        return join(device_bar(ledger) for ledger in result.devices)

    @block.register
    def _several_gpus(self, result: SeveralGpusResult, name: str) -> Html:
        return several_gpus_block(result, self.drawn, name)

    @block.register
    def _threads(self, result: ThreadsResult, name: str) -> Html:  # noqa: ARG002
        bars = [thread_bar(thread) for thread in result.threads[:_MAX_THREADS]]
        hidden = len(result.threads) - len(bars)
        return join([*bars, _note(f"… and {hidden} more driver threads") if hidden > 0 else NOTHING])

    @block.register
    def _steps(self, result: StepsResult, name: str) -> Html:
        torn = f"; {result.torn} torn at the edges of the trace are left out" if result.torn else ""
        told = [tag("p", text(f"{human_count(result.steps.height)} steps begin in the window{torn}."))]
        if result.prompts is not None:
            told.append(tag("p", text(f"{prompt_sentence(result.prompts)}.")))
        bars = [phase_bar(cost) for cost in result.by_phase.values() if sum(cost.ledger.values())]
        if bars:
            bars.insert(0, tag("h3", text("Where the time of a token goes")))
        plot = self.drawn(name, figure(result), "Milliseconds per token of every step, over time")
        hint = _note("Click a step to see it in the timeline of the whole window; the slowest ones open below.")
        return join([*told, _phases(result), *bars, plot, hint, _slowest(result), slow_steps(result)])

    @block.register
    def _step(self, result: StepDetail, name: str) -> Html:  # noqa: ARG002
        return step_detail(result)

    @block.register
    def _advice(self, result: AdviceResult, name: str) -> Html:  # noqa: ARG002
        if result.withheld is not None:
            return self.nothing(f"{result.withheld[:1].upper()}{result.withheld[1:]}.")
        return tag("ol", *(_experiment(item) for item in result.items), class_="advice") if result.items else NOTHING

    @block.register
    def _limits(self, result: LimitsResult, name: str) -> Html:
        told = [tag("p", text(line)) for line in limit_sentences(result)]
        if result.by_quant.is_empty():
            return join(told)
        columns = [
            words("format", lambda row: str(row["quant"])),
            _figure("GB/s", "gb_per_s", ".1f"),
            share("of peak", "share_of_peak"),
            ns("a token", "ns_per_token"),
            size("bytes a token", "bytes_per_token"),
        ]
        rows = table("Matrices, by the format of their weights", result.by_quant, columns)
        return join([*told, self.drawn(name, figure(result), "Reading speed by the format of the weights"), rows])

    @block.register
    def _depth(self, result: DepthResult, name: str) -> Html:
        if result.bins.is_empty():
            return NOTHING
        told = [tag("p", text(line)) for line in (f"Depth: {result.told}.", *growth_sentences(result))]
        columns = [
            words("depth", lambda row: f"{row['lo']:,} to {row['hi']:,}"),
            count("batch", "batch"),
            count("steps", "steps"),
            _milliseconds("ms p50", "ms_p50"),
            ns("kernels", "kernel_ns"),
            ns("attention", "attention_ns"),
            share("of the kernels", "attention_share"),
        ]
        rows = table("Decode steps against depth", result.bins, columns)
        return join([*told, self.drawn(name, figure(result), "Milliseconds per step against depth"), rows])

    @block.register
    def _roles(self, result: RolesResult, name: str) -> Html:
        if result.why_none is not None:
            return _note(f"Tensors are not told apart: {result.why_none}.")
        rate = [
            ns("a step", "ns"),
            size("bytes", "bytes"),
            _figure("GB/s", "gb_per_s", ".1f"),
            share("of peak", "share_of_peak"),
        ]
        told = f"Mean of {result.steps:,} decode steps of {result.batch}; {result.others:,} more are not shown."
        kinds = [words("tensor", lambda row: row["role"]), words("format", lambda row: row["types"] or "–")]
        by_role = table("Matrices by tensor", result.roles, [*kinds, share("of matrices", "share"), *rate])
        layer = Column("layer", lambda row: row["layer"], str)
        one = [layer, words("tensor", lambda row: row["role"]), words("format", lambda row: row["type"] or "–")]
        by_cell = table("Matrices by layer and tensor", result.cells, [*one, *rate])
        plot = self.drawn(name, figure(result), "Time of a step's matrix kernels by layer and tensor")
        return join([tag("p", text(told)), by_role, plot, by_cell])

    @block.register
    def _startup(self, result: StartupResult, name: str) -> Html:  # noqa: ARG002
        told = []
        if result.window is not None:
            columns = [
                words("part", lambda row: START_PARTS[row["name"]]),
                ns("time", "dur_ns"),
                ns("CUDA calls", "api_ns"),
                ns("OS calls", "os_ns"),
                ns("on files", "disk_ns", "while nothing is uploaded"),
                ns("uploading", "copy_ns"),
                size("uploaded", "copy_bytes"),
            ]
            title = f"Start: {human_ns(result.window.dur_ns)} to the first token"
            told = [tag("p", text(start_sentence(result))), table(title, result.spans, columns)]
        if result.milestones.height:
            moments = ", ".join(f"{what} at {ms:,.1f} ms" for what, ms in result.milestones.rows())
            told.append(_note(f"The program's log, on its own clock: {moments}."))
        return join(told)

    @block.register
    def _program(self, result: ProgramResult, name: str) -> Html:  # noqa: ARG002
        rows = [_printed(row) for row in result.rows if row.numbers.tokens_per_s is not None or row.numbers.ms]
        columns = [
            words("measurement", lambda row: row["name"]),
            _figure("printed ms", "ms", ",.2f"),
            _figure("printed tokens/s", "printed", ",.1f"),
            _figure("trace tokens/s", "trace", ",.1f"),
            _figure("difference", "difference", "+.1%"),
        ]
        return table("What the program printed, and the trace", rows, columns) if rows else NOTHING

    @block.register
    def _sync(self, result: SyncResult, name: str) -> Html:
        if result.share_of_api is None:
            return self.nothing("No CUDA API call in this window.")
        told = [
            (
                f"Synchronizing functions are {human_share(result.share_of_api)} of all time in CUDA calls "
                f"({human_share(result.sync_copy_share)} with copies that blocked)."
            )
        ]
        if result.wait_share is not None:
            told.append(
                f"During {human_share(result.wait_share)} of the driver threads' sync time a GPU they feed was busy: "
                "that part is waiting for work, not a loss."
            )
        classes = table(
            "What synchronizing calls waited for",
            result.by_class,
            [
                words("class", lambda row: row["class"]),
                words("meaning", lambda row: SYNC_CLASSES[row["class"]]),
                count("calls", "calls"),
                ns("total", "total_ns"),
            ],
        )
        calls = table(
            "CUDA calls",
            result.by_api,
            [
                words("call", lambda row: row["name"] or ""),
                share("of API time", "share_of_api"),
                ns("total", "total_ns"),
                count("calls", "calls"),
                words("class", lambda row: row["class"] or ""),
            ],
        )
        plot = self.drawn(name, figure(result), "Sync time by what the calls waited for")
        return join([*(tag("p", text(line)) for line in told), plot, classes, calls])

    @block.register
    def _launch(self, result: LaunchResult, name: str) -> Html:
        if not result.launches and not result.graph.launches:
            return self.nothing("Nothing was launched in this window.")
        told = [f"{human_count(result.launches)} launch calls, {human_count(result.pairs)} kernels paired with theirs."]
        if result.shorter_than_launch_share is not None:
            told.append(
                f"{human_share(result.shorter_than_launch_share)} of kernels are shorter than their own launch call."
            )
        if result.orphans:
            told.append(f"{human_count(result.orphans)} GPU operations have no API row.")
        if result.excluded_capture:
            told.append(f"{human_count(result.excluded_capture)} launches only recorded a graph and are left out.")
        parts = {
            "launch call": result.api_ns,
            "queue": result.queue_ns,
            "kernel": result.kern_ns,
            "call to end of kernel": result.total_ns,
        }
        rows = [{"part": part, **_quantiles(values)} for part, values in parts.items()]
        quantiles = table(
            "Launches",
            rows,
            [
                words("part", lambda row: row["part"]),
                ns("p50", "p50"),
                ns("p90", "p90"),
                ns("p99", "p99"),
                ns("mean", "mean"),
            ],
        )
        plot = (
            self.drawn(name, figure(result), "Quantiles of launch calls, queue times and kernels")
            if result.pairs
            else NOTHING
        )
        return join([tag("p", text(" ".join(told))), plot, quantiles, _graphs(result)])

    @block.register
    def _copies(self, result: CopiesResult, name: str) -> Html:
        if result.hist.is_empty():
            return self.nothing("No copy in this window.")
        blocked = (
            f"{human_count(result.blocking_count)} copies held their caller, for {human_ns(result.blocking_ns)} in all."
            if result.blocking_count
            else "No copy held its caller."
        )
        rows = table(
            "Copies by direction, memory and size",
            result.hist,
            [
                words("direction", lambda row: row["label"]),
                words("host memory", lambda row: row["memory"] or "–"),
                Column("size from", lambda row: row["lo_bytes"], human_bytes),
                count("count", "count"),
                size("bytes", "bytes"),
                ns("time", "total_ns"),
                Column("GB/s", lambda row: row["gb_per_s"], lambda value: f"{value:.2f}"),
                count("blocking", "blocking_count"),
            ],
        )
        return join([tag("p", text(blocked)), self.drawn(name, figure(result), "Number of copies by size"), rows])

    @block.register
    def _gaps(self, result: GapsResult, name: str) -> Html:
        plot = self.drawn(name, figure(result), "Idle time by the length of the gap") if result.devices else NOTHING
        return join([plot, *(_longest(device, result.window.start_ns) for device in result.devices)])

    @block.register
    def _host_functions(self, result: HostFunctionsResult, name: str) -> Html:
        pieces = [_explained(device) for device in result.devices]
        if any(device.functions.height for device in result.devices):
            pieces.insert(0, self.drawn(name, figure(result), "Functions that ran on the CPU while the GPU idled"))
        return join(pieces)

    @block.register
    def _hotspots(self, result: HotspotResult, name: str) -> Html:
        if set(result.rows[result.by]) <= {"other", "none"}:  # no kernel of llama.cpp: the split says nothing
            return NOTHING
        rows = table(
            f"Kernels by {result.by}",
            result.rows,
            [
                words(result.by, lambda row: str(row[result.by])),
                share("of kernel time", "share"),
                ns("total", "total_ns"),
                count("count", "count"),
            ],
        )
        if result.by != "category":
            return rows
        return _beside(self.drawn(name, figure(result), f"Kernel time by {result.by}"), rows)

    @block.register
    def _sum(self, result: SumResult, name: str) -> Html:
        if result.rows.is_empty():
            return NOTHING
        if result.kind == "kern_exec_sum":
            return _exec_table(result.rows)
        if result.kind == "mem_size_sum":
            return table(
                TITLES[name],
                result.rows,
                [
                    words("what", lambda row: row["name"]),
                    size("total", "total_bytes"),
                    count("count", "count"),
                    size("avg", "avg_bytes"),
                    size("med", "med_bytes"),
                    size("min", "min_bytes"),
                    size("max", "max_bytes"),
                ],
            )
        rows = table(TITLES[name], result.rows, _duration_columns(result), more=_csv_hint(name))
        if result.kind != "kernel_sum":
            return rows
        return join([self.drawn(name, figure(result), "Kernels with most time"), rows])

    @block.register
    def _os_threads(self, result: OsThreadsResult, name: str) -> Html:
        if not result.threads:
            return self.nothing("No OS runtime call was recorded.")
        rows = table(
            "OS runtime calls by thread",
            [_os_row(thread) for thread in result.threads],
            [
                words("thread", lambda row: row["name"]),
                words("drives a GPU", lambda row: row["driver"]),
                ns("in OS calls", "total_ns"),
                ns("of", "span_ns"),
                words("calls", lambda row: row["calls"]),
            ],
        )
        return join([self.drawn(name, figure(result), "OS runtime time by thread"), rows])


def _experiment(item: Item) -> Html:
    most = "" if item.max_speedup is None else f" at most {item.max_speedup:.2f}× in {item.phase}"
    evidence = ", ".join(one.path for one in item.evidence)
    return tag(
        "li",
        tag("p", tag("code", text(item.change)), text(most)),
        tag("p", text(f"because {item.why}")),
        tag("p", text(f"from {evidence}; refuted if {item.refuted_by}"), class_="note"),
    )


def _printed(row: ProgramRow) -> Row:
    return {
        "name": f"{row.numbers.tool} {row.numbers.label}",
        "printed": row.numbers.tokens_per_s,
        "ms": row.numbers.ms,
        "trace": row.trace_tokens_per_s,
        "difference": row.difference,
    }


def _figure(head: str, key: str, form: str) -> Column:
    return Column(head, lambda row: row[key], lambda value: format(value, form))


def _phases(result: StepsResult) -> Html:
    rows = [
        {"phase": cost.phase, "count": cost.count, "tokens": cost.tokens, "rate": cost.tokens_per_s}
        | dict(cost.ms_per_token)
        | dict(cost.counts)
        for cost in result.by_phase.values()
    ]
    columns = [
        words("phase", lambda row: row["phase"]),
        count("steps", "count"),
        count("tokens", "tokens"),
        Column("tokens/s", lambda row: row["rate"], lambda value: f"{value:,.1f}"),
    ]
    columns += [_milliseconds(f"ms/token {name}", name) for name in ("p50", "p95", "p99", "max")]
    columns += [_per_token(name) for name in ("kernels", "launches", "syncs")]
    return table("Phases", rows, columns)


def _per_token(key: str) -> Column:
    return Column(f"{key}/token", lambda row: row[key], lambda value: f"{value:.2f}")


def _milliseconds(head: str, key: str) -> Column:
    return Column(head, lambda row: row[key], lambda value: f"{value:.3f}")


def _slowest(result: StepsResult) -> Html:
    origin = result.window.start_ns
    return table(
        "Slowest steps, against the median of their like",
        result.slowest,
        [
            count("step", "index"),
            words("phase", lambda row: row["phase"]),
            ns("took", "period_ns"),
            Column("times the median", lambda row: row["times"], lambda value: f"{value:.2f}×"),
            Column("at", lambda row: row["begin_ns"] - origin, human_ns, hint="from the window's start"),
            words("what was different", lambda row: row["cause"]),
        ],
    )


def _beside(*pieces: Html) -> Html:
    """Next to each other where the screen is wide enough."""
    return tag("div", *pieces, class_="beside")


def _note(line: str) -> Html:
    return tag("p", text(line), class_="note")


def _csv_hint(section: str) -> str:
    return f"; `nsyskit analyze -a {section} --format csv` writes all of them"


def kernel_name() -> Column:
    return words("name", lambda row: cut(shortened(row["name"] or "")), full=lambda row: row["name"] or "")


def cut(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A name for a cell; the rest is in its title."""
    return name if len(name) <= characters else f"{name[: characters - 1]}…"


def _duration_columns(result: SumResult) -> list[Column]:
    columns = [
        kernel_name(),
        share("time", "time_share", "share of the listed rows"),
        ns("total", "total_ns"),
        count("count", "count"),
        ns("avg", "avg_ns"),
        ns("p50", "med_ns", "median"),
        ns("min", "min_ns"),
        ns("max", "max_ns"),
    ]
    known = result.rows.columns
    if "p99_ns" in known:
        columns.insert(6, ns("p99", "p99_ns"))
    facts = [fact for fact in ("category", "quant") if fact in known and result.rows[fact].drop_nulls().len()]
    if "gb_per_s" in known and result.rows["gb_per_s"].drop_nulls().len():
        hint = "weights of its format, over the time of all kernels that read them, in decode steps of one token"
        columns.append(Column("GB/s", lambda row: row["gb_per_s"], lambda value: f"{value:.1f}", hint=hint))
    return columns + [_fact(fact) for fact in facts]


def _fact(name: str) -> Column:
    return words(name, lambda row: str(row[name] or "–"))


def _exec_table(rows: pl.DataFrame) -> Html:
    return table(
        TITLES["kern_exec_sum"],
        rows,
        [
            words("kernel", lambda row: cut(shortened(row["kernel"])), full=lambda row: row["kernel"]),
            words("call", lambda row: row["api"]),
            count("pairs", "count"),
            count("queued", "queue_count"),
            ns("call avg", "api_avg_ns"),
            ns("queue avg", "queue_avg_ns"),
            ns("kernel avg", "kernel_avg_ns"),
            ns("kernel max", "kernel_max_ns"),
        ],
        more=_csv_hint("kern_exec_sum"),
    )


def _quantiles(values: Quantiles) -> dict[str, float | int | None]:
    return {"p50": values.p50, "p90": values.p90, "p99": values.p99, "mean": values.mean}


def _graphs(result: LaunchResult) -> Html:
    graph = result.graph
    if not graph.launches:
        return _note("No CUDA graph was launched in this window.")
    rows = [
        {"what": "launches", "count": graph.launches},
        {"what": "recorded as a whole: their kernels are hidden", "count": graph.whole},
        {"what": "recorded node by node", "count": graph.recorded - graph.whole},
        {"what": "left no row: what they ran is unknown", "count": graph.launches - graph.recorded},
        {"what": "captures", "count": graph.captures},
        {"what": "instantiations", "count": graph.instantiations},
        {"what": "updates", "count": graph.updates},
        {"what": "destroys", "count": graph.destroys},
    ]
    how = "node by node" if graph.node_level else "as a whole"
    told = tag("p", text(f"Graphs were traced {how}; {human_share(graph.coverage)} of their launches left rows."))
    return join([told, table("CUDA graphs", rows, [words("what", lambda row: row["what"]), count("count", "count")])])


def cause_split(row: Mapping[str, Any], most: int = len(CAUSES)) -> str:
    """A gap's causes, largest first: ``host 80.0 %, sync 20.0 %``."""
    causes = sorted((-row[cause], cause) for cause in CAUSES if row[cause])[:most]
    return ", ".join(f"{cause} {human_share(-value / row['dur_ns'])}" for value, cause in causes)


def _longest(device: DeviceGaps, origin: int) -> Html:
    return table(
        f"Longest bubbles of {gpu_label(device.use)}",
        device.longest,
        [
            Column("length", lambda row: row["dur_ns"], human_ns),
            Column("at", lambda row: row["start_ns"] - origin, human_ns, hint="from the window's start"),
            words("causes", lambda row: cause_split(row, 3)),
            words(
                "operation before",
                lambda row: cut(shortened(row["before"] or "–"), 60),
                full=lambda row: row["before"] or "–",
            ),
            words(
                "operation after",
                lambda row: cut(shortened(row["after"] or "–"), 60),
                full=lambda row: row["after"] or "–",
            ),
        ],
    )


def _explained(device: DeviceHostFunctions) -> Html:
    name = gpu_label(device.use)
    pieces = []
    if device.running_ns is not None and device.descheduled_ns is not None:
        told = (
            f"Of the time {name} idled for the CPU, a driver thread was running {human_ns(device.running_ns)} "
            f"and none was {human_ns(device.descheduled_ns)}."
        )
        pieces.append(tag("p", text(told)))
    if device.functions.height:
        pieces.append(
            table(
                f"CPU functions while {name} idled",
                device.functions,
                [
                    words("function", lambda row: cut(row["function"]), full=lambda row: row["function"]),
                    words("module", lambda row: row["module"] or ""),
                    words("cause", lambda row: row["cause"]),
                    share("of the cause's samples", "share"),
                    count("samples", "samples"),
                ],
            )
        )
    if device.waits.height:
        pieces.append(
            table(
                f"OS calls while {name} idled",
                device.waits,
                [
                    words("call", lambda row: row["name"]),
                    ns("idle time", "total_ns"),
                    count("count", "count"),
                    words("under", lambda row: cut(_chain(row["frames"])), full=lambda row: _chain(row["frames"], 20)),
                ],
            )
        )
    return join(pieces)


def _chain(frames: list[str] | None, most: int = 4) -> str:
    return chain(frames or [], most, otherwise="–")


def _os_row(thread: OsThread) -> Row:
    calls = ", ".join(
        f"{row['name']} {human_ns(row['total_ns'])} ×{row['count']:,}"
        for row in thread.calls.head(4).iter_rows(named=True)
    )
    return {
        "name": f"{thread.tid} {thread.name or ''}".strip(),
        "driver": "yes" if thread.driver else "–",
        "total_ns": thread.total_ns,
        "span_ns": thread.span_ns,
        "calls": calls,
    }
