"""Sync share, and what it means.

``share_of_api`` is the number everyone quotes; ``wait_share`` says what it was: near 1 the CPU waited for a working
GPU, as in any healthy GPU-bound decode, and removing the call gains nothing; near 0 the GPU idled inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.gpus import feeds
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import (
    ROW,
    api_calls,
    api_names,
    blocking_copies,
    call_classes,
    looked_up,
    matches,
    op_calls,
    ops_of_kind,
)
from nsyskit.analysis.threads import fed_busy, threads
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.frames import PIECE_ROWS, kept, marked, selected, slices
from nsyskit.intervals import count_upto, covered_ns
from nsyskit.schema import LATEST_NS
from nsyskit.trace import Trace, Window

SYNC_CLASSES: Final = ("no_wait", "upload", "gpu_wait", "host_bound")
SYNCHRONIZE: Final = "^(cuda|cu)(Stream|Device|Event|Ctx)Synchronize$"
_IS_FUNCTION: Final = pl.col("name").str.contains(SYNCHRONIZE).fill_null(value=False)
WHOLE_CONTEXT: Final = 4_294_967_295
_MIN_SHARE_OF_WINDOW: Final = 0.01

_PLACES: Final = ["pid", "context", "stream"]
_FEW_PLACES: Final = 64
_OVER: Final = pl.coalesce("call_end_ns", "start_ns")
"""When an operation had been handed over. Of an orphan the file says only when it ran: it stands at its start."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What synchronizing cost and what it waited for.

    Calls and shares are those of the sums, over the whole file unless a window was asked for, so that they agree with
    ``nsys stats``; what the waiting was is told for ``window``.

    Attributes:
        calls, total_ns: synchronize functions, and their durations added up.
        share_of_api: synchronize functions / all API calls, by duration; None without API calls.
        sync_copy_share: the same with copies that blocked counted in.
        by_api: ``name calls total_ns share_of_api class`` of every API name.
        wait_ns, idle_ns: sync time of driver threads over a busy GPU that the thread feeds, and the rest of it.
        wait_share: ``wait_ns / (wait_ns + idle_ns)``; None when sync is under 1 % of the window.
        by_class: ``class calls total_ns`` of ``SYNC_CLASSES``: synchronize functions of driver threads.
        copies_by_class: the same of copies that blocked.
    """

    window: Window
    calls: int
    total_ns: int
    share_of_api: float | None
    sync_copy_share: float | None
    by_api: pl.DataFrame
    wait_ns: int
    idle_ns: int
    wait_share: float | None
    by_class: pl.DataFrame
    copies_by_class: pl.DataFrame


def sync(trace: Trace, *, window: Window | None = None) -> SyncResult:
    """Sync share and sync truth. Shares count whole calls that start in a window; waits are clipped to it.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA API calls", hint="capture with --trace=cuda")
    by_api = _by_api(trace, window)
    window = window or default_window(trace)
    total = int(by_api["total_ns"].sum())
    functions = by_api.filter(_IS_FUNCTION)
    copies = by_api.filter((pl.col("class") == "sync") & ~_IS_FUNCTION)
    function_ns, copy_ns = int(functions["total_ns"].sum()), int(copies["total_ns"].sum())
    classified = classified_syncs(trace, window)
    wait_ns, idle_ns = _waits(trace, window)
    enough = window.dur_ns > 0 and (wait_ns + idle_ns) >= _MIN_SHARE_OF_WINDOW * window.dur_ns
    return SyncResult(
        window=window,
        calls=int(functions["calls"].sum()),
        total_ns=function_ns,
        share_of_api=function_ns / total if total else None,
        sync_copy_share=(function_ns + copy_ns) / total if total else None,
        by_api=by_api,
        wait_ns=wait_ns,
        idle_ns=idle_ns,
        wait_share=wait_ns / (wait_ns + idle_ns) if enough else None,
        by_class=_by_class(classified.filter(_IS_FUNCTION)),
        copies_by_class=_by_class(classified.filter(~_IS_FUNCTION)),
    )


def _calls(trace: Trace, window: Window | None) -> pl.DataFrame:
    """API calls that start in the window, with ``call`` (row of ``api_calls``) and ``class``."""
    calls = api_calls(trace).with_columns(call_classes(trace).alias("class"), call=pl.int_range(pl.len(), dtype=ROW))
    if window is None:
        return calls
    return kept(calls, pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left"))


def _by_api(trace: Trace, window: Window | None) -> pl.DataFrame:
    """``name calls total_ns share_of_api class``; names are looked up after grouping, not a call at a time."""
    dur = pl.col("end_ns") - pl.col("start_ns")
    counted = {"calls": pl.len().cast(pl.Int64), "total_ns": dur.sum()}
    # one key is grouped by in half the time that two take: the id, and the class in the bits above it
    key = pl.col("class").to_physical().cast(pl.Int64) * (1 << 32) + pl.col("name_id")
    once = pl.col("name_id", "class").first()
    calls = _calls(trace, window).select("start_ns", "end_ns", "name_id", "class")
    pieces = [piece.group_by(key.alias("key")).agg(once, **counted) for piece in slices(calls)]
    rows = pl.concat(pieces).group_by("key").agg(once, pl.col("calls", "total_ns").sum())
    rows = rows.with_columns(pl.col("class").cast(pl.String))
    named = rows.join(api_names(trace).select("name_id", name="base_name"), on="name_id", how="left")
    sums = named.group_by("name", "class").agg(pl.col("calls", "total_ns").sum())
    total = sums["total_ns"].sum()
    share = pl.col("total_ns") / total if total else pl.lit(None, pl.Float64)
    ordered = sums.sort(["total_ns", "name", "class"], descending=[True, False, False])
    return ordered.select("name", "calls", "total_ns", share.alias("share_of_api"), "class")


def _waits(trace: Trace, window: Window) -> tuple[int, int]:
    """Sync time of driver threads over a busy GPU that the thread feeds, and the rest of it."""
    ledgers = threads(trace, window=window).threads
    return sum(ledger.busy["sync"] for ledger in ledgers), sum(ledger.idle["sync"] for ledger in ledgers)


def _by_class(classified: pl.DataFrame) -> pl.DataFrame:
    counted = classified.group_by("sync_class").agg(
        pl.len().cast(pl.Int64).alias("calls"), (pl.col("end_ns") - pl.col("start_ns")).sum().alias("total_ns")
    )
    order = pl.DataFrame({"class": list(SYNC_CLASSES)})
    return order.join(
        counted.rename({"sync_class": "class"}), on="class", how="left", maintain_order="left"
    ).with_columns(pl.col("calls", "total_ns").fill_null(0))


@once_per_trace
def classified_syncs(trace: Trace, window: Window) -> pl.DataFrame:
    """Calls of class sync of driver threads that start in the window, with what they waited for.

    Columns: ``call start_ns end_ns pid tid name busy_ns sync_class`` (``name`` without suffixes). The first class that
    holds: ``no_wait`` nothing was unfinished on what it waits for when it began, ``upload`` only HtoD copies were,
    ``gpu_wait`` a GPU that the thread feeds was busy for at least half of it, ``host_bound``. A blocking copy waits
    for itself.
    """
    drivers = feeds(trace, window).select("pid", "tid").unique()
    calls = _calls(trace, window).filter(pl.col("class") == "sync")
    calls = calls.join(drivers, on=["pid", "tid"], how="semi", maintain_order="left")
    names = api_names(trace).select("name_id", name="base_name")
    calls = calls.join(names, on="name_id", how="left", maintain_order="left")
    calls = _awaited(trace, calls)
    frames = []
    for pid, tid in drivers.sort("pid", "tid").iter_rows():
        own = calls.filter((pl.col("pid") == pid) & (pl.col("tid") == tid))
        frames.append(own.with_columns(busy_ns=covered_ns(own, fed_busy(trace, pid, tid, window))))
    if not frames:
        return calls.with_columns(busy_ns=pl.lit(0, pl.Int64), sync_class=pl.lit(None, pl.String))
    syncs = _unfinished(trace, pl.concat(frames))
    half = 2 * pl.col("busy_ns") >= pl.col("end_ns") - pl.col("start_ns")
    return syncs.with_columns(
        sync_class=pl.when(~pl.col("anything"))
        .then(pl.lit("no_wait"))
        .when(~pl.col("beyond_upload"))
        .then(pl.lit("upload"))
        .when(half)
        .then(pl.lit("gpu_wait"))
        .otherwise(pl.lit("host_bound"))
    ).sort("start_ns", "end_ns", "pid", "tid")


def _awaited(trace: Trace, calls: pl.DataFrame) -> pl.DataFrame:
    """``calls`` with ``context`` and ``stream`` that they wait for; null means any.

    The SYNCHRONIZATION table knows them, by process and correlation id; a copy waits on its own stream. A stream's
    number means something only in its context; the table's device is 0 whatever the device (2026.2, two GPUs).
    """
    syncs = trace.syncs.select("pid", "correlation_id", "context", "stream").collect()
    copies = ops_of_kind(trace, "memcpy").filter(pl.col("call").is_not_null())
    own = looked_up(copies["call"], calls["call"])
    at = matches(syncs, calls)
    stream = pl.when(pl.col("stream") != WHOLE_CONTEXT).then("stream")
    awaited = syncs.select(pl.col("context").gather(at), stream.gather(at).alias("stream"))
    copied = copies.select(pl.col("context", "stream").gather(own).name.prefix("copy_"))
    both = pl.concat([calls, awaited, copied], how="horizontal")
    return both.with_columns(
        context=pl.coalesce("copy_context", "context"), stream=pl.coalesce("copy_stream", "stream")
    ).drop("copy_context", "copy_stream")


def _unfinished(trace: Trace, syncs: pl.DataFrame) -> pl.DataFrame:
    """``syncs`` with ``anything`` and ``beyond_upload``: was work, or other work than HtoD copies, unfinished?"""
    ops = _handed_over(trace)
    anything = _reaches(syncs, ops, pl.lit(value=True)) | syncs["call"].is_in(
        blocking_copies(trace)["call"].unique().implode()
    )
    labels = trace.memcpys.select("label").collect()["label"]
    own_beyond = blocking_copies(trace).filter(labels[blocking_copies(trace)["row"]] != "HtoD")["call"]
    return syncs.with_columns(
        anything=anything,
        beyond_upload=_reaches(syncs, ops, ~pl.col("upload")) | syncs["call"].is_in(own_beyond.unique().implode()),
    )


def _handed_over(trace: Trace) -> pl.DataFrame:
    """``op_calls`` with ``upload`` and ``orphan``: whether a row is an HtoD copy, and whether its call is lost."""
    return op_calls(trace).with_columns(upload=_is_upload(trace), orphan=pl.col("call").is_null())


def _is_upload(trace: Trace) -> pl.Series:
    """Whether each row of ``op_calls`` is an HtoD copy."""
    ops = op_calls(trace)
    labels = trace.memcpys.select("label").collect()["label"]
    places = (ops["kind"] == "memcpy").arg_true()
    uploads = places.filter(labels[ops["row"][places]] == "HtoD")
    return marked(ops.height, uploads).alias("upload")


def _reaches(syncs: pl.DataFrame, ops: pl.DataFrame, among: pl.Expr) -> pl.Series:
    """For each sync whether work on what it awaits was unfinished when it began; only operations ``among`` count.

    That is an operation handed over before and done after; of operations without a call those that ran meanwhile.
    """
    begun = syncs.select("pid", "context", "stream", "start_ns", by="start_ns")
    ended = syncs.select("pid", "context", "stream", "start_ns", by=pl.col("end_ns") - 1)
    if not ops["orphan"].any():
        return _done_after(begun, ops, among)
    return _done_after(begun, ops, among & ~pl.col("orphan")) | _done_after(ended, ops, among & pl.col("orphan"))


def _done_after(syncs: pl.DataFrame, ops: pl.DataFrame, among: pl.Expr) -> pl.Series:
    """Whether of operations handed over ``by`` an instant, on what is awaited, one ends after ``start_ns``."""
    waits = syncs.with_row_index("row")
    few = waits.select(_PLACES).n_unique() <= _FEW_PLACES if waits.height else True
    frames = _place_by_place(waits, ops, among) if few else _all_places(waits, ops, among)
    schema = {"row": pl.UInt32, "unfinished": pl.Boolean}
    return pl.concat([pl.DataFrame(schema=schema), *frames], how="vertical_relaxed").sort("row")["unfinished"]


def _place_by_place(syncs: pl.DataFrame, ops: pl.DataFrame, among: pl.Expr) -> list[pl.DataFrame]:
    """``row unfinished``: the operations of each place are searched; as fast as can be for a few of them."""
    frames = []
    for place, waits in syncs.group_by(_PLACES):
        known = [pl.col(name) == value for name, value in zip(_PLACES, place, strict=True) if value is not None]
        where = pl.all_horizontal(among, *known)
        reach = _reach_in_order(ops, where, waits["by"])
        reach = _reach(ops, where, waits["by"]) if reach is None else reach
        frames.append(waits.select("row", unfinished=(reach > waits["start_ns"]).fill_null(value=False)))
    return frames


def _reach_in_order(ops: pl.DataFrame, where: pl.Expr, by: pl.Series) -> pl.Series | None:
    """The last end of what was handed over by each instant, null where nothing was; None where that is in no order.

    A stream's operations are listed in the order in which they were handed over: they are looked at a piece at a time.
    """
    if not by.is_sorted():
        return None
    found, asked, last, latest = [], 0, -LATEST_NS, None
    for piece in ops.iter_slices(PIECE_ROWS):
        there = piece.filter(where).select("end_ns", at=_OVER)
        at = there["at"]
        if at.is_empty():
            continue
        if at[0] < last or not at.is_sorted():
            return None
        reach = there["end_ns"].cum_max().clip(lower_bound=latest)
        first, stop = int(by.search_sorted(at[0], "left")), int(by.search_sorted(at[-1], "left"))
        found.append(pl.repeat(latest, first - asked, dtype=pl.Int64, eager=True))
        found.append(reach.gather(count_upto(at, by.slice(first, stop - first)) - 1))
        asked, last, latest = stop, at[-1], reach[-1]
    return pl.concat([*found, pl.repeat(latest, len(by) - asked, dtype=pl.Int64, eager=True)])


def _reach(ops: pl.DataFrame, where: pl.Expr, by: pl.Series) -> pl.Series:
    """The same in any order."""
    there = selected(ops, where, "end_ns", at=_OVER).sort("at")
    last = count_upto(there["at"], by) - 1
    return there["end_ns"].cum_max().gather(pl.select(pl.when(last >= 0).then(last)).to_series())


def _all_places(syncs: pl.DataFrame, ops: pl.DataFrame, among: pl.Expr) -> list[pl.DataFrame]:
    """The same for any number of places in one go: those that name the same columns together."""
    frames = []
    ops = selected(ops, among, *_PLACES, "end_ns", at=_OVER).sort("at")
    for unnamed, waits in syncs.group_by(pl.col(name).is_null().alias(f"no_{name}") for name in _PLACES):
        known = [name for name, absent in zip(_PLACES, unnamed, strict=True) if not absent]
        reach = pl.col("end_ns").cum_max()
        there = ops.cast({name: waits.schema[name] for name in known})
        there = there.select(*known, "at", reach=reach.over(known) if known else reach)
        there = there.unique([*known, "at"], keep="last", maintain_order=True)
        found = waits.sort("by").join_asof(
            there, left_on="by", right_on="at", by=known or None, strategy="backward", check_sortedness=False
        )
        frames.append(found.select("row", unfinished=(pl.col("reach") > pl.col("start_ns")).fill_null(value=False)))
    return frames
