"""Why a GPU was idle: each idle instant goes to the first cause that holds at it.

``CAUSES`` is the order. A cause is a set of instants, so the parts of idle are disjoint and sum to it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from nsyskit.analysis.calls import classify_calls
from nsyskit.analysis.gpus import GpuUse, busy_of, feeds, gpu_uses, idle_of, ops_of
from nsyskit.analysis.launches import calls_named
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.pairing import api_calls, call_classes, gpu_ops, handing
from nsyskit.frames import kept, selected
from nsyskit.intervals import clip, intersect, span, split, subtract, union
from nsyskit.schema import LATEST_NS
from nsyskit.trace import Trace, Window

CAUSES: Final = ("unknown", "peer", "dispatch", "submit", "sync", "cuda", "profiler", "blocked", "os", "host")
OsClass = pl.Enum(["blocked", "os"])
THREAD_PARTS: Final = ("sync", "submit", "cuda", "blocked", "os")
"""Classes of calls that a thread may be inside of."""
_PROFILER_WORDS: Final = "(?i)flush|overhead|buffer"
_SPAN: Final = ("start_ns", "end_ns")


def idle_by_cause(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    """The instants of the window at which the GPU did nothing: cause -> merged ``start_ns end_ns``."""
    causes = causes_over(trace, use, window)
    return {cause: clip(instants, window.start_ns, window.end_ns) for cause, instants in causes.items()}


def causes_over(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    """As ``idle_by_cause``, but not cut at the window: what lies beyond it says nothing.

    The causes of the whole trace serve every window that the same threads feed; copies of them would fill the memory.
    """
    whole = whole_window(trace)
    drivers = _drivers(trace, use, window)
    if not whole.holds(window) or _needs_window(trace, use) or not drivers.equals(_drivers(trace, use, whole)):
        return _idle_by_cause(trace, use, window)
    return _idle_by_cause(trace, use, whole)


@once_per_trace
def whole_window(trace: Trace) -> Window:
    """From the first row of calls and operations to the last."""
    edges = pl.col("start_ns").min(), pl.col("end_ns").max()
    start, end = pl.concat([frame.select(edges) for frame in (api_calls(trace), gpu_ops(trace))]).select(edges).row(0)
    return Window("all", start or 0, end or 0)


def _needs_window(trace: Trace, use: GpuUse) -> bool:
    """Whether an unknown stretch may depend on where the window cuts it: those before orphans do."""
    return ops_of(trace, use)["call"].null_count() > 0


def _drivers(trace: Trace, use: GpuUse, window: Window) -> pl.DataFrame:
    """The threads that feed the GPU in the window: ``pid tid``."""
    return feeds(trace, window).filter(pl.col("use") == gpu_uses(trace).index(use)).select("pid", "tid")


@once_per_trace
def _idle_by_cause(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    drivers = _drivers(trace, use, window)
    inside = {part: _of_any(trace, drivers, part) for part in THREAD_PARTS}
    calls = [inside[part] for part in ("submit", "sync", "cuda")]
    parts = {"unknown": _unknown(trace, use, window, calls), "peer": _peer(trace, use, window)}
    at_once = _dispatch_and_rest(trace, use, window) if all(part.is_empty() for part in parts.values()) else None
    if at_once is not None:
        parts["dispatch"], left = at_once
    else:
        left = idle_of(trace, use, window)
        for cause, layer in (parts | {"dispatch": union(_pending(trace, use, window))}).items():
            parts[cause], left = split(left, layer)
    layers = inside | {"profiler": union(clip(_profiler(trace, drivers), window.start_ns, window.end_ns))}
    for cause in (cause for cause in CAUSES if cause in layers):
        parts[cause], left = split(left, layers[cause])
    return parts | {"host": left}


def _of_any(trace: Trace, threads: pl.DataFrame, part: str) -> pl.DataFrame:
    """When any of the threads was inside calls of a class."""
    frames = [thread_instants(trace, pid, tid)[part] for pid, tid in threads.iter_rows()]
    return frames[0] if len(frames) == 1 else union(pl.concat([span(0, 0), *frames]))


@once_per_trace
def thread_instants(trace: Trace, pid: int, tid: int) -> dict[str, pl.DataFrame]:
    """When a thread was inside calls of each class of ``THREAD_PARTS``: merged, over the whole trace."""
    own = (pl.col("pid") == pid) & (pl.col("tid") == tid)
    calls = api_calls(trace).select(*_SPAN, "pid", "tid").with_columns(call_classes(trace).alias("class"))
    os_calls = classified_os_calls(trace).select(calls.columns)
    return {
        part: union(selected(rows, own & (pl.col("class") == part), "start_ns", "end_ns"))
        for rows, parts in ((calls, ("sync", "submit", "cuda")), (os_calls, ("blocked", "os")))
        for part in parts
    }


@once_per_trace
def classified_os_calls(trace: Trace) -> pl.DataFrame:
    """OS runtime calls with their class: ``start_ns end_ns pid tid name_id callchain_id class`` (blocked, os)."""
    calls = trace.os_calls.collect()
    names = strings_of(trace, calls["name_id"]).rename({"string_id": "name_id", "value": "name"})
    classes = classify_calls(names, "os").select("name_id", "class")
    return calls.with_columns(
        pl.col("name_id")
        .replace_strict(classes["name_id"], classes["class"].cast(OsClass), default="os", return_dtype=OsClass)
        .alias("class")
    )


def _of_threads(rows: pl.DataFrame, threads: pl.DataFrame) -> pl.DataFrame:
    if threads.height == 1:  # as nearly always; a join of a million rows costs five times the comparison
        pid, tid = threads.row(0)
        return kept(rows, (pl.col("pid") == pid) & (pl.col("tid") == tid))
    return rows.join(threads, on=["pid", "tid"], how="semi", maintain_order="left")


def _dispatch_and_rest(trace: Trace, use: GpuUse, window: Window) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The idle instants at which an operation was handed over and had not begun, and all others; both merged.

    That is, where no cause before this one took any.

    No operation begins inside a gap, so what is pending there is what begins at its end or later: before each operation
    the GPU waits for it from the end of all before it, or from the first end of a call that handed it or a later one
    over. None where an operation took no time, which may begin inside a gap.
    """
    ops = ops_of(trace, use)
    if (ops["start_ns"] == ops["end_ns"]).any():
        return None
    ends, over = ops["end_ns"], ops["call_end_ns"]
    ends = ends if ends.is_sorted() else ends.cum_max()
    if over.null_count() or not over.is_sorted():
        over = over.fill_null(LATEST_NS).cum_min(reverse=True)
    rows = ops.select("start_ns", done=ends.shift(fill_value=window.start_ns), over=over)
    start, done, handed_over = pl.col("start_ns"), pl.col("done"), pl.col("over")
    begins, until = pl.max_horizontal(done, handed_over), pl.min_horizontal(handed_over, start)
    pending = selected(rows, begins < start, start_ns=begins, end_ns=start)
    others = selected(rows, done < until, start_ns=done, end_ns=until)
    others = pl.concat([others, span(ends[-1] if len(ends) else window.start_ns, window.end_ns)]).rechunk()
    return clip(pending, window.start_ns, window.end_ns), clip(others, window.start_ns, window.end_ns)


def _pending(trace: Trace, use: GpuUse, window: Window) -> pl.DataFrame:
    """Operations handed over but not begun: from the end of the call to the start on the GPU, with ``pid``."""
    waits = ops_of(trace, use).filter(pl.col("call_end_ns") < pl.col("start_ns"))
    waits = waits.select(pl.col("call_end_ns").alias("start_ns"), pl.col("start_ns").alias("end_ns"), "pid")
    return clip(waits, window.start_ns, window.end_ns)


def _peer(trace: Trace, use: GpuUse, window: Window) -> pl.DataFrame:
    """Pending while another GPU that the same process feeds is busy."""
    if len(gpu_uses(trace)) == 1:
        return span(0, 0)
    pending = _pending(trace, use, window)
    pieces = []
    for pid in use.pids:
        others = [other for other in gpu_uses(trace) if other != use and pid in other.pids]
        if others:
            busy = union(pl.concat([busy_of(trace, other) for other in others]))
            pieces.append(intersect(union(pending.filter(pl.col("pid") == pid)), busy))
    return union(pl.concat(pieces)) if pieces else span(0, 0)


def _unknown(trace: Trace, use: GpuUse, window: Window, calls: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Instants that this file cannot explain. ``calls`` are those of the threads that feed the GPU."""
    if api_calls(trace).is_empty():
        return span(window.start_ns, window.end_ns)
    lost = lost_graph_launches(trace, use.pids).join(_elsewhere(trace, use, window), on=["pid", "tid"], how="anti")
    pieces = [clip(lost, window.start_ns, window.end_ns).select(_SPAN)]
    orphans = ops_of(trace, use).filter(pl.col("call").is_null())
    if not orphans.is_empty():
        before_orphans = idle_of(trace, use, window).filter(pl.col("end_ns").is_in(orphans["start_ns"].implode()))
        pieces.append(subtract(before_orphans, union(pl.concat(calls))).select(_SPAN))
    return union(pl.concat(pieces))


def _elsewhere(trace: Trace, use: GpuUse, window: Window) -> pl.DataFrame:
    """Threads that feed other GPUs and not this one: what they launched and lost did not run here."""
    here = _drivers(trace, use, window)
    return feeds(trace, window).select("pid", "tid").unique().join(here, on=["pid", "tid"], how="anti")


@once_per_trace
def lost_graph_launches(trace: Trace, pids: tuple[int, ...]) -> pl.DataFrame:
    """Graph launches that left no row on a GPU: ``start_ns end_ns pid tid``, until the thread's next sync has ended.

    What ran meanwhile was not recorded. Without a later sync the time is unknown to the end of the trace.
    """
    launches = calls_named(trace, "GraphLaunch").filter(pl.col("pid").is_in(pids))
    lost = launches.filter(~handing(trace)[launches["call"]])
    if lost.is_empty():
        return lost.select("start_ns", "end_ns", "pid", "tid")
    calls = api_calls(trace).filter(pl.col("pid").is_in(pids) & (call_classes(trace) == "sync"))
    syncs = calls.select("pid", "tid", pl.col("start_ns").alias("at"), until="end_ns")
    last = max(int(api_calls(trace)["end_ns"].max() or 0), int(gpu_ops(trace)["end_ns"].max() or 0))  # type: ignore[arg-type]
    ended = lost.sort("end_ns").join_asof(
        syncs.sort("at"),
        left_on="end_ns",
        right_on="at",
        by=["pid", "tid"],
        strategy="forward",
        check_sortedness=False,
    )
    return ended.select("start_ns", pl.col("until").fill_null(last).alias("end_ns"), "pid", "tid").sort("start_ns")


def _profiler(trace: Trace, drivers: pl.DataFrame) -> pl.DataFrame:
    """Rows of the profiler's own work: on a driver thread, or anywhere in its process when they stall all of it."""
    rows = trace.overheads.collect()
    names = strings_of(trace, rows["name_id"]).rename({"string_id": "name_id"})
    stalls = names.filter(pl.col("value").str.contains(_PROFILER_WORDS)).select("name_id")
    process_wide = rows.join(stalls, on="name_id", how="semi").join(drivers, on="pid", how="semi")
    return pl.concat([_of_threads(rows, drivers), process_wide]).select(_SPAN)
