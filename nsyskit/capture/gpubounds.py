"""First upload and last sync of each request, from the trace of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsyskit.capture.tax import GpuBounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nsyskit.capture.load import Request
    from nsyskit.trace import Trace


def gpu_bounds(trace: Trace, requests: Sequence[Request]) -> Mapping[int, GpuBounds]:
    """Bounds of the requests that had the server to themselves; of others no upload can be called theirs.

    Empty when the trace has no GPU rows or does not say when it began.
    """
    import polars as pl  # noqa: PLC0415  slow to import, and not needed without a trace

    from nsyskit.analysis.calls import api_class  # noqa: PLC0415

    origin = trace.meta.capture.session_start_utc_ns
    if origin is None:
        return {}
    uploads = trace.memcpys.filter(pl.col("label") == "HtoD").select("start_ns").collect().get_column("start_ns")
    if uploads.is_empty():
        return {}
    calls = trace.api_calls.select("end_ns", "name_id").collect()
    names = trace.strings.filter(pl.col("string_id").is_in(calls.get_column("name_id").unique().implode())).collect()
    waits = [row["string_id"] for row in names.iter_rows(named=True) if api_class(row["value"] or "") == "sync"]
    ends = calls.filter(pl.col("name_id").is_in(waits)).get_column("end_ns").sort()
    bounds: dict[int, GpuBounds] = {}
    for request in alone(requests):
        begin, end = request.send_ns - origin, (request.end_ns or request.send_ns) - origin
        first = uploads.filter(uploads.is_between(begin, end)).min()
        last = ends.filter(ends.is_between(begin, end)).max()
        if isinstance(first, int) and isinstance(last, int) and last >= first:
            bounds[request.index] = GpuBounds(first + origin, last + origin)
    return bounds


def alone(requests: Sequence[Request]) -> tuple[Request, ...]:
    """The requests that overlap with no other."""
    whole = sorted((r for r in requests if r.end_ns is not None), key=lambda r: r.send_ns)
    lonely = []
    latest = 0
    for place, request in enumerate(whole):
        following = whole[place + 1].send_ns if place + 1 < len(whole) else None
        if latest <= request.send_ns and (following is None or (request.end_ns or 0) <= following):
            lonely.append(request)
        latest = max(latest, request.end_ns or 0)
    return tuple(lonely)
