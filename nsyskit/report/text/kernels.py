"""The sums of all kinds, kernels by what they compute, layers and their tensors, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.hotspots import HotspotResult
from nsyskit.analysis.layers import LayersResult
from nsyskit.analysis.roles import RolesResult
from nsyskit.analysis.sums import SumResult
from nsyskit.report.names import shortened
from nsyskit.report.text.layout import Columns, Layout, block_of, known, number, table
from nsyskit.report.words import TITLES
from nsyskit.units import human_bytes, human_count, human_ns, human_share, printable


@block_of.register
def _sum(result: SumResult, layout: Layout) -> RenderableType | None:
    if result.rows.is_empty():
        return None
    if result.kind == "kern_exec_sum":
        return _exec_table(result.rows, layout)
    if result.kind == "mem_size_sum":
        return _size_table(result.rows, layout)
    return _duration_table(TITLES[result.kind], result.rows, layout)


def _duration_table(title: str, rows: pl.DataFrame, layout: Layout) -> Table:
    columns: Columns = {
        "time": lambda row: human_share(row["time_share"]),
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
        "avg": lambda row: human_ns(row["avg_ns"]),
        "med": lambda row: human_ns(row["med_ns"]),
    }
    if layout.wide:
        columns |= {
            "min": lambda row: human_ns(row["min_ns"]),
            "max": lambda row: human_ns(row["max_ns"]),
            "stddev": lambda row: human_ns(row["stddev_ns"]),
        }
    if "category" in rows.columns and layout.wide:
        columns["category"] = lambda row: str(row["category"])
    return table(title, rows, columns, layout, name=lambda row: shortened(row["name"] or ""))


def _size_table(rows: pl.DataFrame, layout: Layout) -> Table:
    columns: Columns = {
        "total": lambda row: human_bytes(row["total_bytes"]),
        "count": lambda row: human_count(row["count"]),
        "avg": lambda row: human_bytes(row["avg_bytes"]),
        "med": lambda row: human_bytes(row["med_bytes"]),
        "max": lambda row: human_bytes(row["max_bytes"]),
    }
    return table(TITLES["mem_size_sum"], rows, columns, layout, name=lambda row: row["name"])


def _exec_table(rows: pl.DataFrame, layout: Layout) -> Table:
    columns: Columns = {
        "pairs": lambda row: human_count(row["count"]),
        "API avg": lambda row: human_ns(row["api_avg_ns"]),
        "queue avg": lambda row: known(row["queue_avg_ns"], human_ns),
        "kernel avg": lambda row: human_ns(row["kernel_avg_ns"]),
    }
    if layout.wide:
        columns["call"] = lambda row: row["api"]
    return table(TITLES["kern_exec_sum"], rows, columns, layout, name=lambda row: shortened(row["kernel"]))


@block_of.register
def _hotspots(result: HotspotResult, layout: Layout) -> RenderableType | None:
    if set(result.rows[result.by]) <= {"other", "none"}:  # no kernel of llama.cpp: the split says nothing
        return None
    columns: Columns = {
        "time": lambda row: human_share(row["share"]),
        "total": lambda row: human_ns(row["total_ns"]),
        "count": lambda row: human_count(row["count"]),
    }
    return table(f"Kernels by {result.by}", result.rows, columns, layout, name=lambda row: str(row[result.by]))


@block_of.register
def _layers(result: LayersResult, layout: Layout) -> RenderableType | None:
    if result.why_none is not None:
        return Text(f"Layers are not shown: {result.why_none}")
    title = (
        f"{result.count} layers of {result.kernels_per_layer} kernels, mean of {result.steps} decode steps; "
        f"{human_share(result.covered)} of the kernels lie in layers"
    )
    by_layer: Columns = {
        "kernels": lambda row: human_ns(row["kernel_ns"]),
        "to the next": lambda row: human_ns(row["span_ns"]),
    }
    by_place: Columns = {
        "time": lambda row: human_ns(row["kernel_ns"]),
        "category": lambda row: row["category"],
    }
    whole = layout.at_least(result.layers.height, result.positions.height)
    return Group(
        table(title, result.layers, by_layer, whole, name=lambda row: str(row["layer"]), label="layer"),
        table("The mean layer, kernel by kernel", result.positions, by_place, whole, name=lambda row: row["family"]),
    )


@block_of.register
def _roles(result: RolesResult, layout: Layout) -> RenderableType | None:
    if result.why_none is not None:
        return Text(printable(f"Tensors are not told apart: {result.why_none}"))
    others = f", {result.others:,} more not shown" if result.others else ""
    title = f"Matrices by tensor, mean of {result.steps:,} decode steps of {result.batch}{others}"
    rate: Columns = {
        "time": lambda row: human_ns(row["ns"]),
        "bytes": lambda row: known(row["bytes"], human_bytes),
        "GB/s": lambda row: number(row["gb_per_s"], 1),
        "of peak": lambda row: known(row["share_of_peak"], human_share),
    }
    shares: Columns = {"share": lambda row: human_share(row["share"])}
    whole = layout.at_least(result.roles.height, result.layers.height)
    by_role = table(
        title, result.roles, shares | rate, whole, name=lambda row: f"{row['role']} ({row['types']})", label="tensor"
    )
    by_layer = table(
        "A layer's matrices", result.layers, rate, whole, name=lambda row: str(row["layer"]), label="layer"
    )
    return Group(by_role, by_layer)


@block_of.register
def _copies(result: CopiesResult, layout: Layout) -> RenderableType | None:
    if result.hist.is_empty():
        return None
    sizes = table(
        "Copy sizes", result.hist,
        {
            "count": lambda row: human_count(row["count"]),
            "bytes": lambda row: human_bytes(row["bytes"]),
            "time": lambda row: human_ns(row["total_ns"]),
            "GB/s": lambda row: known(row["gb_per_s"], "{:.2f}".format),
            "blocked": lambda row: human_count(row["blocking_count"]),
        },
        layout.at_least(30), name=_bin, label="what",
    )  # fmt: skip
    if not result.blocking_count:
        return sizes
    told = f"{human_count(result.blocking_count)} copies held their caller for {human_ns(result.blocking_ns)}"
    return Group(sizes, Text(told))


def _bin(row: Mapping[str, Any]) -> str:
    return f"{row['label']} {row['memory']} [{human_bytes(row['lo_bytes'])}, {human_bytes(row['hi_bytes'])})"
