"""Sums, equal to what ``nsys stats`` prints: same rows, same columns, durations in ns.

Every frame of durations has the columns of ``DURATION_COLUMNS``: ``time_share`` is the share of the sum of the listed
rows, the median of an even count is the mean of the middle two, the standard deviation is that of a sample (n − 1) and
0.0 for one row. Sorted by ``total_ns`` descending, then by name.

Sums cover the whole file unless a window is given; then whole rows that start inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import named, printed_api_name
from nsyskit.analysis.pairing import ROW, api_calls, matches, op_calls
from nsyskit.errors import MissingTableError
from nsyskit.frames import PIECE_ROWS, ascends, by_group, constants_of, narrowed, slices
from nsyskit.trace import Trace, Window

DURATION_COLUMNS: Final = (
    "name", "time_share", "total_ns", "count", "avg_ns", "med_ns", "min_ns", "max_ns", "stddev_ns",
)  # fmt: skip
SIZE_COLUMNS: Final = (
    "name", "total_bytes", "count", "avg_bytes", "med_bytes", "min_bytes", "max_bytes", "stddev_bytes",
)  # fmt: skip
EXEC_STATISTICS: Final = ("avg", "med", "min", "max", "stddev")
_SLICE_ROWS: Final = 2 * PIECE_ROWS
"""Large enough that telling groups apart costs little beside the rows of each."""
_DUR = pl.col("end_ns") - pl.col("start_ns")


_WAIT: Final = pl.col("kernel_start") - pl.col("api_end")
_PARTS: Final = {
    "total": pl.max_horizontal("api_end", "kernel_end") - pl.col("api_start"),
    "api": pl.col("api_end") - pl.col("api_start"),
    "queue": pl.when(_WAIT >= 0).then(_WAIT),
    "kernel": pl.col("kernel_end") - pl.col("kernel_start"),
}
"""What a launch and its kernel took."""


@dataclass(frozen=True, slots=True)
class SumResult:
    """One summary. ``rows`` has ``DURATION_COLUMNS`` or ``SIZE_COLUMNS``; ``window`` None means the whole file."""

    kind: str
    rows: pl.DataFrame
    window: Window | None = None


def api_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """CUDA API calls by name, as nsys's ``cuda_api_sum``: backtrace duplicates counted, grouped by the name's id."""
    _require(trace, "cuda", "CUDA API calls", "--trace=cuda")
    calls = _within(trace.api_calls, window)
    rows = _durations(calls, by=["name_id"])
    return SumResult("api_sum", _finished(named(trace, rows, printed=printed_api_name)), window)


def osrt_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """OS runtime calls by name, all threads, as nsys's ``osrt_sum``. Sums over threads exceed the wall's time."""
    _require(trace, "osrt", "OS runtime calls", "--trace=osrt")
    rows = _durations(_within(trace.os_calls, window), by=["name_id"])
    return SumResult("osrt_sum", _finished(named(trace, rows)), window)


@once_per_trace
def kernel_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """GPU kernels by demangled name, as nsys's ``cuda_gpu_kern_sum``; ``name_id`` comes along, and ``p99_ns``.

    ``p99_ns`` is an observed duration, the nearest to that rank.
    """
    _require(trace, "cuda", "CUDA kernels", "--trace=cuda")
    kernels = _within(trace.kernels, window)
    tail = pl.col("dur").quantile(0.99, interpolation="nearest").cast(pl.Int64).alias("p99_ns")
    rows = _durations(kernels, by=["name_id"], more=[tail])
    return SumResult("kernel_sum", _finished(named(trace, rows), keep=("name_id", "p99_ns")), window)


def mem_time_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """Memory operations by canonical label, durations, as nsys's ``cuda_gpu_mem_time_sum``."""
    _require(trace, "cuda", "CUDA memory operations", "--trace=cuda")
    rows = _durations(_memory_operations(trace, window), by=["name"])
    return SumResult("mem_time_sum", _finished(rows), window)


def mem_size_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """Memory operations by canonical label, sizes, as nsys's ``cuda_gpu_mem_size_sum`` (which prints 10⁶ bytes)."""
    _require(trace, "cuda", "CUDA memory operations", "--trace=cuda")
    operations = _memory_operations(trace, window)
    rows = operations.group_by("name").agg(
        pl.col("bytes").sum().alias("total_bytes"), pl.len().cast(pl.Int64).alias("count"),
        *_statistics(pl.col("bytes"), suffix="_bytes"),
    ).collect()  # fmt: skip
    rows = rows.select(SIZE_COLUMNS).sort(["total_bytes", "name"], descending=[True, False])
    return SumResult("mem_size_sum", rows, window)


def nvtx_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """NVTX ranges by style and text, as nsys's ``nvtx_sum``; ``style`` comes along."""
    _require(trace, "nvtx", "NVTX ranges", "--trace=nvtx")
    rows = _durations(_within(trace.nvtx.rename({"text": "name"}), window), by=["style", "name"])
    return SumResult("nvtx_sum", _finished(rows, keep=("style",)), window)


def kern_exec_sum(trace: Trace, *, window: Window | None = None) -> SumResult:
    """Launch calls paired with their kernels, as nsys's ``cuda_kern_exec_sum``; duplicated ids multiply, as there.

    Columns: ``pid tid device api kernel count queue_count`` and, for each of ``total api queue kernel``,
    ``{part}_{avg|med|min|max|stddev}_ns``. A pair is *queued* when its kernel starts after its call has ended; without
    any, the queue's columns are null (its spread 0.0). A window selects pairs whose call starts inside it.
    """
    _require(trace, "cuda", "CUDA kernels", "--trace=cuda")
    pairs, chosen, keys = _pairs(trace, window)
    rows = by_group(
        (narrowed(piece.filter(chosen).select(**keys, **_PARTS)) for piece in slices(pairs, _SLICE_ROWS)), list(keys),
        pl.col("total").cast(pl.Int64).sum().alias("sum_ns"),
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("queue").count().cast(pl.Int64).alias("queue_count"),
        *(expression for name in _PARTS for expression in _statistics(pl.col(name), prefix=f"{name}_")),
    )  # fmt: skip
    rows = named(trace, rows, column="api_id", name="api", printed=printed_api_name)
    rows = named(trace, rows, column="kernel_id", name="kernel")
    order = ["sum_ns", "pid", "tid", "device", "api", "kernel"]
    statistics = [f"{name}_{statistic}_ns" for name in _PARTS for statistic in EXEC_STATISTICS]
    rows = rows.sort(order, descending=[True, *[False] * 5]).select(
        "pid", "tid", "device", "api", "kernel", "count", "queue_count", *statistics
    )
    return SumResult("kern_exec_sum", rows, window)


def _pairs(trace: Trace, window: Window | None) -> tuple[pl.DataFrame, pl.Expr, dict[str, pl.Expr]]:
    """Calls and kernels of one correlation id: a frame of what ``_PARTS`` asks, which rows of it are such, their keys.

    Keys are ``pid tid device api_id kernel_id``.
    """
    keys = {key: pl.col(key) for key in ("pid", "tid", "device", "api_id", "kernel_id")}
    if _one_call_an_id(trace):
        kernel_id = pl.lit(trace.kernels.select("name_id").collect()["name_id"]).gather("row")
        api_id = pl.lit(api_calls(trace)["name_id"]).gather("call")
        names = {"call_start_ns": "api_start", "call_end_ns": "api_end"}
        ops = op_calls(trace).rename({"start_ns": "kernel_start", "end_ns": "kernel_end"} | names)
        begun = pl.col("api_start").is_not_null()
        if window is not None:
            begun = pl.col("api_start").is_between(window.start_ns, window.end_ns, "left")
        return ops, (pl.col("kind") == "kernel") & begun, keys | {"api_id": api_id, "kernel_id": kernel_id}
    calls = _within(trace.api_calls, window).select(
        "pid", "tid", "correlation_id", api_id="name_id", api_start="start_ns", api_end="end_ns"
    )
    kernels = trace.kernels.select(
        "pid", "device", "correlation_id", kernel_id="name_id", kernel_start="start_ns", kernel_end="end_ns"
    )
    # in order, or the last digits of a spread would depend on which thread was first
    pairs = calls.join(kernels, on=["pid", "correlation_id"], how="inner", maintain_order="left_right")
    return pairs.collect(), pl.lit(value=True), keys


def _one_call_an_id(trace: Trace) -> bool:
    """Whether no two API calls, duplicates counted in, share process and correlation id: as in any undamaged trace."""
    calls = trace.api_calls.select("pid", "correlation_id", "duplicate").collect()
    if calls["duplicate"].any():
        return False
    if "pid" in constants_of([calls.select("pid")]) and ascends(calls["correlation_id"]):  # as of one thread
        return True
    first = matches(calls, calls)
    return bool((first == pl.int_range(len(first), dtype=ROW, eager=True)).all())


def _require(trace: Trace, source: str, what: str, flag: str) -> None:
    if not trace.meta.sources.get(source, False):
        raise MissingTableError(what, hint=f"capture with {flag}")


def _within(frame: pl.LazyFrame, window: Window | None) -> pl.LazyFrame:
    return (
        frame if window is None else frame.filter(pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left"))
    )


def _memory_operations(trace: Trace, window: Window | None) -> pl.LazyFrame:
    columns = ["start_ns", "end_ns", "bytes", "name"]
    copies = trace.memcpys.with_columns(name=pl.col("label").cast(pl.String))
    sets = trace.memsets.with_columns(name=pl.lit("memset"))
    return _within(pl.concat([copies.select(columns), sets.select(columns)]), window)


def _durations(frame: pl.LazyFrame, *, by: Sequence[str], more: Sequence[pl.Expr] = ()) -> pl.DataFrame:
    rows = frame.select(*by, "start_ns", "end_ns").collect()
    return by_group(
        (narrowed(piece.select(*by, dur=_DUR)) for piece in slices(rows, _SLICE_ROWS)), by,
        pl.col("dur").cast(pl.Int64).sum().alias("total_ns"),
        pl.len().cast(pl.Int64).alias("count"),
        *_statistics(pl.col("dur")),
        *more,
    )  # fmt: skip


def _statistics(value: pl.Expr, *, prefix: str = "", suffix: str = "_ns") -> list[pl.Expr]:
    """avg, med, min, max, stddev of a column; null where it has no value, but a spread of 0.0 below two, as there."""
    ends = {"min": value.min().cast(pl.Int64), "max": value.max().cast(pl.Int64)}
    spread = value.std(ddof=1).fill_null(0.0)
    figures = {"avg": value.mean(), "med": value.median(), **ends, "stddev": spread}
    return [figure.alias(f"{prefix}{name}{suffix}") for name, figure in figures.items()]


def _finished(rows: pl.DataFrame, *, keep: Sequence[str] = ()) -> pl.DataFrame:
    total = rows["total_ns"].sum()
    share = pl.col("total_ns") / total if total else pl.lit(0.0)
    # sorted first: the last digit of a quotient may depend on its row
    ordered = rows.sort(["total_ns", "name", *keep], descending=[True, *[False] * (1 + len(keep))])
    return ordered.with_columns(time_share=share).select(*DURATION_COLUMNS, *keep)
