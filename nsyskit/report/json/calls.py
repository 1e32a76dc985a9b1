"""Sums, CUDA calls, launches, copies and threads as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.launch import LaunchResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.sums import EXEC_STATISTICS, SumResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.threads import PARTS, ThreadsResult
from nsyskit.report.json.plain import finite, rows, section, span


@section.register
def _sum(result: SumResult) -> Any:
    if result.kind == "kern_exec_sum":
        return [_exec_row(row) for row in result.rows.iter_rows(named=True)]
    hidden = {"name_id", "short_name_id"}
    return rows(result.rows.select(name for name in result.rows.columns if name not in hidden))


def _exec_row(row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: row[name] for name in ("pid", "tid", "device", "api", "kernel", "count", "queue_count")}
    return plain | {
        f"{part}_ns": {name: finite(row[f"{part}_{name}_ns"]) for name in EXEC_STATISTICS}
        for part in ("total", "api", "queue", "kernel")
    }


@section.register
def _hotspots(result: HotspotResult) -> Any:
    return rows(result.rows)


@section.register
def _sync(result: SyncResult) -> Any:
    return {
        "calls": result.calls,
        "total_ns": result.total_ns,
        "share_of_api": result.share_of_api,
        "sync_copy_share": result.sync_copy_share,
        "wait_ns": result.wait_ns,
        "idle_ns": result.idle_ns,
        "wait_share": result.wait_share,
        "by_class": _by_class(result.by_class),
        "copies_by_class": _by_class(result.copies_by_class),
        "by_api": rows(result.by_api),
        "window": span(result.window),
    }


def _by_class(classes: pl.DataFrame) -> dict[str, Any]:
    return {row["class"]: {"calls": row["calls"], "total_ns": row["total_ns"]} for row in rows(classes)}


@section.register
def _launch(result: LaunchResult) -> Any:
    graph = result.graph
    return {
        "pairs": result.pairs,
        "launches": result.launches,
        "api_ns": asdict(result.api_ns),
        "queue_ns": asdict(result.queue_ns),
        "kern_ns": asdict(result.kern_ns),
        "total_ns": asdict(result.total_ns),
        "shorter_than_launch_share": result.shorter_than_launch_share,
        "orphans": result.orphans,
        "excluded_capture": result.excluded_capture,
        "graph": {
            "launches": graph.launches, "captures": graph.captures, "instantiations": graph.instantiations,
            "updates": graph.updates, "destroys": graph.destroys, "recorded": graph.recorded,
            "whole": graph.whole,
            "coverage": graph.coverage, "node_level": graph.node_level,
        },
        "window": span(result.window),
    }  # fmt: skip


@section.register
def _copies(result: CopiesResult) -> Any:
    return rows(result.hist)


@section.register
def _threads(result: ThreadsResult) -> Any:
    return [
        {
            "pid": thread.pid, "tid": thread.tid, "name": thread.name, "window_ns": thread.window.dur_ns,
            **{
                f"{part}_{half}_ns": values[part]
                for part in PARTS
                for half, values in (("busy", thread.busy), ("idle", thread.idle))
            },
        }
        for thread in result.threads
    ]  # fmt: skip


@section.register
def _os_threads(result: OsThreadsResult) -> Any:
    return [
        {
            "pid": thread.pid, "tid": thread.tid, "name": thread.name, "driver": thread.driver,
            "span_ns": thread.span_ns, "total_ns": thread.total_ns,
            "calls": rows(thread.calls), "chains": rows(thread.chains),
        }
        for thread in result.threads
    ]  # fmt: skip
