"""Steps, phases and what is told by step, as plain values."""

from __future__ import annotations

from typing import Any

from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.layers import LayersResult
from nsyskit.analysis.prompt_cost import PromptCost
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.step_costs import PhaseCost, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.report.json.gpus import device
from nsyskit.report.json.plain import finite, rows, section, span


@section.register
def _steps(result: StepsResult) -> Any:
    return {
        "count": result.steps.height,
        "torn": result.torn,
        "window": span(result.window),
        "ledger": device(result.ledger),
        "offload_ns": result.offload_ns,
        "by_phase": {phase: _phase(cost) for phase, cost in result.by_phase.items()},
        "slowest": rows(result.slowest),
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
        "chunks": rows(cost.chunks),
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
        "row": {name: finite(value) for name, value in result.row.items()},
        "times": result.times,
        "ledger": dict(result.ledger),
        "categories": rows(result.categories),
        "kernels": rows(result.kernels),
        "calls": rows(result.calls),
        "copies": rows(result.copies),
    }


@section.register
def _layers(result: LayersResult) -> Any:
    return {
        "window": span(result.window),
        "steps": result.steps,
        "count": result.count,
        "kernels_per_layer": result.kernels_per_layer,
        "covered": result.covered,
        "layers": rows(result.layers),
        "positions": rows(result.positions),
        "why_none": result.why_none,
    }


@section.register
def _depth(result: DepthResult) -> Any:
    return {
        "window": span(result.window),
        "basis": result.basis,
        "told": result.told,
        "checked": result.checked,
        "known": result.known,
        "left_out": result.left_out,
        "bins": rows(result.bins),
        "growth": rows(result.growth),
    }


@section.register
def _roles(result: RolesResult) -> Any:
    return {
        "window": span(result.window),
        "batch": result.batch,
        "steps": result.steps,
        "others": result.others,
        "memory_bandwidth": result.memory_bandwidth,
        "roles": rows(result.roles),
        "layers": rows(result.layers),
        "cells": rows(result.cells),
        "why_none": result.why_none,
    }
