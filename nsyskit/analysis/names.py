"""Names for the ids in aggregated frames: strings are looked up after grouping, once a group."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.trace import Trace


def named(
    trace: Trace,
    rows: pl.DataFrame,
    *,
    column: str = "name_id",
    name: str = "name",
    printed: Callable[[pl.Expr], pl.Expr] = lambda value: value,
) -> pl.DataFrame:
    """``rows`` with a column ``name`` for the ids in ``column``; an id that the file does not explain names itself."""
    strings = strings_of(trace, rows[column]).select(
        pl.col("string_id").alias(column), printed(pl.col("value")).alias(name)
    )
    unknown = pl.format("[unknown name {}]", pl.col(column).cast(pl.String).fill_null("NULL"))
    return rows.join(strings, on=column, how="left", maintain_order="left").with_columns(
        pl.col(name).fill_null(unknown)
    )


def strings_of(trace: Trace, ids: pl.Series) -> pl.DataFrame:
    """``string_id``, ``value`` of the given ids."""
    wanted = ids.unique().drop_nulls()
    return _strings(trace).filter(pl.col("string_id").is_in(wanted.implode()))


@once_per_trace
def _strings(trace: Trace) -> pl.DataFrame:
    return trace.strings.collect()


def printed_api_name(name: pl.Expr) -> pl.Expr:
    """API names as ``nsys stats`` prints them: without a trailing ``_v`` and four digits.

    ``cudaLaunchKernel_v7000`` becomes ``cudaLaunchKernel``; ``cudaGraphLaunch_v10000`` and ``cuMemAlloc_v2`` stay.
    """
    return name.str.replace(r"_v\d{4}$", "")
