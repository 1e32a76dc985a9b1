"""Copies: how large, how fast, between which memories, and which of them blocked their caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import HANDED_OVER, ROW, blocking_copies, ops_of_kind
from nsyskit.analysis.steps import find_steps, step_at
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.trace import Trace, Window

PURPOSES: Final = ("weights", "input", "logits", "weights_streamed", "split", "other")
"""What a copy is for, in a llama.cpp run; outside of one everything is ``other``."""
_STREAMED_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class CopiesResult:
    """Memory operations that start in the window, by label and host-side memory.

    ``hist``: ``label memory lo_bytes hi_bytes count bytes total_ns gb_per_s blocking_count``, one row a power-of-two
    bin ``[lo, hi)`` (``[0, 1)`` for empty copies), sorted by label, memory and size. ``memory`` is the kind on the
    host side, ``device`` where neither side is the host. ``gb_per_s`` is bytes per ns of copy time.
    """

    window: Window
    hist: pl.DataFrame
    blocking_count: int
    blocking_ns: int


def copies(trace: Trace, *, window: Window | None = None) -> CopiesResult:
    """Size histogram of copies and memsets.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA copies", hint="capture with --trace=cuda")
    window = window or default_window(trace)
    operations = memory_operations(trace).filter(pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left"))
    blocked = blocking_copies(trace).filter(pl.col("call_start_ns").is_between(window.start_ns, window.end_ns, "left"))
    return CopiesResult(
        window=window,
        hist=_histogram(operations),
        blocking_count=blocked.height,
        blocking_ns=int((blocked["call_end_ns"] - blocked["call_start_ns"]).sum()),
    )


def memory_operations(trace: Trace) -> pl.DataFrame:
    """Copies and memsets with ``label memory bytes start_ns end_ns blocking``."""
    rows = blocking_copies(trace)["row"].implode()
    moved = trace.memcpys.select(
        "start_ns", "end_ns", "bytes", pl.col("label").cast(pl.String), memory=_host_side(),
        blocking=pl.int_range(pl.len(), dtype=ROW).is_in(rows),
    ).collect()  # fmt: skip
    filled = trace.memsets.select(
        "start_ns", "end_ns", "bytes", pl.lit("memset").alias("label"), pl.col("memory").cast(pl.String),
        blocking=pl.lit(value=False),
    ).collect()  # fmt: skip
    return pl.concat([moved, filled])


def _host_side() -> pl.Expr:
    """The memory kind that decides a copy's speed: that of the host side, the source where both are."""
    host = ["pageable", "pinned", "managed"]
    source, target = pl.col("src_memory").cast(pl.String), pl.col("dst_memory").cast(pl.String)
    return pl.when(source.is_in(host)).then(source).when(target.is_in(host)).then(target).otherwise(source)


def _histogram(operations: pl.DataFrame) -> pl.DataFrame:
    # the largest power of two at or below n: integer arithmetic, a logarithm would misplace sizes near 2^53
    exponent = pl.lit(63) - pl.col("bytes").bitwise_leading_zeros().cast(pl.Int64)
    lo = pl.when(pl.col("bytes") > 0).then(pl.lit(2, pl.Int64).pow(exponent)).otherwise(0).cast(pl.Int64)
    return (
        operations.with_columns(lo_bytes=lo, dur=pl.col("end_ns") - pl.col("start_ns"))
        .group_by("label", "memory", "lo_bytes")
        .agg(
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("bytes").sum(),
            pl.col("dur").sum().alias("total_ns"),
            pl.col("blocking").sum().cast(pl.Int64).alias("blocking_count"),
        )
        .with_columns(
            hi_bytes=pl.when(pl.col("lo_bytes") > 0).then(2 * pl.col("lo_bytes")).otherwise(1),
            gb_per_s=pl.when(pl.col("total_ns") > 0).then(pl.col("bytes") / pl.col("total_ns")),
        )
        .select("label", "memory", "lo_bytes", "hi_bytes", "count", "bytes", "total_ns", "gb_per_s", "blocking_count")
        .sort("label", "memory", "lo_bytes")
    )


@once_per_trace
def copy_purposes(trace: Trace) -> pl.DataFrame:
    """Copies (not memsets) in the order of ``ops_of_kind``: ``row label bytes step purpose``.

    ``weights``: uploads before the first step; ``input``: uploads of a step's opening and of other devices' user
    inputs; ``logits``: DtoH after a step's last launch, a multiple of 4 bytes times the vocabulary; ``split``: between
    GPUs; ``weights_streamed``: uploads of a MB and more within a step that are no inputs.
    """
    ops = ops_of_kind(trace, "memcpy")
    copies = ops.select("row", step_at(trace, ops, HANDED_OVER), at=HANDED_OVER)
    facts = trace.memcpys.select(pl.col("label").cast(pl.String), "bytes").collect()[copies["row"]]
    found = find_steps(trace)
    rows = copies.hstack(facts)
    if found.steps.is_empty():
        return rows.select("row", "label", "bytes", "step", purpose=pl.lit("other"))
    first = int(found.steps["begin_ns"].min())  # type: ignore[arg-type]
    inputs = pl.col("row").is_in(found.input_copies.implode())
    vocabulary = 4 * (found.n_vocab or 0)
    logits = (pl.col("label") == "DtoH") & pl.col("step").is_not_null()
    logits &= pl.col("bytes") % vocabulary == 0 if vocabulary else pl.lit(value=False)
    purpose = (
        pl.when(pl.col("label") == "PtoP").then(pl.lit("split"))
        .when(inputs).then(pl.lit("input"))
        .when((pl.col("label") == "HtoD") & (pl.col("at") < first)).then(pl.lit("weights"))
        .when(logits).then(pl.lit("logits"))
        .when((pl.col("label") == "HtoD") & pl.col("step").is_not_null() & (pl.col("bytes") >= _STREAMED_BYTES))
        .then(pl.lit("weights_streamed"))
        .otherwise(pl.lit("other"))
    )  # fmt: skip
    return rows.select("row", "label", "bytes", "step", purpose=purpose)
