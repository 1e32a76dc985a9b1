"""GPU operations, API calls, and which call handed over which operation.

An operation belongs to a call when their correlation ids are equal and they are of the same process: ids repeat across
processes. In node-level graph traces one launch call owns all kernels of its replay. Backtrace duplicates of calls
take no part.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from nsyskit.analysis.calls import classify_calls
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.frames import PIECE_ROWS, ascends, by_time, distinct, marked, selected, with_literals
from nsyskit.trace import Trace

OP_KINDS: Final = ("kernel", "memcpy", "memset", "graph")
Kind = pl.Enum(list(OP_KINDS))
CallClass = pl.Enum(["sync", "submit", "cuda"])
ROW: Final = pl.UInt32
"""Type of row numbers: what Polars itself counts and gathers with."""
HANDED_OVER: Final = pl.coalesce("call_start_ns", "start_ns")
"""When an operation of ``op_calls`` was handed over; of an orphan the file says only when it ran."""
_DENSE: Final = 8
_NO_ROW: Final = (1 << 32) - 1
_OP_COLUMNS: Final = ("start_ns", "end_ns", "pid", "device", "context", "stream")


@once_per_trace
def api_calls(trace: Trace) -> pl.DataFrame:
    """API calls without duplicates, by start: ``start_ns end_ns pid tid correlation_id name_id``."""
    columns = ["start_ns", "end_ns", "pid", "tid", "correlation_id", "name_id"]
    calls = trace.api_calls.select(*columns, "duplicate").collect()
    # a filter copies every column, and hardly any trace has a row to leave out
    return (calls.filter(~pl.col("duplicate")) if calls["duplicate"].any() else calls).select(columns)


@once_per_trace
def api_names(trace: Trace) -> pl.DataFrame:
    """Distinct API names: ``name_id name base_name class`` (class by name alone: sync, submit, cuda)."""
    names = strings_of(trace, api_calls(trace)["name_id"]).rename({"string_id": "name_id", "value": "name"})
    return classify_calls(names, "api")


@once_per_trace
def gpu_ops(trace: Trace) -> pl.DataFrame:
    """Kernels, copies, memsets and whole-graph rows by start.

    Columns: ``start_ns end_ns pid device context stream kind row`` (``row`` counts within the kind's table) and
    ``call``, the row of ``api_calls`` that handed the operation over, null for an orphan.
    """
    kernels = _of_kind(trace, "kernel")
    # the others are few, and remembered with more columns
    return by_time([kernels, *(ops_of_kind(trace, kind).select(kernels.columns) for kind in OP_KINDS[1:])])


def _of_kind(trace: Trace, kind: str) -> pl.DataFrame:
    rows = gpu_tables(trace)[kind].select(*_OP_COLUMNS, "correlation_id").collect()
    place = pl.lit(kind, Kind).alias("kind"), pl.int_range(pl.len(), dtype=ROW).alias("row"), calls_of(trace, rows)
    return rows.drop("correlation_id").with_columns(place)


def gpu_tables(trace: Trace) -> dict[str, pl.LazyFrame]:
    """The trace's tables of GPU operations, by ``OP_KINDS``."""
    return dict(zip(OP_KINDS, (trace.kernels, trace.memcpys, trace.memsets, trace.graphs), strict=True))


@once_per_trace
def handing(trace: Trace) -> pl.Series:
    """For each row of ``api_calls`` whether it handed over an operation that the trace holds."""
    return marked(api_calls(trace).height, gpu_ops(trace)["call"].drop_nulls()).alias("handing")


def calls_of(trace: Trace, rows: pl.DataFrame) -> pl.Series:
    """For rows with ``pid`` and ``correlation_id`` the row of ``api_calls`` with both, null where there is none."""
    return matches(api_calls(trace), rows).alias("call")


def matches(table: pl.DataFrame, rows: pl.DataFrame) -> pl.Series:
    """For each of ``rows`` the row of ``table`` with the same ``pid`` and ``correlation_id``, null where there is none.

    The ids of one process are distinct among its calls; a damaged file may repeat one, then the first row counts. Rows
    that name no process are of the only one that others name.
    """
    keys = table.select("pid", "correlation_id")
    known, pids = keys["correlation_id"].is_not_null(), distinct(rows.select("pid")).drop_nulls()["pid"].to_list()
    found = pl.repeat(None, rows.height, dtype=ROW, eager=True)
    for pid in pids:
        of_pid = known & keys.select(pl.col("pid") == pid).to_series()
        if len(pids) == 1:
            return _places(keys["correlation_id"], of_pid, rows["correlation_id"])
        here = pl.col("pid") == pid
        wanted = rows.select(pl.when(here).then("correlation_id")).to_series()
        own = _places(keys["correlation_id"], of_pid, wanted)
        found = rows.select(pl.when(here).then(own).otherwise(found)).to_series()
    return found


def _places(keys: pl.Series, among: pl.Series, wanted: pl.Series) -> pl.Series:
    """The row number of each wanted key, null without one; only rows ``among`` these take part."""
    if among.all(ignore_nulls=False):  # as nearly always; their numbers need not be written down
        return looked_up(keys, wanted)
    rows = pl.select(pl.arg_where(among)).to_series()
    return rows.gather(looked_up(keys.gather(rows), wanted)).cast(ROW)


def looked_up(keys: pl.Series, wanted: pl.Series) -> pl.Series:
    """The place of each wanted key, null without one; of equal keys the first counts."""
    if len(wanted) <= PIECE_ROWS or not ascends(keys):
        return _looked_up(keys, wanted)
    pieces = []
    for first in range(0, len(wanted), PIECE_ROWS):
        piece = wanted.slice(first, PIECE_ROWS)
        ends = piece.to_frame().select(low=pl.all().min(), high=pl.all().max())
        low, stop = int(keys.search_sorted(ends["low"], "left")[0]), int(keys.search_sorted(ends["high"], "right")[0])
        near = keys.slice(low, stop - low)
        pieces.append((_looked_up(near, piece) + low).cast(ROW))
    return pl.concat(pieces, rechunk=True)


def _looked_up(keys: pl.Series, wanted: pl.Series) -> pl.Series:
    """CUPTI counts correlation ids up, so that a table indexed by them is small and much faster than a hash join."""
    if keys.is_empty():
        return pl.repeat(None, len(wanted), dtype=ROW, eager=True)
    low, high = int(keys.min()), int(keys.max())  # type: ignore[arg-type]
    rows = pl.int_range(len(keys), dtype=ROW, eager=True)
    if high - low > _DENSE * max(len(keys), 1_000):
        frame = pl.DataFrame({"key": keys, "row": rows}).unique("key", keep="first", maintain_order=True)
        return pl.DataFrame({"key": wanted}).join(frame, on="key", how="left", maintain_order="left")["row"]
    if not ascends(keys):
        keys, rows = keys.reverse(), rows.reverse()  # the first of equal keys is written last
    # a number for none: nulls are slow to set and to gather
    table = pl.repeat(_NO_ROW, high - low + 1, dtype=ROW, eager=True).scatter(keys - low, rows)
    if wanted.null_count() or not low <= int(wanted.min() or 0) <= int(wanted.max() or 0) <= high:  # type: ignore[arg-type]
        wanted = pl.select(pl.when(wanted.is_between(low, high)).then(wanted)).to_series()
    found = table.gather(wanted - low)
    return found.set(found == _NO_ROW, None) if found.max() == _NO_ROW else found


@once_per_trace
def op_calls(trace: Trace) -> pl.DataFrame:
    """``gpu_ops`` with their calls beside them: ``call_start_ns call_end_ns tid``, null for orphans."""
    return _with_calls(trace, gpu_ops(trace))


@once_per_trace
def ops_of_kind(trace: Trace, kind: str) -> pl.DataFrame:
    """The rows of ``op_calls`` of one of ``OP_KINDS`` with their columns, found without looking at other kinds."""
    return _with_calls(trace, _of_kind(trace, kind))


def _with_calls(trace: Trace, ops: pl.DataFrame) -> pl.DataFrame:
    calls = api_calls(trace)
    names = {"start_ns": "call_start_ns", "end_ns": "call_end_ns", "tid": "tid"}
    of_calls = calls.select(pl.col(old).gather(ops["call"]).alias(new) for old, new in names.items())
    return pl.concat([ops, with_literals(of_calls)], how="horizontal")  # hstack would write literals out


@once_per_trace
def call_classes(trace: Trace) -> pl.Series:
    """The class of each row of ``api_calls``: ``sync``, ``submit`` or ``cuda``.

    One exception to the names: a copy with a pageable host side whose call ends at or after the end of its own copy on
    the GPU has blocked, and is ``sync`` whatever its name.
    """
    names = api_names(trace)
    classified = pl.col("name_id").replace_strict(
        names["name_id"], names["class"].cast(CallClass), default="cuda", return_dtype=CallClass
    )
    classes = selected(api_calls(trace), pl.lit(value=True), name_id=classified).to_series()
    blocked = blocking_copies(trace)["call"].unique()
    return classes if blocked.is_empty() else classes.scatter(blocked, "sync")


@once_per_trace
def blocking_copies(trace: Trace) -> pl.DataFrame:
    """Copies that held their call until they were done: the rows of ``op_calls`` of kind memcpy that did."""
    copies = ops_of_kind(trace, "memcpy").filter(pl.col("call").is_not_null())
    memory = trace.memcpys.select("src_memory", "dst_memory").collect()
    sides = memory[copies["row"]]
    pageable = (sides["src_memory"] == "pageable") | (sides["dst_memory"] == "pageable")
    return copies.filter(pageable.fill_null(value=False) & (copies["call_end_ns"] >= copies["end_ns"]))
