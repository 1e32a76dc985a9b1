"""Steps and their phases, the inside of one, and decode steps against depth."""

from __future__ import annotations

from typing import Final

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nsyskit.analysis.depth import DepthResult
from nsyskit.analysis.devices import BUSY_PARTS
from nsyskit.analysis.step_costs import LEDGER_PARTS, PhaseCost, StepsResult
from nsyskit.analysis.step_detail import StepDetail
from nsyskit.report.names import shortened
from nsyskit.report.text.layout import (
    SMALL_SHARE,
    Columns,
    Layout,
    block_of,
    clipped,
    indented,
    known,
    ledger_block,
    table,
)
from nsyskit.report.words import growth_sentences, prompt_sentence
from nsyskit.units import human_bytes, human_count, human_ns, human_share, printable

_SLOW: Final = 1.5
"""Times the median of its like, from which a step is named."""


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
        blocks.append(clipped(told, layout.width, style="dim"))
    return Group(*blocks)


def _phase(cost: PhaseCost) -> list[RenderableType]:
    quantiles = " ".join(f"{name} {value:.3f}" for name, value in cost.ms_per_token.items() if value is not None)
    rate = "" if cost.tokens_per_s is None else f"{cost.tokens_per_s:,.1f} tokens/s, "
    counts = f"{human_count(cost.count)} steps, {human_count(cost.tokens)} tokens"
    lines: list[RenderableType] = [Text(f"{cost.phase}: {rate}{counts}; ms/token {quantiles or '–'}")]
    total = sum(cost.ledger.values())
    if total:
        parts = sorted(cost.ledger.items(), key=lambda item: (-item[1], LEDGER_PARTS.index(item[0])))
        told = ", ".join(f"{part} {human_ns(ns)}" for part, ns in parts if ns >= SMALL_SHARE * total)
        lines.append(indented(Text(f"per token: {told}")))
        categories = ", ".join(f"{name} {human_ns(ns)}" for name, ns in list(cost.categories.items())[:5])
        if categories:
            lines.append(indented(Text(f"kernels: {categories}")))
    return lines


def step_table(result: StepsResult, layout: Layout) -> Table:
    """One row a step, for a report of nothing but steps."""
    columns: Columns = {
        "step": lambda row: str(row["index"]),
        "begins": lambda row: human_ns(row["begin_ns"] - result.window.start_ns),
        "forward": lambda row: human_ns(row["forward_end_ns"] - row["begin_ns"]),
        "to the next": lambda row: known(row["period_ns"], human_ns),
        "tokens": lambda row: human_count(row["n_tokens"]),
        "outputs": lambda row: known(row["n_outputs"], human_count),
    }
    if layout.wide:
        columns |= {
            "GPU busy": lambda row: human_ns(sum(row[f"{part}_ns"] for part in BUSY_PARTS)),
            "launches": lambda row: human_count(row["launches"] + row["graph_launches"]),
            "syncs": lambda row: human_count(row["syncs"]),
        }
    return table(
        "", result.steps, columns, layout, name=lambda row: f"{row['phase']} ({row['confidence']})", label="phase"
    )


@block_of.register
def _step(result: StepDetail, layout: Layout) -> RenderableType | None:
    row, total = result.row, result.window.dur_ns
    like = "" if result.times is None else f", {result.times:.2f}× the median of its like"
    title = f"Step {row['index']}: {row['phase']}, {row['evidence']}; {human_ns(total)}{like}"
    parts = {part if part in BUSY_PARTS else f"idle: {part}": ns for part, ns in result.ledger.items()}
    count: Columns = {
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
    }
    size: Columns = {"bytes": lambda row: human_bytes(row["bytes"])}
    calls: Columns = {"longest": lambda row: human_ns(row["max_ns"])}
    blocks: list[RenderableType] = [ledger_block(printable(title), parts, total, layout.width)]
    if result.kernels.height:
        told = ", ".join(
            f"{category}{' ' + quant if quant else ''} {human_ns(ns)}"
            for category, quant, ns in result.categories.rows()
        )
        blocks.append(indented(Text(f"kernels: {told}")))
        blocks.append(table("Kernels", result.kernels, count, layout, name=lambda row: shortened(row["name"])))
    blocks.append(table("Its thread's calls", result.calls, count | calls, layout, name=lambda row: row["name"]))
    if result.copies.height:
        copied = lambda row: f"{row['label']} {row['purpose']}"  # noqa: E731
        blocks.append(table("Copies", result.copies, count | size, layout, name=copied, label="what"))
    return Group(*blocks)


@block_of.register
def _depth(result: DepthResult, layout: Layout) -> RenderableType | None:
    if result.bins.is_empty():
        return None
    columns: Columns = {
        "steps": lambda row: human_count(row["steps"]),
        "ms p50": lambda row: f"{row['ms_p50']:.3f}",
        "kernels": lambda row: known(row["kernel_ns"], human_ns),
        "attention": lambda row: known(row["attention_ns"], human_ns),
        "share": lambda row: known(row["attention_share"], human_share),
    }
    whole = layout.at_least(result.bins.height)
    unit = "steps since the prompt" if result.basis == "since_prefill" else "tokens in context"
    by_depth = table(
        "Decode steps against depth", result.bins, columns, whole,
        name=lambda row: f"{row['lo']:,} to {row['hi']:,}, batch of {row['batch']}", label=unit,
    )  # fmt: skip
    lines = [f"Depth: {result.told}.", *growth_sentences(result)]
    return Group(by_depth, *(Text(line) for line in lines))
