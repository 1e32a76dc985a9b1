"""Kernels by what they compute, and the summaries by name."""

from __future__ import annotations

import polars as pl

from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.sums import SumResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import NOTHING, Html, join, tag
from nsyskit.report.page.names import operation
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, count, decimal, ns, share, size, table, words
from nsyskit.report.words import TITLES


@block.register
def _hotspots(result: HotspotResult, made: Sections, name: str) -> Html:
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
    return _beside(made.drawn(name, drawing(result), f"Kernel time by {result.by}"), rows)


@block.register
def _sum(result: SumResult, made: Sections, name: str) -> Html:
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
    return join([made.drawn(name, drawing(result), "Kernels with most time"), rows])


def _exec_table(rows: pl.DataFrame) -> Html:
    return table(
        TITLES["kern_exec_sum"],
        rows,
        [
            operation("kernel", "kernel"),
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


def _duration_columns(result: SumResult) -> list[Column]:
    columns = [
        operation("name", "name"),
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
        columns.append(decimal("GB/s", "gb_per_s", ".1f", hint))
    return columns + [_fact(fact) for fact in facts]


def _fact(name: str) -> Column:
    return words(name, lambda row: str(row[name] or "–"))


def _csv_hint(section: str) -> str:
    return f"; `nsyskit analyze -a {section} --format csv` writes all of them"


def _beside(*pieces: Html) -> Html:
    """Next to each other where the screen is wide enough."""
    return tag("div", *pieces, class_="beside")
