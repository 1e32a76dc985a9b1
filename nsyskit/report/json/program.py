"""The verdict, experiments, limits, start-up and what the program printed, as plain values."""

from __future__ import annotations

from typing import Any

from nsyskit.analysis.advice import AdviceResult
from nsyskit.analysis.limits import LimitsResult
from nsyskit.analysis.program import ProgramResult
from nsyskit.analysis.startup import StartupResult
from nsyskit.analysis.verdict import Verdict
from nsyskit.report.json.plain import rows, section, span


@section.register
def _verdict(result: Verdict) -> Any:
    return {
        "bottleneck": result.bottleneck,
        "sentence": result.sentence,
        "evidence": [{"path": item.path, "value": item.value} for item in result.evidence],
        "bounds": [{"part": bound.part, "max_speedup": bound.max_speedup} for bound in result.bounds],
    }


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
        "window": span(result.window),
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
        "by_quant": rows(result.by_quant),
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
def _startup(result: StartupResult) -> Any:
    return {
        "pid": result.pid,
        "window": None if result.window is None else span(result.window),
        "whole": result.whole,
        "disk_ns": result.disk_ns,
        "mapped": result.mapped,
        "spans": rows(result.spans),
        "milestones": rows(result.milestones),
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
