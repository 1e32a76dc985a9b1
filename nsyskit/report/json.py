"""The JSON document ``nsyskit.analysis/1``: stable names, sorted lists, nothing of the target's environment."""

from __future__ import annotations

import json
import math
from functools import singledispatch
from importlib import resources
from typing import Any

import polars as pl

from nsyskit.analysis.advice import AdviceResult
from nsyskit.analysis.analyze import Report
from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.gaps import GapsResult
from nsyskit.analysis.host_functions import HostFunctionsResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.launch import LaunchResult, Quantiles
from nsyskit.analysis.layers import LayersResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.prompt_cost import PromptCost
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.analysis.startup import StartupResult
from nsyskit.analysis.step_costs import PhaseCost, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.analysis.sums import EXEC_STATISTICS, SumResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.analysis.threads import PARTS, ThreadsResult
from nsyskit.analysis.verdict import Verdict
from nsyskit.trace import TraceMeta, Window

SCHEMA = "nsyskit.analysis/1"
_OF_STEPS = frozenset({"steps", "phases"})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, shipped with the package."""
    text = resources.files("nsyskit.report").joinpath("analysis.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def render_json(report: Report) -> str:
    """The document as text; keys in the order of the contract."""
    return json.dumps(document(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document as plain values. A section without a source is None; one not asked for is absent.

    Every single step is told only where steps were asked for by name.
    """
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "trace": _trace(report.meta, report.window, report),
        "trust": [{"level": note.level, "code": note.code, "message": note.message} for note in report.trust],
    }
    for name, result in report.sections.items():
        if name in {"gaps", "host_functions"}:  # they are told within their device
            continue
        body["mem_hist" if name == "copies" else name] = None if result is None else section(result)
    if report.named & _OF_STEPS and report.sections.get("steps") is not None:
        body["steps"]["steps"] = _rows(report.sections["steps"].steps)  # tens of MB of a long trace
    devices = report.sections.get("devices")
    if devices is not None:
        _add_gaps(body["devices"], devices, report.sections.get("gaps"))
        _add_host_functions(body["devices"], devices, report.sections.get("host_functions"))
    if report.verdict is not None:
        body["verdict"] = section(report.verdict)
    return body


def _trace(meta: TraceMeta, window: Window | None, report: Report) -> dict[str, Any]:
    active = _active_pids(report)
    return {
        "name": meta.name,
        "nsys_version": meta.nsys_version,
        "export_schema": meta.schema_version,
        "sources": dict(meta.sources),
        "gpus": [
            {"gpu": gpu.gpu, "name": gpu.name, "uuid": gpu.uuid, "memory_bandwidth": gpu.memory_bandwidth}
            for gpu in meta.gpus
        ],
        "processes": [{"pid": pid, "program": meta.program_of(pid)} for pid in sorted(active)],
        "tables": dict(meta.tables),
        "window": None if window is None else _window(window),
    }


def _active_pids(report: Report) -> set[int]:
    """Processes that appear in the results; nsys names every process of the machine."""
    pids: set[int] = set()
    for result in report.sections.values():
        if isinstance(result, OsThreadsResult | ThreadsResult):
            pids |= {thread.pid for thread in result.threads}
        elif isinstance(result, DevicesResult):
            pids |= {pid for ledger in result.devices for pid in ledger.use.pids}
    return pids


def _window(window: Window) -> dict[str, Any]:
    return {"kind": window.kind, "start_ns": window.start_ns, "end_ns": window.end_ns}


@singledispatch
def section(result: object) -> Any:
    """One result as plain values."""
    raise NotImplementedError(type(result))


@section.register
def _sum(result: SumResult) -> Any:
    if result.kind == "kern_exec_sum":
        return [_exec_row(row) for row in result.rows.iter_rows(named=True)]
    hidden = {"name_id", "short_name_id"}
    return _rows(result.rows.select(name for name in result.rows.columns if name not in hidden))


def _exec_row(row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: row[name] for name in ("pid", "tid", "device", "api", "kernel", "count", "queue_count")}
    return plain | {
        f"{part}_ns": {name: _finite(row[f"{part}_{name}_ns"]) for name in EXEC_STATISTICS}
        for part in ("total", "api", "queue", "kernel")
    }


@section.register
def _hotspots(result: HotspotResult) -> Any:
    return _rows(result.rows)


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
        "by_api": _rows(result.by_api),
        "window": _window(result.window),
    }


def _by_class(classes: pl.DataFrame) -> dict[str, Any]:
    return {row["class"]: {"calls": row["calls"], "total_ns": row["total_ns"]} for row in _rows(classes)}


@section.register
def _launch(result: LaunchResult) -> Any:
    graph = result.graph
    return {
        "pairs": result.pairs,
        "launches": result.launches,
        "api_ns": _quantiles(result.api_ns),
        "queue_ns": _quantiles(result.queue_ns),
        "kern_ns": _quantiles(result.kern_ns),
        "total_ns": _quantiles(result.total_ns),
        "shorter_than_launch_share": result.shorter_than_launch_share,
        "orphans": result.orphans,
        "excluded_capture": result.excluded_capture,
        "graph": {
            "launches": graph.launches, "captures": graph.captures, "instantiations": graph.instantiations,
            "updates": graph.updates, "destroys": graph.destroys, "recorded": graph.recorded,
            "whole": graph.whole,
            "coverage": graph.coverage, "node_level": graph.node_level,
        },
        "window": _window(result.window),
    }  # fmt: skip


def _quantiles(values: Quantiles) -> dict[str, Any]:
    return {"p50": values.p50, "p90": values.p90, "p99": values.p99, "mean": values.mean}


@section.register
def _copies(result: CopiesResult) -> Any:
    return _rows(result.hist)


@section.register
def _devices(result: DevicesResult) -> Any:
    return [_device(ledger) for ledger in result.devices]


def _device(ledger: DeviceLedger) -> dict[str, Any]:
    return {
        "gpu": ledger.use.gpu,
        "name": ledger.use.name,
        "processes": list(ledger.use.pids),
        "device": ledger.use.device,
        "window_ns": ledger.window_ns,
        "busy_ns": ledger.busy_ns,
        "kernel_ns": ledger.kernel_ns,
        "graph_ns": ledger.graph_ns,
        "memcpy_ns": ledger.memcpy_ns,
        "memset_ns": ledger.memset_ns,
        "idle_ns": ledger.idle_ns,
        "overlap_ns": ledger.overlap_ns,
        "kernel_sum_ns": ledger.kernel_sum_ns,
        "idle": {cause: ledger.idle[cause] for cause in CAUSES},
    }


def _add_host_functions(
    documents: list[dict[str, Any]], devices: DevicesResult, found: HostFunctionsResult | None
) -> None:
    by_use = {explained.use: explained for explained in found.devices} if found else {}
    for target, ledger in zip(documents, devices.devices, strict=True):
        if ledger.use in by_use:
            explained = by_use[ledger.use]
            target["host_functions"] = _rows(explained.functions)
            target["host_callers"] = _rows(explained.callers)
            target["host_waits"] = _rows(explained.waits)
            target["host_running_ns"] = explained.running_ns
            target["host_descheduled_ns"] = explained.descheduled_ns


def _add_gaps(documents: list[dict[str, Any]], devices: DevicesResult, gaps: GapsResult | None) -> None:
    if gaps is None:
        return
    by_use = {found.use: found for found in gaps.devices}
    for target, ledger in zip(documents, devices.devices, strict=True):
        found = by_use[ledger.use]
        target["gaps"] = [
            {
                "start_ns": row["start_ns"], "dur_ns": row["dur_ns"],
                "causes": {cause: row[cause] for cause in CAUSES if row[cause]},
                "before": row["before"], "after": row["after"],
            }
            for row in found.longest.iter_rows(named=True)
        ]  # fmt: skip
        target["gap_hist"] = _rows(found.hist)


@section.register
def _steps(result: StepsResult) -> Any:
    return {
        "count": result.steps.height,
        "torn": result.torn,
        "window": _window(result.window),
        "ledger": _device(result.ledger),
        "offload_ns": result.offload_ns,
        "by_phase": {phase: _phase(cost) for phase, cost in result.by_phase.items()},
        "slowest": _rows(result.slowest),
        "prompt_cost_ms": result.prompt_cost_ms,
        "prompts": None if result.prompts is None else _prompts(result.prompts),
    }


def _prompts(cost: PromptCost) -> dict[str, Any]:
    return {
        "affected": cost.affected,
        "tokens": cost.tokens,
        "counted": cost.counted,
        "extra_ms": dict(cost.extra_ms),
        "us_per_prompt_token": cost.us_per_prompt_token,
        "chunks": _rows(cost.chunks),
    }


def _phase(cost: PhaseCost) -> dict[str, Any]:
    return {
        "count": cost.count,
        "tokens": cost.tokens,
        "outputs": cost.outputs,
        "periods": cost.periods,
        "ms_per_token": dict(cost.ms_per_token),
        "tokens_per_s": cost.tokens_per_s,
        "per_token": {"ledger": dict(cost.ledger), "categories": dict(cost.categories), **cost.counts},
    }


@section.register
def _step(result: StepDetail) -> Any:
    return {
        "row": {name: _finite(value) for name, value in result.row.items()},
        "times": result.times,
        "ledger": dict(result.ledger),
        "categories": _rows(result.categories),
        "kernels": _rows(result.kernels),
        "calls": _rows(result.calls),
        "copies": _rows(result.copies),
    }


@section.register
def _layers(result: LayersResult) -> Any:
    return {
        "window": _window(result.window),
        "steps": result.steps,
        "count": result.count,
        "kernels_per_layer": result.kernels_per_layer,
        "covered": result.covered,
        "layers": _rows(result.layers),
        "positions": _rows(result.positions),
        "why_none": result.why_none,
    }


@section.register
def _depth(result: DepthResult) -> Any:
    return {
        "window": _window(result.window),
        "basis": result.basis,
        "told": result.told,
        "checked": result.checked,
        "known": result.known,
        "left_out": result.left_out,
        "bins": _rows(result.bins),
        "growth": _rows(result.growth),
    }


@section.register
def _roles(result: RolesResult) -> Any:
    return {
        "window": _window(result.window),
        "batch": result.batch,
        "steps": result.steps,
        "others": result.others,
        "memory_bandwidth": result.memory_bandwidth,
        "roles": _rows(result.roles),
        "layers": _rows(result.layers),
        "cells": _rows(result.cells),
        "why_none": result.why_none,
    }


@section.register
def _several_gpus(result: SeveralGpusResult) -> Any:
    tables = ("busy_count", "busy_sets", "waits", "copies", "work", "by_phase", "steps")
    return {
        "window": _window(result.window),
        "gpus": [
            {"gpu": use.gpu, "name": use.name, "device": use.device, "processes": list(use.pids)} for use in result.uses
        ],
        **{name: _rows(getattr(result, name)) for name in tables},
        "imbalance": {
            phase: {"steps": one.steps, "p50": one.p50, "max": one.max} for phase, one in result.imbalance.items()
        },
    }


@section.register
def _startup(result: StartupResult) -> Any:
    return {
        "pid": result.pid,
        "window": None if result.window is None else _window(result.window),
        "whole": result.whole,
        "disk_ns": result.disk_ns,
        "mapped": result.mapped,
        "spans": _rows(result.spans),
        "milestones": _rows(result.milestones),
    }


@section.register
def _program(result: ProgramResult) -> Any:
    return [
        {
            "tool": row.numbers.tool, "label": row.numbers.label,
            "n_prompt": row.numbers.n_prompt, "n_gen": row.numbers.n_gen,
            "tokens_per_s": row.numbers.tokens_per_s, "ms": row.numbers.ms,
            "trace_tokens_per_s": row.trace_tokens_per_s, "difference": row.difference, "matched": row.matched,
        }
        for row in result.rows
    ]  # fmt: skip


@section.register
def _advice(result: AdviceResult) -> Any:
    items = [
        {
            "name": item.name, "phase": item.phase, "change": item.change,
            "axes": {flag: list(values) for flag, values in item.axes.items()}, "why": item.why,
            "evidence": [{"path": one.path, "value": one.value} for one in item.evidence],
            "max_speedup": item.max_speedup, "max_gain_ns": item.max_gain_ns, "refuted_by": item.refuted_by,
        }
        for item in result.items
    ]  # fmt: skip
    return {"items": items, "withheld": result.withheld}


@section.register
def _limits(result: LimitsResult) -> Any:
    prefill = result.prefill
    return {
        "window": _window(result.window),
        "bytes_per_token": result.load.bytes_per_token,
        "kv_bytes_per_token": result.load.kv_bytes_per_token,
        "kv_types": result.load.kv_types,
        "depth": result.depth,
        "kv_bytes": result.kv_bytes,
        "left_out": result.load.left_out,
        "memory_bandwidth": result.memory_bandwidth,
        "floor_ms": result.floor_ms,
        "measured_ms": result.measured_ms,
        "bandwidth_share": result.bandwidth_share,
        "max_speedup": result.max_speedup,
        "by_quant": _rows(result.by_quant),
        "dram": None if result.dram is None else {
            "samples": result.dram.samples, "read_share": result.dram.read_share,
            "write_share": result.dram.write_share,
        },
        "prefill": None if prefill is None else {
            "tflops": prefill.tflops, "peak_tflops": prefill.peak_tflops,
            "share_of_peak": prefill.share_of_peak, "source": prefill.source,
        },
    }  # fmt: skip


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
            "calls": _rows(thread.calls), "chains": _rows(thread.chains),
        }
        for thread in result.threads
    ]  # fmt: skip


@section.register
def _verdict(result: Verdict) -> Any:
    return {
        "bottleneck": result.bottleneck,
        "sentence": result.sentence,
        "evidence": [{"path": item.path, "value": item.value} for item in result.evidence],
        "bounds": [{"part": bound.part, "max_speedup": bound.max_speedup} for bound in result.bounds],
    }


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: _finite(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
