"""From the process's start to its first token: what the time went to, and what the program's log says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.copies import copy_purposes
from nsyskit.analysis.names import strings_of
from nsyskit.analysis.pairing import HANDED_OVER, api_calls, ops_of_kind
from nsyskit.analysis.program import kept_texts
from nsyskit.analysis.steps import find_steps
from nsyskit.errors import MissingTableError
from nsyskit.ggml.outputs import parse_output
from nsyskit.intervals import covered_ns, subtract, union
from nsyskit.trace import Trace, Window

SPANS: Final = ("program", "driver", "upload", "prepare", "warm_up", "wait", "first_token")
"""Parts of a start in their order; they follow each other without gap.

``program`` before the first CUDA call; ``driver`` from there to the first upload of weights: context, modules, memory;
``upload`` to the end of the last one; ``prepare`` to the first step; ``warm_up`` steps of at most two tokens before
the first prompt; ``wait`` for work; ``first_token`` from the first upload of the first prompt to its wait.
"""
_WARM_UP_TOKENS: Final = 2


@dataclass(frozen=True, slots=True)
class StartupResult:
    """The start of the process that drives the GPU, or of the one whose output was kept.

    Attributes:
        window: from the process's start to the first token, None when no step shows it.
        whole: the trace tells when the process started: where nsys's library came into it. Otherwise the window begins
            at its first traced call.
        spans: ``name start_ns dur_ns api_ns os_ns disk_ns copy_ns copy_bytes`` of ``SPANS`` that took time; ``dur_ns``
            sum to the window; the others are merged time within the span: CUDA and OS calls of the thread that drives
            the GPU, of the latter those on files while nothing is uploaded (``disk_ns``), and copies to the GPU.
        mapped: weights were uploaded and no call read a file meanwhile: it is mapped into memory, and its pages are
            read from disk within the uploads, where no trace of calls sees it. None when OS calls were not collected.
        milestones: ``name ms`` as the program's log tells them, on its own clock.
    """

    pid: int | None
    window: Window | None
    spans: pl.DataFrame
    milestones: pl.DataFrame
    whole: bool = False
    mapped: bool | None = None

    @property
    def disk_ns(self) -> int:
        """Time in calls on files while nothing was uploaded: loading from disk."""
        return int(self.spans["disk_ns"].sum())


def startup(trace: Trace, *, window: Window | None = None, texts: Sequence[str] = ()) -> StartupResult:
    """The start-up ledger, whatever the window.

    Raises:
        MissingTableError: the trace begins after the start, and no log tells of it.
    """
    thread = _thread(trace)
    found = tuple(texts) or tuple(text for _, text in kept_texts(trace))
    milestones = pl.DataFrame(
        [moment for text in found for moment in _milestones(text)],
        schema={"name": pl.String, "ms": pl.Float64},
        orient="row",
    )
    edges = _edges(trace, thread[0]) if thread else []
    if not edges and milestones.is_empty():
        raise MissingTableError("start of the program", hint="capture from its start, without a delay")
    window = Window("explicit", edges[0][1], edges[-1][2]) if edges else None
    if thread is None or window is None:
        return StartupResult(None if thread is None else thread[0], None, _spans(trace, (0, 0), []), milestones)
    return StartupResult(
        pid=thread[0],
        window=window,
        spans=_spans(trace, thread, edges),
        milestones=milestones,
        whole=_started(trace, thread[0]) == window.start_ns,
        mapped=_mapped(trace, thread, edges),
    )


_FILES: Final = (
    r"(open(at)?(64)?|f?open(64)?|f?close|f?read(_unlocked)?|p?readv?(64)?|preadv2?(64)?|[lf]seek(o|64|o64)?|stat(64|x)?"
    r"|[fl]stat(64)?|fstatat(64)?|mmap(64)?|madvise|(posix_)?f?advise(64)?|posix_(fadvise(64)?|madvise)|readahead)"
)
_READS: Final = r"(f?read(_unlocked)?|p?readv?(64)?|preadv2?(64)?)"


def _started(trace: Trace, pid: int) -> int | None:
    """When nsys's library came into the process; None where the trace does not tell, or was begun later."""
    if "os_marks" not in trace.tables:
        return None
    first = trace.tables["os_marks"].filter(pl.col("pid") == pid).select(pl.col("start_ns").min()).collect().item()
    return None if first is None else int(first)


def _file_calls(trace: Trace, thread: tuple[int, int], names: str) -> pl.DataFrame:
    """OS calls of a thread by the base name of what they do: ``start_ns end_ns``."""
    own = (pl.col("pid") == thread[0]) & (pl.col("tid") == thread[1])
    calls = trace.os_calls.filter(own).select("start_ns", "end_ns", "name_id").collect()
    named = strings_of(trace, calls["name_id"]).filter(pl.col("value").str.contains(f"^(__)?{names}$"))
    return calls.filter(pl.col("name_id").is_in(named["string_id"].implode())).select("start_ns", "end_ns")


def _mapped(trace: Trace, thread: tuple[int, int], edges: list[tuple[str, int, int]]) -> bool | None:
    if not trace.meta.sources.get("osrt", False):
        return None
    begin, end = next(((begin, end) for name, begin, end in edges if name == "upload"), (0, 0))
    reads = _file_calls(trace, thread, _READS)
    return end > begin and reads.filter(pl.col("start_ns").is_between(begin, end, "left")).is_empty()


def _thread(trace: Trace) -> tuple[int, int] | None:
    """The process and thread that take the first step."""
    steps = find_steps(trace).steps
    return None if steps.is_empty() else (int(steps["pid"][0]), int(steps["tid"][0]))


def _edges(trace: Trace, pid: int) -> list[tuple[str, int, int]]:
    """Name, begin and end of each part that took time; empty when the file begins after the weights were loaded."""
    purposes = copy_purposes(trace)
    copies = ops_of_kind(trace, "memcpy").with_columns(purposes["purpose"], purposes["bytes"])
    weights = copies.filter((pl.col("pid") == pid) & (pl.col("purpose") == "weights"))
    if weights.is_empty():
        return []
    calls = api_calls(trace).filter(pl.col("pid") == pid)
    os_rows = trace.os_calls.filter(pl.col("pid") == pid).select(pl.col("start_ns").min()).collect().item()
    first_call = int(calls["start_ns"].min())  # type: ignore[arg-type]
    begins = [moment for moment in (_started(trace, pid), os_rows, first_call) if moment is not None]
    uploads = weights.select(HANDED_OVER.min(), pl.col("end_ns").max()).row(0)
    warm, first, answered = _first_steps(find_steps(trace).steps.filter(pl.col("pid") == pid))
    marks = [min(begins), first_call, *uploads, *warm, first, answered]
    marks = [max(marks[: at + 1]) for at in range(len(marks))]  # what overlaps belongs to the earlier part
    return [
        (name, begin, end)
        for name, begin, end in zip(SPANS, marks[:-1], marks[1:], strict=True)
        if end > begin
    ]  # fmt: skip


def _first_steps(steps: pl.DataFrame) -> tuple[tuple[int, int], int, int]:
    """Begin and end of the warm-up, begin of the first step that answers somebody, and when it had its first token."""
    rows = steps.select("begin_ns", "forward_end_ns", "n_tokens", "n_outputs").rows()
    prompts = [at for at, row in enumerate(rows) if row[2] > _WARM_UP_TOKENS]
    at = prompts[0] if prompts and prompts[0] <= _WARM_UP_TOKENS else 0
    warm = (rows[0][0], rows[at - 1][1]) if at else (rows[0][0], rows[0][0])
    answered = next((row[1] for row in rows[at:] if row[3]), rows[at][1])
    return warm, rows[at][0], answered


def _spans(trace: Trace, thread: tuple[int, int], edges: list[tuple[str, int, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(edges, schema={"name": pl.String, "start_ns": pl.Int64, "end_ns": pl.Int64}, orient="row")
    pid, tid = thread
    own = (pl.col("pid") == pid) & (pl.col("tid") == tid)
    ops = ops_of_kind(trace, "memcpy").filter(pl.col("pid") == pid)
    copies = trace.memcpys.select(pl.col("label").cast(pl.String), "bytes").collect()[ops["row"]]
    ops = ops.select("start_ns", "end_ns").hstack(copies).filter(pl.col("label") == "HtoD")
    os_calls = trace.os_calls.filter(own).select("start_ns", "end_ns").collect()
    spans, uploading = frame.select("start_ns", "end_ns"), union(ops)
    sizes = [
        int(ops.filter(pl.col("start_ns").is_between(begin, end, "left"))["bytes"].sum()) for _, begin, end in edges
    ]
    return frame.select(
        "name", "start_ns", dur_ns=pl.col("end_ns") - pl.col("start_ns"),
        api_ns=covered_ns(spans, union(api_calls(trace).filter(own).select("start_ns", "end_ns"))),
        os_ns=covered_ns(spans, union(os_calls)),
        disk_ns=covered_ns(spans, union(subtract(_file_calls(trace, thread, _FILES), uploading))),
        copy_ns=covered_ns(spans, uploading),
        copy_bytes=pl.Series(sizes, dtype=pl.Int64),
    )  # fmt: skip


# --- the log

_STAMP: Final = re.compile(r"^(\d+)\.(\d{2})\.(\d{3})\.(\d{3}) \w ", re.MULTILINE)
_MARKS: Final = (
    ("loading the model", re.compile(r"load_model: loading model")),
    ("model loaded", re.compile(r"(?:llama_server|main): model loaded")),
    ("listening", re.compile(r"(?:llama_server|main): (?:server is )?listening")),
    ("first request", re.compile(r"launch_slot_: ")),
    ("first request done", re.compile(r"print_timing: .*total time")),
)


def _milestones(text: str) -> Iterator[tuple[str, float]]:
    """Moments of a log with llama.cpp's time stamps (minutes, seconds, ms, µs), and the load time of perf lines."""
    for name, pattern in _MARKS:
        line = next((line for line in text.splitlines() if pattern.search(line)), "")
        if stamp := _STAMP.match(line):
            minutes, seconds, ms, us = map(int, stamp.groups())
            yield name, minutes * 60_000 + seconds * 1_000 + ms + us / 1_000
    for numbers in parse_output(text):
        if numbers.label == "load" and numbers.ms is not None:
            yield "load time", numbers.ms
