"""Phases and steps: what a token cost, the slowest steps against their like, one step from the inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from nsyskit.analysis.step_costs import COUNTS, LEDGER_PARTS, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.report.figures import drawing
from nsyskit.report.names import shortened
from nsyskit.report.page.bars import phase_bar
from nsyskit.report.page.elements import Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, Row, count, decimal, ns, size, table, words
from nsyskit.report.words import PARTS, prompt_sentence
from nsyskit.units import human_bytes, human_count, human_ns

_COUNT_WORDS: Final = {"graph_launches": "graph launches", "captures": "graph captures", "bytes": "bytes copied"}


@block.register
def _steps(result: StepsResult, made: Sections, name: str) -> Html:
    torn = f"; {result.torn} torn at the edges of the trace are left out" if result.torn else ""
    told = [tag("p", text(f"{human_count(result.steps.height)} steps begin in the window{torn}."))]
    if result.prompts is not None:
        told.append(tag("p", text(f"{prompt_sentence(result.prompts)}.")))
    bars = [phase_bar(cost) for cost in result.by_phase.values() if sum(cost.ledger.values())]
    if bars:
        bars.insert(0, tag("h3", text("Where the time of a token goes")))
    plot = made.drawn(name, drawing(result), "Milliseconds per token of every step, over time")
    hint = note("Click a step to see it in the timeline of the whole window; the slowest ones open below.")
    return join([*told, _phases(result), *bars, plot, hint, _slowest(result), _slow_steps(result)])


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
        decimal("tokens/s", "rate", ",.1f"),
    ]
    columns += [decimal(f"ms/token {name}", name, ".3f") for name in ("p50", "p95", "p99", "max")]
    columns += [decimal(f"{name}/token", name, ".2f") for name in ("kernels", "launches", "syncs")]
    return table("Phases", rows, columns)


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


def _slow_steps(result: StepsResult) -> Html:
    """A fold a slow step; a click on the step in the figure opens it."""
    slow = result.steps.join(result.slowest, on="index", how="semi")
    steps = {row["index"]: row for row in slow.iter_rows(named=True)}
    folds = [
        _fold(steps[row["index"]], row, result.steps)
        for row in result.slowest.iter_rows(named=True)
        if row["index"] in steps
    ]
    return join(folds)


def _fold(step: Mapping[str, Any], slow: Mapping[str, Any], steps: pl.DataFrame) -> Html:
    like, what = _like(step, steps)
    cause = f": {slow['cause']}" if slow["cause"] else ""
    summary = f"Step {step['index']}, {step['phase']}, {step['n_tokens']:,} tokens, {slow['times']:.2f}×{cause}"
    if like.is_empty():
        body = note("No other step of its phase to hold it against.")
    else:
        body = join([_ledger(step, like, f"Step {step['index']} against the median of {what}"), _counts(step, like)])
    return tag("details", tag("summary", text(summary)), body, id=f"step-{step['index']}", class_="step")


def _like(step: Mapping[str, Any], steps: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Other steps of its phase with as many tokens, else of its phase, and how many these are, in words."""
    others = steps.filter((pl.col("phase") == step["phase"]) & (pl.col("index") != step["index"]))
    same = others.filter(pl.col("n_tokens") == step["n_tokens"])
    if same.height:
        return same, f"{same.height:,} other {step['phase']} steps of as many tokens"
    return others, f"{others.height:,} other {step['phase']} steps, of other numbers of tokens"


def _median(like: pl.DataFrame, column: str) -> float:
    return float(like[column].median() or 0)  # type: ignore[arg-type]


def _ledger(step: Mapping[str, Any], like: pl.DataFrame, caption: str) -> Html:
    rows = [{"part": part, "this": step[f"{part}_ns"], "median": _median(like, f"{part}_ns")} for part in LEDGER_PARTS]
    rows = [row | {"more": row["this"] - row["median"]} for row in rows if row["this"] or row["median"]]
    rows.sort(key=lambda row: -abs(row["more"]))
    columns = [
        words("what the GPU did", lambda row: PARTS[row["part"]]),
        ns("this step", "this"),
        ns("median", "median"),
        Column("difference", lambda row: row["more"], _signed_ns),
    ]
    return table(caption, rows, columns)


def _counts(step: Mapping[str, Any], like: pl.DataFrame) -> Html:
    rows: list[Row] = [
        {"what": _COUNT_WORDS.get(name, name), "bytes": name == "bytes", "this": step[name],
         "median": _median(like, name)}
        for name in COUNTS
    ]  # fmt: skip
    rows = [row for row in rows if row["this"] or row["median"]]
    columns = [
        words("what happened in it", lambda row: row["what"]),
        words("this step", lambda row: _amount(row, "this")),
        words("median", lambda row: _amount(row, "median")),
    ]
    return table(f"Counts of step {step['index']}", rows, columns)


def _amount(row: Row, key: str) -> str:
    return human_bytes(row[key]) if row["bytes"] else f"{row[key]:,.10g}"


def _signed_ns(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{human_ns(abs(value))}"


@block.register
def _step(result: StepDetail, _made: Sections, _name: str) -> Html:
    """The step that was asked for: where its time went, its kernels, calls and copies."""
    row = result.row
    like = "" if result.times is None else f", {result.times:.2f}× the median of its like"
    told = (
        f"Step {row['index']}: {row['phase']}, {human_count(row['n_tokens'])} tokens, "
        f"{human_ns(result.window.dur_ns)}{like} ({row['evidence']})."
    )
    ledger = [
        {"part": part, "ns": spent, "share": spent / (result.window.dur_ns or 1)}
        for part, spent in result.ledger.items()
        if spent
    ]
    parts = table(
        f"Where the time of step {row['index']} went",
        sorted(ledger, key=lambda one: -one["ns"]),
        [words("the GPU was", lambda one: PARTS[one["part"]]), ns("time", "ns")],
    )
    kernels = [
        words("kernel", lambda one: shortened(one["name"] or ""), full=lambda one: one["name"] or ""),
        ns("total", "total_ns"),
        count("count", "count"),
    ]
    calls = [
        words("call", lambda one: one["name"] or ""),
        words("class", lambda one: one["class"] or ""),
        ns("total", "total_ns"),
        ns("longest", "max_ns"),
        count("count", "count"),
    ]
    copies = [
        words("copies", lambda one: f"{one['label']} {one['purpose']}"),
        size("bytes", "bytes"),
        ns("time", "total_ns"),
        count("count", "count"),
    ]
    pieces = [tag("p", text(told)), parts]
    for caption, rows, columns in (
        ("Kernels of the step", result.kernels, kernels),
        ("CUDA calls of its thread", result.calls, calls),
        ("Copies of the step", result.copies, copies),
    ):
        if rows.height:
            pieces.append(table(caption, rows, columns))
    return join(pieces)
