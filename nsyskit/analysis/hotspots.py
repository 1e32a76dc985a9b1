"""Where kernel time goes: by category, by family (mul_mat_q, mul_mat_vec_q, flash_attn_…), by quant type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.sums import SumResult, kernel_sum
from nsyskit.errors import TraceFormatError
from nsyskit.ggml.catalogue import KernelRules
from nsyskit.trace import Trace, Window

MOST_NAMES: Final = 50_000
KERNEL_FACTS: Final = ("category", "family", "quant", "batch")


@dataclass(frozen=True, slots=True)
class HotspotResult:
    """Kernel time by one property.

    ``rows``: the property (``category``, ``family`` or ``quant``; kernels without one are ``none``), ``total_ns``,
    ``share`` of all kernel durations, ``count``; most time first, ties by name.
    """

    by: str
    rows: pl.DataFrame
    window: Window | None = None


def kernel_hotspots(trace: Trace, *, window: Window | None = None, rules: KernelRules | None = None) -> SumResult:
    """``kernel_sum`` with what the catalogue knows of each kernel: ``category family quant batch``."""
    summed = kernel_sum(trace, window=window)
    facts = kernel_facts(trace, rules) if rules else kernel_facts(trace)  # remembered by what it was called with
    rows = summed.rows.join(facts, on="name_id", how="left", maintain_order="left")
    return SumResult(summed.kind, rows, window)


def category_sum(trace: Trace, *, window: Window | None = None, rules: KernelRules | None = None) -> HotspotResult:
    """Kernel time by what it went to: ``matmul_quant``, ``attention``, …, ``other`` for kernels nobody knows."""
    return _by(trace, "category", window, rules)


def family_sum(trace: Trace, *, window: Window | None = None, rules: KernelRules | None = None) -> HotspotResult:
    """Kernel time by implementation: ``mul_mat_q``, ``mul_mat_vec_q``, ``flash_attn_ext_vec``, …"""
    return _by(trace, "family", window, rules)


def quant_sum(trace: Trace, *, window: Window | None = None, rules: KernelRules | None = None) -> HotspotResult:
    """Kernel time by the format of the weights: ``Q4_K``, ``F16``, …"""
    return _by(trace, "quant", window, rules)


@once_per_trace
def kernel_facts(trace: Trace, rules: KernelRules | None = None) -> pl.DataFrame:
    """What the catalogue says of every kernel name in the trace: ``name_id category family quant batch``.

    Raises:
        TraceFormatError: there are more names than any program has.
    """
    ids = trace.kernels.select(pl.col("name_id").unique()).collect()
    if ids.height > MOST_NAMES:
        raise TraceFormatError(
            f"{ids.height:,} kernels of different names: no program has so many, the trace is damaged",
            hint="export the report again",
        )
    full = strings_of(trace, ids["name_id"]).rename({"string_id": "name_id", "value": "name"})
    # nsys's own short name is a column of a million rows that says what the full name says
    names = ids.join(full, on="name_id", how="left").with_columns(short_name=pl.lit(None, pl.String))
    return (rules or KernelRules.load()).classify_frame(names).select("name_id", *KERNEL_FACTS)


def _by(trace: Trace, column: str, window: Window | None, rules: KernelRules | None) -> HotspotResult:
    kernels = kernel_hotspots(trace, window=window, rules=rules).rows
    total = kernels["total_ns"].sum()
    rows = kernels.group_by(pl.col(column).fill_null("none")).agg(pl.col("total_ns", "count").sum())
    share = pl.col("total_ns") / total if total else pl.lit(0.0)
    rows = rows.sort(["total_ns", column], descending=[True, False])
    return HotspotResult(column, rows.select(column, "total_ns", share.alias("share"), "count"), window)
