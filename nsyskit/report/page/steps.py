"""Single steps: the slowest ones against the median of their like, and the one that was asked for from the inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from nsyskit.analysis.step_costs import COUNTS, LEDGER_PARTS, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.report.page.elements import Html, join, tag, text
from nsyskit.report.page.tables import Column, Row, count, ns, size, table, words
from nsyskit.report.text import shortened
from nsyskit.report.words import PARTS
from nsyskit.units import human_bytes, human_count, human_ns

_COUNT_WORDS: Final = {"graph_launches": "graph launches", "captures": "graph captures", "bytes": "bytes copied"}


def slow_steps(result: StepsResult) -> Html:
    """A fold a slow step; a click on the step in the figure opens it."""
    steps = {row["index"]: row for row in result.steps.iter_rows(named=True) if row["index"] in _shown(result)}
    folds = [
        _fold(steps[row["index"]], row, result.steps)
        for row in result.slowest.iter_rows(named=True)
        if row["index"] in steps
    ]
    return join(folds)


def _shown(result: StepsResult) -> set[int]:
    return set(result.slowest["index"])


def _fold(step: Mapping[str, Any], slow: Mapping[str, Any], steps: pl.DataFrame) -> Html:
    like, what = _like(step, steps)
    cause = f": {slow['cause']}" if slow["cause"] else ""
    summary = f"Step {step['index']}, {step['phase']}, {step['n_tokens']:,} tokens, {slow['times']:.2f}×{cause}"
    if like.is_empty():
        body = tag("p", text("No other step of its phase to hold it against."), class_="note")
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


def step_detail(result: StepDetail) -> Html:
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
