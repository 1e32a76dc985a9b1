"""llama-server's log as events, and its clock tied to the client's.

Its lines begin with the time since the start of the log (``minutes.seconds.milliseconds.microseconds``). Where that
zero lies on the wall clock is bounded from both sides by what a client saw: a slot takes a request after it was sent,
and prints its timings before the last byte of the answer arrives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nsyskit.capture.load import Request

_LINE = re.compile(r"^\s*(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) \w (.*)$")
_LAUNCH = re.compile(r"launch_slot_: id +(\d+) \| task +(-?\d+) \| processing task")
_TIMING = re.compile(
    r"print_timing: id +(\d+) \| task +(-?\d+) \| +(prompt eval|eval) time = +([\d.]+) ms / +(\d+) tokens"
)
_RELEASE = re.compile(r"slot +release: id +(\d+) \| task +(-?\d+) \| stop processing")
_ROUNDING_MS = 0.0051


@dataclass(slots=True)
class Task:
    """One task of a slot in the log. Times are microseconds of the log's own clock."""

    id_slot: int
    id_task: int
    launch_us: int
    timing_us: int | None = None
    release_us: int | None = None
    prompt_ms: float | None = None
    prompt_n: int | None = None
    predicted_ms: float | None = None
    predicted_n: int | None = None


@dataclass(frozen=True, slots=True)
class LogClock:
    """The Unix time of the log's zero, and how far off it may be."""

    zero_ns: int
    error_ns: int

    def unix_ns(self, log_us: int) -> int:
        return self.zero_ns + log_us * 1000


def read_tasks(lines: Iterable[str]) -> tuple[Task, ...]:
    """The tasks in a log, in the order in which slots took them."""
    tasks: dict[tuple[int, int], Task] = {}
    for line in lines:
        stamped = _LINE.match(line)
        if stamped is None:
            continue
        minutes, seconds, millis, micros = (int(part) for part in stamped.groups()[:4])
        _add(tasks, ((minutes * 60 + seconds) * 1000 + millis) * 1000 + micros, stamped[5])
    return tuple(tasks.values())


def _add(tasks: dict[tuple[int, int], Task], at_us: int, text: str) -> None:
    if launch := _LAUNCH.search(text):
        slot, number = int(launch[1]), int(launch[2])
        tasks[slot, number] = Task(slot, number, at_us)
    elif timing := _TIMING.search(text):
        task = tasks.get((int(timing[1]), int(timing[2])))
        if task is not None and timing[3] == "prompt eval":
            task.timing_us, task.prompt_ms, task.prompt_n = at_us, float(timing[4]), int(timing[5])
        elif task is not None:
            task.predicted_ms, task.predicted_n = float(timing[4]), int(timing[5])
    elif release := _RELEASE.search(text):
        task = tasks.get((int(release[1]), int(release[2])))
        if task is not None:
            task.release_us = at_us


def match_tasks(requests: Sequence[Request], tasks: Sequence[Task]) -> dict[int, Task]:
    """Request index -> its task, where the numbers of both leave one answer only.

    The response and the log print the same counts and times; the log rounds to 10 µs.
    """
    found: dict[int, Task] = {}
    for request in requests:
        same = [task for task in tasks if _same(request, task)]
        if len(same) == 1:
            found[request.index] = same[0]
    return found


def _same(request: Request, task: Task) -> bool:
    prompt_ms, predicted_ms = request.timings.get("prompt_ms"), request.timings.get("predicted_ms")
    if prompt_ms is None or predicted_ms is None or task.prompt_ms is None or task.predicted_ms is None:
        return False
    return (
        request.id_slot in {None, task.id_slot}
        and (request.prompt_n, request.predicted_n) == (task.prompt_n, task.predicted_n)
        and abs(prompt_ms - task.prompt_ms) <= _ROUNDING_MS
        and abs(predicted_ms - task.predicted_ms) <= _ROUNDING_MS
    )


def log_clock(requests: Sequence[Request], matched: dict[int, Task]) -> LogClock | None:
    """The log's zero on the wall clock, None without a matched request or with bounds that exclude each other."""
    early: list[int] = []
    late: list[int] = []
    for request in requests:
        task = matched.get(request.index)
        if task is None or task.timing_us is None or request.end_ns is None:
            continue
        early.append(request.send_ns - task.launch_us * 1000)
        late.append(request.end_ns - task.timing_us * 1000)
    if not early or max(early) > min(late):
        return None
    low, high = max(early), min(late)
    return LogClock((low + high) // 2, (high - low + 1) // 2)
