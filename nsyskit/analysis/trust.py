"""How far the numbers of a trace can be trusted. Printed before everything else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.devices import DevicesResult, devices
from nsyskit.analysis.faults import clocks, doubled_rows, lost_calls, lost_kernels
from nsyskit.analysis.gpus import gpu_uses
from nsyskit.analysis.launch import LaunchResult, launch
from nsyskit.analysis.launches import launched
from nsyskit.analysis.pairing import api_calls, gpu_ops
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.frames import summed
from nsyskit.intervals import clip, length, union
from nsyskit.trace import Trace, Window

Level = Literal["note", "warning", "error"]
_DROPPED: Final = "(?i)drop|lost|incomplete|overflow|not enough|missing"
_PROFILER_WARNING: Final = 0.05
_BAD_ROWS_ERROR: Final = 0.01
_CLOCK_ERROR: Final = 0.01
_LOST_ERROR: Final = 0.05
_CALLS_ERROR: Final = 0.2
_LEVELS: Final = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class TrustNote:
    """One fact about the trace. ``code`` is stable, for scripts; an ``error`` withholds the verdict."""

    level: Level
    code: str
    message: str


def trust(trace: Trace, *, window: Window | None = None) -> tuple[TrustNote, ...]:
    """Everything that limits the numbers, errors first; never raises for what a trace lacks."""
    notes = [*_provenance(trace), *_not_collected(trace), *_diagnostics(trace)]
    if trace.meta.sources.get("cuda", False):
        notes += [
            *_kernels(trace),
            *_bad_rows(trace),
            *_doubled(trace),
            *_homeless(trace),
            *_clocks(trace),
            *_lost(trace),
        ]
        looked_at = window or _window(trace)
        if looked_at is not None:
            notes += [*_graphs(launch(trace, window=window)), *_orphans(trace), *_overheads(trace, looked_at)]
            notes += _ledger(devices(trace, window=window))
    return errors_first(notes)


def errors_first(notes: Iterable[TrustNote]) -> tuple[TrustNote, ...]:
    """Notes by level, otherwise in their order."""
    return tuple(sorted(notes, key=lambda note: _LEVELS[note.level]))


def _window(trace: Trace) -> Window | None:
    try:
        return default_window(trace)
    except MissingTableError:
        return None


def _provenance(trace: Trace) -> list[TrustNote]:
    meta = trace.meta
    if meta.nsys_version is None:
        return [TrustNote("note", "no_metadata", "the export names no nsys version (2021 or older)")]
    return [TrustNote("note", "nsys", f"exported by nsys {meta.nsys_version}, schema {meta.schema_version}")]


def _not_collected(trace: Trace) -> list[TrustNote]:
    absent = [source for source, collected in trace.meta.sources.items() if not collected]
    if not absent:
        return []
    level: Level = "warning" if "cuda" in absent else "note"
    return [TrustNote(level, "not_collected", f"not collected: {', '.join(absent)}")]


def _diagnostics(trace: Trace) -> list[TrustNote]:
    """What nsys itself said it lost. Only counts are shown: its messages name files and processes."""
    said = trace.tables["diagnostics"].filter(
        pl.col("severity").is_in(["warning", "error"]) & pl.col("text").str.contains(_DROPPED)
    )
    count = said.select(pl.len()).collect().item()
    if not count:
        return []
    text = f"nsys warned {count} time(s) of dropped or incomplete events; capture a shorter window or fewer sources"
    return [TrustNote("warning", "dropped_events", text)]


def _kernels(trace: Trace) -> list[TrustNote]:
    launches = len(launched(trace))
    if launches == 0 or any(table.select(pl.len()).collect().item() for table in (trace.kernels, trace.graphs)):
        return []
    text = (
        f"{launches:,} kernel launches but not one kernel row: CUPTI lost them; "
        "capture again with a newer nsys or `-t cuda-sw` (`nsyskit doctor` checks driver against nsys)"
    )
    return [TrustNote("error", "kernels_missing", text)]


def _bad_rows(trace: Trace) -> list[TrustNote]:
    """Rows that ingest left out because their times cannot be."""
    if "bad_rows" not in trace.tables:
        return []
    bad = trace.tables["bad_rows"].collect()
    notes = []
    for table, rows in bad.group_by("table", maintain_order=True).agg(pl.col("rows").sum()).iter_rows():
        kept = trace.tables[table].select(pl.len()).collect().item()
        level: Level = "error" if rows > _BAD_ROWS_ERROR * (rows + kept) else "warning"
        text = f"{rows:,} of {rows + kept:,} rows of {table} end before they begin or lie beyond any clock: left out"
        notes.append(TrustNote(level, "bad_rows", text))
    return notes


def _doubled(trace: Trace) -> list[TrustNote]:
    totals = {"GPU rows": gpu_ops(trace).height, "API rows": api_calls(trace).height}
    notes = []
    for what, rows in doubled_rows(trace).items():
        level: Level = "error" if rows > _BAD_ROWS_ERROR * totals[what] else "warning"
        text = f"{rows:,} of {totals[what]:,} {what} are there twice: their sums and counts are too high"
        notes.append(TrustNote(level, "duplicates", text))
    return notes


def _clocks(trace: Trace) -> list[TrustNote]:
    """GPU and CPU rows of one clock never let work begin before its call, nor end after a call that waited for it."""
    seen = clocks(trace)
    shares = {
        f"{seen.early:,} of {seen.ops:,} GPU operations begin before their own call": (seen.early, seen.ops),
        f"{seen.late:,} of {seen.waits:,} waiting calls return before their work is done": (seen.late, seen.waits),
    }
    notes = []
    for text, (count, total) in shares.items():
        if count:
            level: Level = "error" if count > _CLOCK_ERROR * total else "warning"
            notes.append(TrustNote(level, "clock_offset", f"{text}: the clocks of GPU and CPU rows disagree"))
    return notes


def _lost(trace: Trace) -> list[TrustNote]:
    seen = lost_kernels(trace)
    if not seen.lost or seen.lost == seen.launches:
        return []
    level: Level = "error" if seen.lost > _LOST_ERROR * seen.launches else "warning"
    code, where = ("truncated", " at the end") if seen.at_end else ("kernels_lost", "")
    text = f"{seen.lost:,} of {seen.launches:,} kernel launches{where} left no GPU row: their work is counted as idle"
    return [TrustNote(level, code, text)]


def _graphs(result: LaunchResult) -> list[TrustNote]:
    health = result.graph
    notes = []
    if health.node_level:
        text = "CUDA graphs were traced node by node: every kernel is visible, but short tokens are distorted"
        notes.append(TrustNote("warning", "node_level", text))
    if health.coverage == 0:
        text = (
            f"{health.launches:,} CUDA graph launches left no row: what they ran is unknown; "
            "export with nsys 2024 or later, or capture with --cuda-graph-trace=node"
        )
        notes.append(TrustNote("error", "graphs_missing", text))
    elif health.coverage is not None and health.coverage < 1:
        text = (
            f"only {health.recorded:,} of {health.launches:,} CUDA graph launches left rows "
            f"({health.coverage:.1%}); the rest is counted as unknown"
        )
        notes.append(TrustNote("warning", "graph_coverage", text))
    return notes


def _homeless(trace: Trace) -> list[TrustNote]:
    """Rows that cannot be put on the account of any GPU."""
    ops = gpu_ops(trace)
    (rows,) = summed(ops, (pl.col("pid").is_null() | pl.col("device").is_null()).sum())
    if not rows:
        return []
    level: Level = "error" if rows > _BAD_ROWS_ERROR * ops.height else "warning"
    text = f"{rows:,} of {ops.height:,} GPU rows name no process or no device: whose work they are is unknown"
    return [TrustNote(level, "no_process", text)]


def _orphans(trace: Trace) -> list[TrustNote]:
    orphans = gpu_ops(trace)["call"].null_count()
    if not orphans:
        return []
    total = gpu_ops(trace).height
    text = f"{orphans:,} of {total:,} GPU rows have no API row (cut or dropped)"
    return [TrustNote("warning", "orphans", text), *_steps(trace)]


def _steps(trace: Trace) -> list[TrustNote]:
    """What lost calls do to steps: their borders are calls."""
    seen = lost_calls(trace)
    if not seen.touched:
        return []
    level: Level = "error" if seen.lost > _CALLS_ERROR * seen.calls else "warning"
    begins = f", {seen.begins:,} of them at their begin" if seen.begins else ""
    text = (
        f"{seen.lost / seen.calls:.1%} of the calls of steps are lost, in {seen.touched:,} of {seen.steps:,} "
        f"steps{begins}: "
        "a step there may be missed, joined to the one before or begin late, and counts of calls are too low; "
        "medians stand, single steps may not"
    )
    return [TrustNote(level, "steps_lossy", text)]


def _overheads(trace: Trace, window: Window) -> list[TrustNote]:
    pids = sorted({pid for use in gpu_uses(trace) for pid in use.pids})
    rows = trace.overheads.filter(pl.col("pid").is_in(pids)).collect()
    share = length(union(clip(rows, window.start_ns, window.end_ns))) / window.dur_ns if window.dur_ns else 0.0
    if share == 0:
        return []
    level: Level = "warning" if share >= _PROFILER_WARNING else "note"
    return [TrustNote(level, "profiler_share", f"the profiler itself worked in {share:.1%} of the window")]


def _ledger(result: DevicesResult) -> list[TrustNote]:
    notes = []
    for ledger in result.devices:
        if ledger.overlap_ns:
            text = f"kernels overlap by {ledger.overlap_ns:,} ns: their durations sum to more than the GPU's time"
            notes.append(TrustNote("note", "overlap", text))
        if ledger.graph_ns:
            share = ledger.graph_ns / ledger.busy_ns
            text = (
                f"{share:.1%} of GPU time lies inside CUDA graphs traced as a whole: the kernel split below covers "
                "the rest only; capture with --cuda-graph-trace=node to see inside"
            )
            notes.append(TrustNote("warning", "graphs_opaque", text))
        parts = ledger.kernel_ns + ledger.graph_ns + ledger.memcpy_ns + ledger.memset_ns
        whole = ledger.busy_ns == parts and sum(ledger.idle.values()) == ledger.idle_ns
        if not whole or ledger.busy_ns + ledger.idle_ns != ledger.window_ns:
            notes.append(TrustNote("error", "invariant", "a ledger does not sum to its window; please report this"))
    return notes
