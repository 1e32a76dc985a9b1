"""Does the trace hold what was asked for?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsyskit.errors import NsyskitError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nsyskit.trace import Trace

# nsys starts late and flushes early by some milliseconds; more than this is a window that was lost.
_SLACK_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Verified:
    """What a trace holds.

    Attributes:
        rows: of each kind of event that a capture is made for.
        first_ns: the first event's time since the trace began, None without events.
        last_ns: the last one's end.
        notes: what was asked for and is not there.
    """

    rows: Mapping[str, int]
    first_ns: int | None
    last_ns: int | None
    notes: tuple[str, ...]


def verify(trace: Trace, *, gpu: bool, window_ns: int | None) -> Verified:
    """Look for kernels (or, without a GPU, OS runtime rows) and for the length of the window.

    Args:
        trace: the export of the capture.
        gpu: whether this machine has a GPU that the program may have used.
        window_ns: how long the window was by the capture's clock, None when the whole program was captured.
    """
    import polars as pl  # noqa: PLC0415  slow to import

    rows: dict[str, int] = {}
    begins: list[int] = []
    ends: list[int] = []
    for name in ("kernels", "graphs", "memcpys", "api_calls", "os_calls"):
        count, first, last = (
            trace.tables[name].select(pl.len(), pl.col("start_ns").min(), pl.col("end_ns").max()).collect().row(0)
        )
        rows[name] = count
        if count:
            begins.append(first)
            ends.append(last)
    first_ns, last_ns = min(begins, default=None), max(ends, default=None)
    return Verified(rows, first_ns, last_ns, tuple(_missing(rows, first_ns, last_ns, gpu=gpu, window_ns=window_ns)))


def verify_file(sqlite: Path, *, gpu: bool, window_ns: int | None) -> tuple[Trace | None, Verified]:
    """``verify`` of an export; a trace that cannot be read at all is said so in the notes."""
    from nsyskit.ingest import open_trace  # noqa: PLC0415  pulls in polars

    try:
        trace = open_trace(sqlite)
        return trace, verify(trace, gpu=gpu, window_ns=window_ns)
    except NsyskitError as error:
        return None, Verified({}, None, None, (f"the export cannot be read ({error.message})",))


def _missing(
    rows: Mapping[str, int], first_ns: int | None, last_ns: int | None, *, gpu: bool, window_ns: int | None
) -> list[str]:
    if first_ns is None or last_ns is None:
        return ["the trace holds no events at all: nothing was traced in the window"]
    notes = []
    if gpu and not rows["api_calls"]:
        notes.append("no CUDA calls in the trace: did the program use the GPU (-ngl, a CUDA build)?")
    elif rows["api_calls"] and not rows["kernels"] and not rows["graphs"]:
        notes.append("CUDA calls but no kernels and no graph rows in the trace: see nsyskit doctor")
    if window_ns is not None and last_ns - first_ns + _SLACK_NS < 0.8 * window_ns:
        seen, asked = (last_ns - first_ns) / 1e9, window_ns / 1e9
        notes.append(f"the events span {seen:.2f} s of a window of {asked:.2f} s")
    return notes
