"""What the CPU's threads did, by CUDA call and by OS call."""

from __future__ import annotations

from typing import Final

from nsyskit.analysis.os_threads import OsThread, OsThreadsResult
from nsyskit.analysis.threads import ThreadsResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.bars import thread_bar
from nsyskit.report.page.elements import NOTHING, Html, join, note
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Row, ns, table, words
from nsyskit.units import human_ns

_MAX_THREADS: Final = 12


@block.register
def _threads(result: ThreadsResult, _made: Sections, _name: str) -> Html:
    bars = [thread_bar(thread) for thread in result.threads[:_MAX_THREADS]]
    hidden = len(result.threads) - len(bars)
    return join([*bars, note(f"… and {hidden} more driver threads") if hidden > 0 else NOTHING])


@block.register
def _os_threads(result: OsThreadsResult, made: Sections, name: str) -> Html:
    if not result.threads:
        return made.nothing("No OS runtime call was recorded.")
    rows = table(
        "OS runtime calls by thread",
        [_os_row(thread) for thread in result.threads],
        [
            words("thread", lambda row: row["name"]),
            words("drives a GPU", lambda row: row["driver"]),
            ns("in OS calls", "total_ns"),
            ns("of", "span_ns"),
            words("calls", lambda row: row["calls"]),
        ],
    )
    return join([made.drawn(name, drawing(result), "OS runtime time by thread"), rows])


def _os_row(thread: OsThread) -> Row:
    calls = ", ".join(
        f"{row['name']} {human_ns(row['total_ns'])} ×{row['count']:,}"
        for row in thread.calls.head(4).iter_rows(named=True)
    )
    return {
        "name": f"{thread.tid} {thread.name or ''}".strip(),
        "driver": "yes" if thread.driver else "–",
        "total_ns": thread.total_ns,
        "span_ns": thread.span_ns,
        "calls": calls,
    }
