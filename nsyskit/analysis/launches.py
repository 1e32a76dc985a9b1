"""Launch calls, and which of them only recorded a graph."""

from __future__ import annotations

from typing import Final

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import api_calls, api_names
from nsyskit.intervals import assign
from nsyskit.trace import Trace, Window

LAUNCH: Final = "^(cuda|cu)Launch"
GRAPH_LAUNCH: Final = "^(cuda|cu)GraphLaunch"


def calls_named(trace: Trace, pattern: str) -> pl.DataFrame:
    """The rows of ``api_calls`` whose base name matches a regular expression: ``start_ns end_ns pid tid call``."""
    rows = rows_named(trace, pattern)
    return api_calls(trace).select(pl.col("start_ns", "end_ns", "pid", "tid").gather(rows)).with_columns(rows)


@once_per_trace
def rows_named(trace: Trace, pattern: str) -> pl.Series:
    """The numbers of these rows alone, ascending: ``call``."""
    names = api_names(trace).filter(pl.col("base_name").str.contains(pattern))["name_id"]
    called = pl.arg_where(pl.col("name_id").is_in(names.implode())).alias("call")
    return api_calls(trace).select(called).to_series()


@once_per_trace
def launched(trace: Trace) -> pl.Series:
    """The rows of ``api_calls`` that launched a kernel and did not only record it, ascending: ``call``."""
    rows, captured = rows_named(trace, LAUNCH), _captured(trace)
    return rows.filter(~captured) if captured.any() else rows


@once_per_trace
def _captured(trace: Trace) -> pl.Series:
    """Which of the rows named as launches only recorded one into a graph."""
    captured = pl.repeat(value=False, n=len(rows_named(trace, LAUNCH)), eager=True).alias("captured")
    if captures(trace).is_empty():
        return captured
    calls = calls_named(trace, LAUNCH)
    for key, recordings in captures(trace).group_by("pid", "tid"):
        own = ((calls["pid"] == key[0]) & (calls["tid"] == key[1])).fill_null(value=False)
        captured |= own & assign(calls["start_ns"], recordings).is_not_null()
    return captured


def within(trace: Trace, rows: pl.Series, window: Window) -> pl.Series:
    """Of ascending rows of ``api_calls`` those that start in the window."""
    starts = api_calls(trace)["start_ns"]
    first, stop = starts.search_sorted(window.start_ns, side="left"), starts.search_sorted(window.end_ns, side="left")
    low, high = rows.search_sorted(first, side="left"), rows.search_sorted(stop, side="left")
    return rows[low : max(low, high)]


@once_per_trace
def captures(trace: Trace) -> pl.DataFrame:
    """Stream captures: ``pid tid start_ns end_ns``, from the end of the begin call to the start of the end call."""
    names = api_names(trace)
    begin = names.filter(pl.col("base_name").str.contains("StreamBeginCapture"))["name_id"]
    end = names.filter(pl.col("base_name").str.contains("StreamEndCapture"))["name_id"]
    calls = api_calls(trace).filter(pl.col("name_id").is_in(pl.concat([begin, end]).implode()))
    begins = pl.col("name_id").is_in(begin.implode())
    thread = ["pid", "tid"]
    ends_next = (~begins).shift(-1).over(thread)
    following = pl.col("start_ns").shift(-1).over(thread)
    return (
        calls.select("pid", "tid", start_ns=pl.col("end_ns"), end_ns=following, opens=begins & ends_next)
        .filter("opens").drop("opens").drop_nulls(["pid", "tid"])
    )  # fmt: skip
