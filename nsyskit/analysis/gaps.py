"""Gaps: single intervals in which a GPU did nothing, with the split of their causes and the operations around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Final

import polars as pl

from nsyskit.analysis.causes import CAUSES, causes_over
from nsyskit.analysis.gpus import GpuUse, gpu_uses, idle_of, ops_of
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.frames import slices
from nsyskit.ggml.decode import parse_name
from nsyskit.intervals import covered_ns
from nsyskit.trace import Trace, Window

HIST_EDGES_NS: Final = (1_000, 5_000, 50_000, 500_000, 5_000_000)
"""Kernel boundary, launch-bound, host round trip, stall: edges of the histogram of gap lengths."""
_LO: Final = reduce(
    lambda lo, edge: pl.when(pl.col("dur_ns") >= edge).then(edge).otherwise(lo), HIST_EDGES_NS, pl.lit(0, pl.Int64)
)
"""The edge at which a gap's bin begins."""
_COUNTED: Final = {"count": pl.len().cast(pl.Int64), "total_ns": pl.col("dur_ns").sum()}


@dataclass(frozen=True, slots=True)
class DeviceGaps:
    """One GPU's gaps.

    Attributes:
        longest: ``start_ns end_ns dur_ns``, one column of ns a cause of ``CAUSES`` (they sum to ``dur_ns``), and
            ``before``, ``after``: the names of the operations around it, null at the window's edges. Longest first.
        hist: ``lo_ns hi_ns count total_ns`` by length, ``hi_ns`` null in the last bin; sums to all idle time.
    """

    use: GpuUse
    longest: pl.DataFrame
    hist: pl.DataFrame


@dataclass(frozen=True, slots=True)
class GapsResult:
    window: Window
    devices: tuple[DeviceGaps, ...]


def gaps(trace: Trace, *, window: Window | None = None, top: int = 10) -> GapsResult:
    """The ``top`` longest gaps of each GPU and the histogram of all.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA rows", hint="capture with --trace=cuda")
    window = window or default_window(trace)
    return GapsResult(window, tuple(_gaps(trace, use, window, top) for use in gpu_uses(trace)))


@once_per_trace
def _gaps(trace: Trace, use: GpuUse, window: Window, top: int) -> DeviceGaps:
    idle = idle_of(trace, use, window)
    tops, counts = [], []
    for piece in slices(idle):
        timed = piece.with_columns(dur_ns=pl.col("end_ns") - pl.col("start_ns"))
        tops.append(_longest(timed, top))
        counts.append(timed.group_by(_LO.alias("lo_ns")).agg(**_COUNTED))
    longest = _longest(pl.concat(tops), top)
    causes = causes_over(trace, use, window)
    longest = longest.with_columns(covered_ns(longest, causes[cause]).alias(cause) for cause in CAUSES)
    return DeviceGaps(use, _with_neighbours(trace, use, longest), _histogram(pl.concat(counts)))


def _longest(idle: pl.DataFrame, top: int) -> pl.DataFrame:
    enough = idle["dur_ns"].top_k(min(top, idle.height)).min() or 0
    return idle.filter(pl.col("dur_ns") >= enough).sort(["dur_ns", "start_ns"], descending=[True, False]).head(top)


def _histogram(counts: pl.DataFrame) -> pl.DataFrame:
    edges = [0, *HIST_EDGES_NS]
    bins = pl.DataFrame(
        {"lo_ns": edges, "hi_ns": [*HIST_EDGES_NS, None]}, schema={"lo_ns": pl.Int64, "hi_ns": pl.Int64}
    )
    counted = counts.group_by("lo_ns").agg(pl.col("count", "total_ns").sum())
    return bins.join(counted, on="lo_ns", how="left", maintain_order="left").with_columns(
        pl.col("count", "total_ns").fill_null(0)
    )


def _with_neighbours(trace: Trace, use: GpuUse, gaps: pl.DataFrame) -> pl.DataFrame:
    ops = ops_of(trace, use).select("start_ns", "end_ns", "kind", "row")
    before = ops.filter(pl.col("end_ns").is_in(gaps["start_ns"].implode())).unique(
        "end_ns", keep="last", maintain_order=True
    )
    after = ops.filter(pl.col("start_ns").is_in(gaps["end_ns"].implode())).unique("start_ns", maintain_order=True)
    named_before = before.select(start_ns="end_ns", before=op_names(trace, before))
    named_after = after.select(end_ns="start_ns", after=op_names(trace, after))
    gaps = gaps.join(named_before, on="start_ns", how="left", maintain_order="left")
    return gaps.join(named_after, on="end_ns", how="left", maintain_order="left")


def op_names(trace: Trace, ops: pl.DataFrame) -> pl.Series:
    """What to call each operation (``kind``, ``row``): a kernel's short name, a copy's label and size, …"""
    kernels = trace.kernels.select("name_id").collect()["name_id"]
    copies = trace.memcpys.select("label", "bytes").collect()
    names: list[str] = []
    ids = [kernels[row] for kind, row in ops.select("kind", "row").iter_rows() if kind == "kernel"]
    strings = dict(strings_of(trace, pl.Series("ids", ids, pl.Int64)).iter_rows())
    for kind, row in ops.select("kind", "row").iter_rows():
        if kind == "kernel":
            names.append(parse_name(strings.get(kernels[row], "kernel")).short)
        elif kind == "memcpy":
            names.append(f"memcpy {copies['label'][row]} {copies['bytes'][row]} B")
        else:
            names.append("CUDA graph" if kind == "graph" else "memset")
    return pl.Series("name", names, dtype=pl.String)
