"""The thread ledger: every nanosecond of a driver thread has one name, split by whether a GPU it feeds is busy.

A full launch queue or a blocking copy over a busy GPU is no loss: only the idle halves may feed a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.causes import THREAD_PARTS, thread_instants
from nsyskit.analysis.gpus import busy_of, feeds, gpu_uses
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.intervals import clip, common, length, overlap_ns, span, union
from nsyskit.trace import Trace, Window

PARTS: Final = (*THREAD_PARTS, "host")


@dataclass(frozen=True, slots=True)
class ThreadLedger:
    """One driver thread's window: the busy and the idle halves of all parts sum to it."""

    pid: int
    tid: int
    name: str | None
    window: Window
    busy: Mapping[str, int]
    idle: Mapping[str, int]

    def part_ns(self, part: str) -> int:
        return self.busy[part] + self.idle[part]


@dataclass(frozen=True, slots=True)
class ThreadsResult:
    window: Window
    threads: tuple[ThreadLedger, ...]


def threads(trace: Trace, *, window: Window | None = None) -> ThreadsResult:
    """The ledger of every thread of whose API calls an operation starting in the window comes.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA rows", hint="capture with --trace=cuda")
    return _threads(trace, window or default_window(trace))


@once_per_trace
def _threads(trace: Trace, window: Window) -> ThreadsResult:
    drivers = feeds(trace, window).select("pid", "tid").unique().sort("pid", "tid")
    return ThreadsResult(window, tuple(_ledger(trace, pid, tid, window) for pid, tid in drivers.iter_rows()))


def _ledger(trace: Trace, pid: int, tid: int, window: Window) -> ThreadLedger:
    layers = thread_instants(trace, pid, tid)
    bare = {part: clip(layers[part], window.start_ns, window.end_ns) for part in THREAD_PARTS}
    total, over_busy = _split(window, bare, fed_busy(trace, pid, tid, window))
    return ThreadLedger(
        pid=pid,
        tid=tid,
        name=thread_name(trace, pid, tid),
        window=window,
        busy=over_busy,
        idle={part: total[part] - over_busy[part] for part in PARTS},
    )


def _split(
    window: Window, layers: Mapping[str, pl.DataFrame], busy: pl.DataFrame
) -> tuple[dict[str, int], dict[str, int]]:
    """How much each part holds of the window, and of its busy time; all frames are merged.

    The first part that holds counts, so a part is its layer without what those before it have taken.
    """
    total, over_busy = {}, {}
    earlier: list[pl.DataFrame] = []
    for part, own in layers.items():
        taken = union(pl.concat([span(0, 0), *(common(own, other) for other in earlier)]))
        total[part] = length(own) - length(taken)
        over_busy[part] = _inside(own, busy) - _inside(taken, busy)
        earlier.append(own)
    host = window.dur_ns - sum(total.values())
    host_busy = _inside(span(window.start_ns, window.end_ns), busy) - sum(over_busy.values())
    return total | {"host": host}, over_busy | {"host": host_busy}


def _inside(merged: pl.DataFrame, busy: pl.DataFrame) -> int:
    """How long both hold; the longer one is only searched."""
    few, many = (merged, busy) if merged.height < busy.height else (busy, merged)
    return overlap_ns(few, many)


@once_per_trace
def fed_busy(trace: Trace, pid: int, tid: int, window: Window) -> pl.DataFrame:
    """When any GPU that the thread feeds in the window is busy: merged, over the whole trace."""
    own = feeds(trace, window).filter((pl.col("pid") == pid) & (pl.col("tid") == tid))["use"]
    frames = [busy_of(trace, gpu_uses(trace)[index]) for index in own]
    return frames[0] if len(frames) == 1 else union(pl.concat(frames))


def thread_name(trace: Trace, pid: int, tid: int) -> str | None:
    """The thread's last name in the file; threads are renamed as they start."""
    return _thread_names(trace).get((pid, tid))


@once_per_trace
def _thread_names(trace: Trace) -> dict[tuple[int, int], str]:
    ids = trace.tables["thread_names"].select("pid", "tid", "name_id").collect()
    texts = dict(strings_of(trace, ids["name_id"]).select("string_id", "value").iter_rows())
    last = {(pid, tid): name_id for pid, tid, name_id in ids.iter_rows()}
    return {thread: texts[name_id] for thread, name_id in last.items() if name_id in texts}
