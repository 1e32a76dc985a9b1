"""The server's tax: where a request's time goes that is not the model's, each part bounded by two named timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nsyskit.capture.load import Request
    from nsyskit.capture.serverlog import LogClock, Task

UNATTRIBUTED = "unattributed"
# Logical order: a timestamp that comes before one of these that stands above it is left out.
MARKS = (
    "client send",
    "slot launched",
    "first upload",
    "prompt evaluated",
    "first byte",
    "first text",
    "last sync",
    "timings printed",
    "last byte",
)
_PARTS: Mapping[tuple[str, str], str] = {
    ("client send", "slot launched"): "accept",  # HTTP, tokenizing, waiting for a slot
    ("slot launched", "first upload"): "prepare",
    ("slot launched", "prompt evaluated"): "prefill",
    ("first upload", "prompt evaluated"): "prefill",
    ("prompt evaluated", "first byte"): "deliver",
    ("prompt evaluated", "first text"): "deliver",
    ("first byte", "first text"): "deliver",
    ("first text", "last sync"): "decode",
    ("first text", "timings printed"): "decode",
    ("first text", "last byte"): "stream",  # without the log: decode and close together
    ("last sync", "timings printed"): "finish",
    ("timings printed", "last byte"): "close",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of one request; ``begin`` and ``end`` name the timestamps that bound it."""

    index: int
    part: str
    begin: str
    end: str
    begin_ns: int
    end_ns: int

    @property
    def dur_ns(self) -> int:
        return self.end_ns - self.begin_ns


@dataclass(frozen=True, slots=True)
class GpuBounds:
    """First upload and end of the last sync of a request that had the server to itself, in Unix time."""

    first_upload_ns: int
    last_sync_ns: int


def request_parts(
    request: Request, task: Task | None = None, clock: LogClock | None = None, gpu: GpuBounds | None = None
) -> tuple[Part, ...]:
    """The parts of a request from client send to last byte; they sum to its total.

    A stretch that no pair of known timestamps explains is ``unattributed``.
    """
    if request.end_ns is None or request.error is not None:
        return ()
    marks = _in_order(_marks(request, task, clock, gpu), request.end_ns)
    return tuple(
        Part(request.index, _PARTS.get((begin, end), UNATTRIBUTED), begin, end, begin_ns, end_ns)
        for (begin, begin_ns), (end, end_ns) in pairwise(marks)
    )


def all_parts(
    requests: Sequence[Request],
    matched: Mapping[int, Task],
    clock: LogClock | None,
    gpu: Mapping[int, GpuBounds],
) -> tuple[Part, ...]:
    """The parts of all whole requests of the load, in their order."""
    return tuple(
        part
        for request in requests
        if not request.warmup
        for part in request_parts(request, matched.get(request.index), clock, gpu.get(request.index))
    )


def tax_ns(request: Request) -> int | None:
    """What a request took beyond the prefill and decode times that the server itself reports."""
    prompt, predicted = request.timings.get("prompt_ms"), request.timings.get("predicted_ms")
    if request.total_ns is None or prompt is None or predicted is None:
        return None
    return request.total_ns - round((prompt + predicted) * 1e6)


def _marks(request: Request, task: Task | None, clock: LogClock | None, gpu: GpuBounds | None) -> dict[str, int | None]:
    marks: dict[str, int | None] = {
        "client send": request.send_ns,
        "first byte": request.first_byte_ns,
        "first text": request.first_token_ns,
        "last byte": request.end_ns,
    }
    if task is not None and clock is not None:
        launched = clock.unix_ns(task.launch_us)
        marks["slot launched"] = launched
        if task.prompt_ms is not None:
            marks["prompt evaluated"] = launched + round(task.prompt_ms * 1e6)
        if task.timing_us is not None:
            marks["timings printed"] = clock.unix_ns(task.timing_us)
    if gpu is not None:
        marks |= {"first upload": gpu.first_upload_ns, "last sync": gpu.last_sync_ns}
    return marks


def _in_order(marks: Mapping[str, int | None], end_ns: int) -> list[tuple[str, int]]:
    kept: list[tuple[str, int]] = []
    for name in MARKS:
        at_ns = marks.get(name)
        if at_ns is not None and at_ns <= end_ns and (not kept or at_ns >= kept[-1][1]):
            kept.append((name, at_ns))
    return kept
