"""Copies, and what was allocated on the GPUs."""

from __future__ import annotations

from nsyskit.analysis.copies import CopiesResult
from nsyskit.analysis.gpu_memory import GpuMemoryResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, count, decimal, ns, size, table, words
from nsyskit.units import human_bytes, human_count, human_ns


@block.register
def _copies(result: CopiesResult, made: Sections, name: str) -> Html:
    if result.hist.is_empty():
        return made.nothing("No copy in this window.")
    blocked = (
        f"{human_count(result.blocking_count)} copies held their caller, for {human_ns(result.blocking_ns)} in all."
        if result.blocking_count
        else "No copy held its caller."
    )
    rows = table(
        "Copies by direction, memory and size",
        result.hist,
        [
            words("direction", lambda row: row["label"]),
            words("host memory", lambda row: row["memory"] or "–"),
            Column("size from", lambda row: row["lo_bytes"], human_bytes),
            count("count", "count"),
            size("bytes", "bytes"),
            ns("time", "total_ns"),
            decimal("GB/s", "gb_per_s", ".2f"),
            count("blocking", "blocking_count"),
        ],
    )
    return join([tag("p", text(blocked)), made.drawn(name, drawing(result), "Number of copies by size"), rows])


@block.register
def _gpu_memory(result: GpuMemoryResult, made: Sections, name: str) -> Html:
    rows = [
        {"label": one.label, "peak": one.peak_bytes, "end": one.end_bytes, "total": one.total_bytes,
         "before": one.before_bytes or None, "count": one.allocations}
        for one in result.devices
    ]  # fmt: skip
    columns = [
        words("GPU", lambda row: row["label"]),
        Column("most held", lambda row: row["peak"], human_bytes),
        Column("at the end", lambda row: row["end"], human_bytes),
        Column("of", lambda row: row["total"], human_bytes),
        Column("held before the trace", lambda row: row["before"], human_bytes, hint="at least: released in it"),
        count("allocations", "count"),
    ]
    told = "By the driver's allocations in the trace, of the traced processes only."
    plot = made.drawn(name, drawing(result), "GPU memory held over time")
    return join([note(told), table("GPU memory", rows, columns), plot])
