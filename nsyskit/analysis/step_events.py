"""What driver threads did, as far as it tells steps apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl

from nsyskit.analysis.launches import GRAPH_LAUNCH, calls_named, launched, rows_named
from nsyskit.analysis.pairing import HANDED_OVER, api_calls, ops_of_kind
from nsyskit.frames import PIECE_ROWS, groups, kept
from nsyskit.intervals import count_upto
from nsyskit.trace import Trace

_BREAKS_GROUP: Final = "^(cuda|cu)(Malloc|Free|HostAlloc|Host|Memset|Module|Library|StreamCreate|Ctx|Init)"
_AT: Final = (
    pl.col("pid"), pl.col("tid"), pl.col("start_ns").alias("at"), pl.col("start_ns").alias("last"),
    pl.col("end_ns").alias("done"),
)  # fmt: skip

_RUN: Final = (pl.col("at").first(), pl.col("last", "done").max())
"""Launches put together."""


def step_events(trace: Trace) -> pl.DataFrame:
    """What a thread did, in the order of its calls: ``pid tid at kind device bytes done``.

    Kinds: ``up`` HtoD copy, ``down`` DtoH copy, ``run`` launches (neighbours put together), ``break`` other calls that
    no ubatch makes between its uploads. Rows of lost calls stand where their operation began.
    """
    copies = trace.memcpys.select(pl.col("label").cast(pl.String), "bytes").collect()
    ops = ops_of_kind(trace, "memcpy")
    ops = ops.with_columns(label=copies["label"][ops["row"]], bytes=copies["bytes"][ops["row"]])
    kind = pl.col("label").replace_strict({"HtoD": "up", "DtoH": "down"}, default=None, return_dtype=pl.String)
    columns = ["pid", "tid", "at", "last", "done", "kind", "device", "bytes", "row"]
    moved = ops.with_columns(
        pl.col("row").cast(pl.Int64),
        at=HANDED_OVER,
        last=HANDED_OVER,
        done=pl.coalesce("call_end_ns", "start_ns"),
        kind=kind,
    ).filter(pl.col("kind").is_not_null())
    moved = moved.select(columns)
    breaks = _happened(calls_named(trace, _BREAKS_GROUP).select(_AT), "break").select(columns)
    orphans = _happened(_orphan_graphs(trace), "run").select(columns)
    others = pl.concat([moved, breaks, orphans])
    runs = _happened(_runs(trace, None if others["tid"].null_count() else others), "run").select(columns)
    events = pl.concat([moved, runs, orphans, breaks])
    events = _adopt_orphans(events) if others["tid"].null_count() else events
    events = events.sort("pid", "tid", "at", maintain_order=True)
    same = (pl.col("kind") == "run") & (pl.col("kind").shift(1) == "run")
    same &= (pl.col("tid") == pl.col("tid").shift(1)) & (pl.col("pid") == pl.col("pid").shift(1))
    block = (~same.fill_null(value=False)).cum_sum().set_sorted()
    return events.group_by(block.alias("block"), maintain_order=True).agg(
        pl.col("pid", "tid", "at", "kind", "device", "bytes", "row").first(),
        pl.col("done", "last").max(),
    )


def of_thread(key: tuple[object, ...]) -> pl.Expr:
    """The rows of one thread."""
    return pl.all_horizontal(pl.col("pid") == pl.lit(key[0]), pl.col("tid") == pl.lit(key[1]))


def _happened(rows: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Rows with ``pid tid at last done`` as events that move nothing."""
    return rows.select(
        "pid", "tid", "at", "last", "done", kind=pl.lit(kind), device=pl.lit(-1, pl.Int32), bytes=pl.lit(0, pl.Int64),
        row=pl.lit(-1, pl.Int64),
    )  # fmt: skip


def _runs(trace: Trace, others: pl.DataFrame | None) -> pl.DataFrame:
    """Launches of kernels and graphs that did not only record a graph: ``pid tid at last done`` by start.

    A thread's launches from one other event to the next are put together, where ``others`` are given: millions of rows
    fewer to sort.
    """
    kernels, graphs = launched(trace), rows_named(trace, GRAPH_LAUNCH)
    rows = (kernels if graphs.is_empty() else pl.concat([kernels, graphs]).sort()).to_frame("call")
    calls = api_calls(trace).select("start_ns", "end_ns", "pid", "tid")
    pieces = (calls.select(pl.all().gather(piece["call"])).select(_AT) for piece in rows.iter_slices(PIECE_ROWS))
    none = calls.clear().select(_AT)
    if others is None:
        return pl.concat([none, *pieces])
    edges = {key: own["at"].sort() for key, own in others.group_by("pid", "tid")}
    somebodys = pl.col("pid").is_not_null() & pl.col("tid").is_not_null()
    found = [run for piece in pieces for run in _between(kept(piece, somebodys), edges)]
    # the last run of a piece goes on in the next one
    runs = pl.concat([none.with_columns(block=pl.lit(0, pl.Int64)), *found])
    runs = runs.group_by("pid", "tid", "block", maintain_order=True).agg(*_RUN)
    return runs.sort("pid", "tid", "block").drop("block")


def _between(launches: pl.DataFrame, edges: Mapping[tuple[object, ...], pl.Series]) -> Iterator[pl.DataFrame]:
    """The launches of each thread put together by the number of its other events before them, ``block``."""
    for key, own in groups(launches, "pid", "tid"):
        block = count_upto(edges.get(key, own["at"].clear()), own["at"]).set_sorted()  # as launches are, by start
        runs = own.group_by(block.alias("block"), maintain_order=True).agg(pl.col("pid", "tid").first(), *_RUN)
        yield runs.select(*own.columns, "block")


def _orphan_graphs(trace: Trace) -> pl.DataFrame:
    """Whole graphs whose launch call was lost: one may be all that a step ran."""
    lost = ops_of_kind(trace, "graph").filter(pl.col("call").is_null())
    return lost.select("pid", "tid", at="start_ns", last="start_ns", done="start_ns")


def _adopt_orphans(events: pl.DataFrame) -> pl.DataFrame:
    """Give rows of lost calls to the thread of their process that made the call before."""
    return events.sort("pid", "at", maintain_order=True).with_columns(
        pl.col("tid").forward_fill().backward_fill().over("pid")
    ).drop_nulls("tid")  # fmt: skip
