"""What a damaged or incomplete recording gives away: rows twice, clocks that disagree, kernels that never came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.launches import launched
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import HANDED_OVER, ROW, api_calls, api_names, gpu_tables, handing, matches, op_calls
from nsyskit.analysis.steps import find_steps
from nsyskit.frames import selected, summed
from nsyskit.intervals import assign
from nsyskit.trace import Trace

_WAITS: Final = ("cudaStreamSynchronize", "cuStreamSynchronize", "cudaDeviceSynchronize", "cuCtxSynchronize")
_WHOLE_CONTEXT: Final = 4294967295
_SAMPLE: Final = 2_000
_PLACES: Final = 64
_TOLERANCE_NS: Final = 10_000
"""Real traces show work that ends up to 7 µs after the call that waited for it; no operation before its call."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Whether GPU and CPU rows can be of one clock.

    Attributes:
        ops: GPU operations with a call.
        early: of those, operations that begin before their call began.
        waits: calls looked at that waited for a stream or a context, at most 2,000.
        late: of those, calls that returned more than 10 µs before work they waited for was done.
    """

    ops: int
    early: int
    waits: int
    late: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Kernel launches outside of graph captures that left no row. ``at_end``: all after the last that did."""

    launches: int
    lost: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class LostCalls:
    """API rows that are gone, as seen at the operations of steps that they handed over.

    Attributes:
        calls: calls that operations within steps come from, one for a graph whatever it ran.
        lost: of those, calls without a row. Of calls that hand nothing over, such as waits, as many are gone unseen.
        steps: all steps.
        touched: steps with an operation whose call is lost.
        begins: steps that begin where the call of their first upload is lost: they begin too late.
    """

    calls: int
    lost: int
    steps: int
    touched: int
    begins: int


@once_per_trace
def clocks(trace: Trace) -> Clocks:
    ops = op_calls(trace)
    (early,) = summed(ops, (pl.col("start_ns") < pl.col("call_start_ns")).sum())
    waits = _waits(trace)
    places = [rows for _, rows in waits.group_by("pid", "context", "stream", maintain_order=True)]
    if len(places) > _PLACES:  # as damaged files have them: those that were awaited most say enough
        places = sorted(places, key=lambda rows: -rows.height)[:_PLACES]
        waits = pl.concat(places)
    late = sum(_late(ops, rows, rows.select("pid", "context", "stream").row(0)) for rows in places)
    return Clocks(ops.height - ops["call"].null_count(), early, waits.height, late)


def _waits(trace: Trace) -> pl.DataFrame:
    """Calls that waited: ``start_ns end_ns pid tid context stream``, spread over the trace."""
    names = api_names(trace).filter(pl.col("base_name").is_in(_WAITS)).select("name_id")
    calls = api_calls(trace).join(names, on="name_id", how="semi", maintain_order="left")
    calls = calls.gather_every(max(1, -(-calls.height // _SAMPLE)))
    syncs = trace.syncs.select("pid", "correlation_id", "context", "stream").collect()
    at = matches(syncs, calls)
    awaited = syncs.select(pl.col("context", "stream").gather(at))
    return pl.concat([calls, awaited], how="horizontal").drop_nulls(["pid", "context"])


def _late(ops: pl.DataFrame, waits: pl.DataFrame, key: tuple[object, ...]) -> int:
    """Waits after whose return the awaited work was still to end: seen at the operations around the return."""
    pid, context, stream = key
    own = (pl.col("pid") == pid) & (pl.col("context") == context) & pl.col("call").is_not_null()
    if stream != _WHOLE_CONTEXT:
        own &= pl.col("stream") == stream
    awaited = selected(ops.with_columns(at=pl.int_range(pl.len(), dtype=ROW)), own, "start_ns", "at")
    if awaited.is_empty():
        return 0
    after = awaited["start_ns"].search_sorted(waits["end_ns"], side="right")
    found = pl.repeat(value=False, n=waits.height, eager=True)
    for place in (after.cast(pl.Int64) - 1, after.cast(pl.Int64)):
        inside = place.is_between(0, awaited.height - 1)
        near = ops[awaited["at"][place.clip(0, awaited.height - 1)]]
        submitted = (near["tid"] == waits["tid"]) & (near["call_start_ns"] < waits["start_ns"])
        unfinished = near["end_ns"] > waits["end_ns"] + _TOLERANCE_NS
        found |= inside & submitted.fill_null(value=False) & unfinished
    return int(found.sum())


@once_per_trace
def doubled_rows(trace: Trace) -> dict[str, int]:
    """Rows that say the same as the row before them, word by word: ``GPU rows`` and ``API rows``."""
    columns = ("start_ns", "end_ns", "pid", "device", "context", "stream", "correlation_id")
    ops = sum(_same_as_before(table.select(columns).collect()) for table in gpu_tables(trace).values())
    same = {"GPU rows": ops, "API rows": _same_as_before(api_calls(trace))}
    return {name: count for name, count in same.items() if count}


def _same_as_before(rows: pl.DataFrame) -> int:
    """Rows are by time, so that equal ones are neighbours."""
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in rows.columns)
    (count,) = summed(rows, (same & (pl.int_range(pl.len()) > 0)).sum(), before=1)
    return int(count)


@once_per_trace
def lost_kernels(trace: Trace) -> Lost:
    rows = launched(trace)
    found = handing(trace)[rows]
    lost = rows.filter(~found)
    if lost.is_empty():
        return Lost(len(rows), 0, at_end=False)
    starts = api_calls(trace)["start_ns"]
    last = starts[rows.filter(found)].max()
    return Lost(len(rows), len(lost), at_end=last is not None and bool((starts[lost] > last).all()))


@once_per_trace
def lost_calls(trace: Trace) -> LostCalls:
    steps = find_steps(trace).steps
    unified = trace.memcpys.select(pl.col("label").cast(pl.String).str.starts_with("unified")).collect()["label"]
    ops = (
        op_calls(trace)
        .select("kind", "row", "pid", "start_ns", "call", at=HANDED_OVER)
        .filter((pl.col("kind") != "memcpy") | ~pl.col("row").is_in(unified.arg_true().implode()))
    )  # migrations of managed memory have no call
    within = pl.repeat(value=False, n=ops.height, eager=True)
    hit: set[int] = set()
    lost = ops["call"].is_null()
    for (pid,), own in steps.group_by("pid", maintain_order=True):
        at = assign(ops["at"], own.select(start_ns="begin_ns", end_ns="end_ns"))
        here = at.is_not_null() & (ops["pid"] == pid)
        within |= here
        hit |= set(own["index"].gather(at.filter(here & lost).unique()))
    inside = ops.filter(within)
    gone = _calls_of_orphans(trace, inside.filter(pl.col("call").is_null()))
    unseen = ops.filter(lost)["start_ns"].unique()
    begins = int(steps["begin_ns"].is_in(unseen.implode()).sum())
    return LostCalls(inside["call"].drop_nulls().n_unique() + gone, gone, steps.height, len(hit), begins)


def _calls_of_orphans(trace: Trace, orphans: pl.DataFrame) -> int:
    """How many calls handed over operations (``kind row pid``) whose calls are lost: as many as they name."""
    named = []
    for kind, table in gpu_tables(trace).items():
        own = orphans.filter(pl.col("kind") == kind)
        named.append(own.select("pid").hstack(table.select("correlation_id").collect()[own["row"]]))
    return pl.concat(named).n_unique()
