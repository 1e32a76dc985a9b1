"""OS runtime calls by thread, with the call chains above the waits: who sits in sem_wait or poll, and why."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from nsyskit.analysis.causes import classified_os_calls
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import named, strings_of
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.threads import thread_name
from nsyskit.errors import MissingTableError
from nsyskit.frames import distinct
from nsyskit.intervals import length, union
from nsyskit.trace import Trace, Window

_MAX_CHAINS = 10
_MAX_THREADS = 200


@dataclass(frozen=True, slots=True)
class OsThread:
    """One thread's OS runtime calls.

    Attributes:
        driver: whether it handed work to a GPU.
        span_ns: from its first call's start to its last one's end; total_ns: the union of its calls.
        calls: ``name class total_ns count``, most time first.
        chains: ``frames total_ns count``: frames innermost first, the waits' most expensive chains first.
    """

    pid: int
    tid: int
    name: str | None
    driver: bool
    span_ns: int
    total_ns: int
    calls: pl.DataFrame
    chains: pl.DataFrame


@dataclass(frozen=True, slots=True)
class OsThreadsResult:
    """``threads``: drivers first, then by time, at most 200; ``more``: how many are left out, which took least time."""

    window: Window | None
    threads: tuple[OsThread, ...]
    more: int = 0


def osrt_by_thread(trace: Trace, *, window: Window | None = None) -> OsThreadsResult:
    """OS runtime calls thread by thread: drivers first, then by time. Whole calls that start in the window.

    Raises:
        MissingTableError: OS runtime was not collected.
    """
    if not trace.meta.sources.get("osrt", False):
        raise MissingTableError("OS runtime calls", hint="capture with --trace=osrt")
    calls = classified_os_calls(trace).drop_nulls(["pid", "tid"])
    if window is not None:
        calls = calls.filter(pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left"))
    calls = calls.with_columns(dur=pl.col("end_ns") - pl.col("start_ns"))
    driving = distinct(op_calls(trace).select("pid", "tid")).drop_nulls().with_columns(driver=pl.lit(value=True))
    drivers = set(driving.select("pid", "tid").iter_rows())
    every = calls.group_by("pid", "tid").agg(pl.col("dur").sum()).join(driving, on=["pid", "tid"], how="left")
    order = [pl.col("driver").is_null(), -pl.col("dur"), "pid", "tid"]
    shown = every.sort(order).head(_MAX_THREADS)
    calls = calls.join(shown, on=["pid", "tid"], how="semi", maintain_order="left")
    threads = [
        _thread(trace, pid, tid, rows, driver=(pid, tid) in drivers)
        for (pid, tid), rows in calls.group_by("pid", "tid", maintain_order=True)
    ]
    threads.sort(key=lambda thread: (not thread.driver, -thread.total_ns, thread.pid, thread.tid))
    return OsThreadsResult(window, tuple(threads), every.height - shown.height)


def _thread(trace: Trace, pid: object, tid: object, rows: pl.DataFrame, *, driver: bool) -> OsThread:
    first, last = rows.select(pl.col("start_ns").min(), pl.col("end_ns").max()).row(0)
    number, thread = int(str(pid)), int(str(tid))
    return OsThread(
        pid=number,
        tid=thread,
        name=thread_name(trace, number, thread),
        driver=driver,
        span_ns=last - first,
        total_ns=length(union(rows)),
        calls=_calls(trace, rows),
        chains=_chains(trace, rows),
    )


def _calls(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    sums = rows.group_by("name_id", pl.col("class").cast(pl.String)).agg(
        pl.col("dur").sum().alias("total_ns"), pl.len().cast(pl.Int64).alias("count")
    )
    order = {"by": ["total_ns", "name"], "descending": [True, False]}
    return named(trace, sums).select("name", "class", "total_ns", "count").sort(**order)  # type: ignore[arg-type]


def _chains(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    """Calls with a recorded chain, put together where the functions are the same."""
    texts = chain_texts(trace)
    sums = (
        rows.join(texts, left_on="callchain_id", right_on="chain_id", how="inner")
        .group_by("frames")
        .agg(pl.col("dur").sum().alias("total_ns"), pl.len().cast(pl.Int64).alias("count"))
    )
    return sums.sort(["total_ns", pl.col("frames").list.join("\n")], descending=[True, False]).head(_MAX_CHAINS)


@once_per_trace
def chain_texts(trace: Trace) -> pl.DataFrame:
    """OS call chains as lists of function names, innermost first: ``chain_id frames``."""
    chains = trace.tables["os_chains"].collect()
    names = strings_of(trace, chains["symbol_id"])
    return (
        chains.sort("chain_id", "depth")
        .join(names, left_on="symbol_id", right_on="string_id", how="left", maintain_order="left")
        .group_by("chain_id", maintain_order=True)
        .agg(pl.col("value").fill_null("[unknown]").alias("frames"))
    )
