"""A trace as Perfetto protobuf: processes, threads and streams as tracks, launches with flows to their kernels.

Written packet by packet, a batch at a time; a sequence is one track, in time order, with its own table of names.
Perfetto's slices must nest, so what overlaps on one stream goes to a further track beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

import polars as pl

from nsyskit.analysis.causes import classified_os_calls
from nsyskit.analysis.gpu_memory import gpu_memory
from nsyskit.analysis.gpus import GpuUse, gpu_uses, ops_of
from nsyskit.analysis.names import named
from nsyskit.analysis.pairing import api_calls, api_names, op_calls
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.threads import thread_name
from nsyskit.analysis.timeline import gpu_label, op_labels
from nsyskit.errors import MissingTableError, UsageError
from nsyskit.intervals import clip, sweep
from nsyskit.trace import Trace, Window
from nsyskit.units import human_ns, printable

_BATCH: Final = 20_000
_MAX_POINTS: Final = 100_000
_CLEARED, _NEEDS_NAMES = 1, 2
_BEGIN, _END, _COUNTER = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Written:
    """How much was written: tracks, slices, flows (launch to kernel), counter samples."""

    tracks: int
    slices: int
    flows: int
    samples: int


def write_perfetto(trace: Trace, file: IO[bytes], *, window: Window | None = None) -> Written:
    """Write a trace, or the part of it in a window (slices are cut at its edges).

    Raises:
        UsageError: the package ``perfetto`` is not installed.
    """
    writer = _Writer(file)
    processes = {pid: _process(writer, trace, pid) for pid in _pids(trace)}
    flows = _flows(trace, window)
    for pid, tid in _threads(trace):
        _thread(writer, trace, pid, tid, parent=processes[pid], window=window, flows=flows)
    for key, rows in find_steps(trace).steps.group_by("pid", maintain_order=True):
        _steps(writer, rows, parent=processes[int(str(key[0]))], window=window)
    for use in gpu_uses(trace):
        _gpu(writer, trace, use, window=window, flows=flows)
    writer.flush()
    return writer.written


@dataclass(slots=True)
class _Writer:
    """Numbers tracks and sequences, and writes packets in batches."""

    file: IO[bytes]
    tracks: int = 0
    slices: int = 0
    flows: int = 0
    samples: int = 0
    batch: Any = field(default_factory=lambda: _messages().Trace())

    @property
    def written(self) -> Written:
        return Written(self.tracks, self.slices, self.flows, self.samples)

    def packet(self) -> Any:
        if len(self.batch.packet) >= _BATCH:
            self.flush()
        return self.batch.packet.add()

    def flush(self) -> None:
        self.file.write(self.batch.SerializeToString())
        self.batch = _messages().Trace()

    def track(self, *, parent: int | None = None, name: str | None = None) -> tuple[int, Any]:
        """A new track's uuid and its descriptor, to be completed."""
        self.tracks += 1
        packet = self.packet()
        packet.timestamp = 0
        packet.trusted_packet_sequence_id = self.tracks
        descriptor = packet.track_descriptor
        descriptor.uuid = self.tracks
        if parent is not None:
            descriptor.parent_uuid = parent
        if name is not None:
            descriptor.name = printable(name)
        return self.tracks, descriptor

    def names(self, track: int, names: Iterable[str]) -> dict[str, int]:
        """Give a track's sequence its table of names: name -> number."""
        numbers = {name: number for number, name in enumerate(names, start=1)}
        packet = self.packet()
        packet.timestamp = 0
        packet.trusted_packet_sequence_id = track
        packet.sequence_flags = _CLEARED
        for name, number in numbers.items():
            entry = packet.interned_data.event_names.add()
            entry.iid = number
            entry.name = printable(name)
        return numbers

    def event(self, track: int, at: int, kind: int) -> Any:
        packet = self.packet()
        packet.timestamp = at
        packet.trusted_packet_sequence_id = track
        packet.sequence_flags = _NEEDS_NAMES
        event = packet.track_event
        event.type = kind
        event.track_uuid = track
        return event


@dataclass(frozen=True, slots=True)
class _Slices:
    """Rows of one track: ``start_ns end_ns name flow``, sorted; ``ends`` tells that flows end here."""

    rows: pl.DataFrame
    ends: bool
    nest: bool


def _messages() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise UsageError("the package perfetto is not installed", hint="pip install 'nsyskit[perfetto]'") from error
    return perfetto_trace_pb2


def _process(writer: _Writer, trace: Trace, pid: int) -> int:
    uuid, descriptor = writer.track()
    descriptor.process.pid = pid
    descriptor.process.process_name = printable(trace.meta.program_of(pid) or f"process {pid}")
    return uuid


def _thread(
    writer: _Writer, trace: Trace, pid: int, tid: int, *, parent: int, window: Window | None, flows: pl.DataFrame
) -> None:
    """A thread's CUDA calls on its own track, its OS calls on one below."""
    own = (pl.col("pid") == pid) & (pl.col("tid") == tid)
    name = thread_name(trace, pid, tid) or f"thread {tid}"
    uuid, descriptor = writer.track(parent=parent)
    descriptor.thread.pid = pid
    descriptor.thread.tid = tid
    descriptor.thread.thread_name = printable(name)
    calls = api_calls(trace).with_row_index("call").with_columns(pl.col("call").cast(pl.Int64)).filter(own)
    calls = calls.join(api_names(trace).select("name_id", name="base_name"), on="name_id", how="left")
    calls = calls.join(flows.select("call", flow="call"), on="call", how="left", maintain_order="left")
    _write(writer, uuid, _cut(calls, window, ends=False, nest=True), label=name, parent=parent)
    os_calls = named(trace, classified_os_calls(trace).filter(own)).with_columns(flow=pl.lit(None, pl.Int64))
    if os_calls.height:
        below, _ = writer.track(parent=uuid, name="OS calls")
        _write(writer, below, _cut(os_calls, window, ends=False, nest=True), label="OS calls", parent=uuid)


def _steps(writer: _Writer, steps: pl.DataFrame, *, parent: int, window: Window | None) -> None:
    uuid, _ = writer.track(parent=parent, name="llama.cpp steps")
    told = pl.format("{} of {} tokens", "phase", "n_tokens")
    rows = steps.select("tid", start_ns="begin_ns", end_ns="end_ns", name=told, flow=pl.lit(None, pl.Int64))
    _write(writer, uuid, _cut(rows, window, ends=False, nest=False), label="llama.cpp steps", parent=parent)


def _gpu(writer: _Writer, trace: Trace, use: GpuUse, *, window: Window | None, flows: pl.DataFrame) -> None:
    """A track a stream below the GPU's, and how much is handed over and not yet done."""
    uuid, _ = writer.track(name=gpu_label(use))
    ops = ops_of(trace, use)
    ops = ops.with_columns(name=op_labels(trace, ops))
    ops = ops.join(flows.select("kind", "row", flow="call"), on=["kind", "row"], how="left", maintain_order="left")
    for (pid, stream), rows in ops.sort("pid", "stream", "start_ns").group_by("pid", "stream", maintain_order=True):
        label = f"stream {stream} of process {pid}"
        track, _ = writer.track(parent=uuid, name=label)
        _write(writer, track, _cut(rows, window, ends=True, nest=False), label=label, parent=uuid)
    _queue_depth(writer, ops, uuid, window)
    _memory(writer, trace, use, uuid, window)


def _memory(writer: _Writer, trace: Trace, use: GpuUse, parent: int, window: Window | None) -> None:
    """What each process holds of the GPU's memory, where nsys recorded it."""
    try:
        found = gpu_memory(trace)
    except MissingTableError:
        return
    for held in found.devices:
        if held.pid not in use.pids or held.device != use.device:
            continue
        points = held.points
        if window is not None:
            start = points.filter(pl.col("at_ns") < window.start_ns).tail(1).with_columns(at_ns=window.start_ns)
            inside = points.filter(pl.col("at_ns").is_between(window.start_ns, window.end_ns, "left"))
            points = pl.concat([start, inside], how="vertical_relaxed")
        track, descriptor = writer.track(parent=parent, name=f"memory held by process {held.pid}")
        descriptor.counter.unit_name = "bytes"
        for at, value in points.select("at_ns", "bytes").iter_rows():
            event = writer.event(track, at, _COUNTER)
            event.counter_value = value
            writer.samples += 1


def _queue_depth(writer: _Writer, ops: pl.DataFrame, parent: int, window: Window | None) -> None:
    waiting = ops.filter(pl.col("call_end_ns") < pl.col("end_ns")).select(start_ns="call_end_ns", end_ns="end_ns")
    if waiting.is_empty():
        return
    low, high = int(waiting["start_ns"].min()), int(waiting["end_ns"].max())  # type: ignore[arg-type]
    if window is not None:
        low, high = max(low, window.start_ns), min(high, window.end_ns)
    depth = sweep(waiting, low, high)
    name = "queue depth"
    if depth.height > _MAX_POINTS:
        width = -(-(high - low) // _MAX_POINTS)
        column = ((pl.col("start_ns") - low) // width).alias("column")
        depth = depth.group_by(column, maintain_order=True).agg(pl.col("start_ns").first(), pl.col("open").max())
        name = f"queue depth (most within {human_ns(width)})"
    track, descriptor = writer.track(parent=parent, name=name)
    descriptor.counter.unit_name = "operations"
    for at, value in depth.select("start_ns", "open").iter_rows():
        event = writer.event(track, at, _COUNTER)
        event.counter_value = value
        writer.samples += 1


def _write(writer: _Writer, track: int, slices: _Slices, *, label: str, parent: int) -> None:
    """Slices of one track and, where they overlap without nesting, of further ones beside it."""
    for lane, rows in enumerate(_lanes(slices)):
        if lane:
            track, _ = writer.track(parent=parent, name=f"{label} ({lane + 1})")
        numbers = writer.names(track, rows["name"].unique().sort())
        for at, kind, name, flow in _edges(rows):
            event = writer.event(track, at, kind)
            if kind == _END:
                continue
            event.name_iid = numbers[name]
            writer.slices += 1
            if flow is not None:
                (event.terminating_flow_ids if slices.ends else event.flow_ids).append(flow + 1)
                writer.flows += slices.ends


def _lanes(slices: _Slices) -> list[pl.DataFrame]:
    """Rows apart so that within each part they follow or nest in one another."""
    rows = slices.rows
    if rows.is_empty():
        return []
    reach = rows["end_ns"].cum_max().shift(1)
    if not (rows["start_ns"] < reach).any():
        return [rows]
    lanes: list[list[int]] = []
    numbers = [
        _place(lanes, start, end, nest=slices.nest) for start, end in rows.select("start_ns", "end_ns").iter_rows()
    ]
    lane = pl.Series("lane", numbers)
    return [rows.filter(lane == number) for number in range(len(lanes))]


def _place(lanes: list[list[int]], start: int, end: int, *, nest: bool) -> int:
    """The first lane where a slice fits; a lane is the stack of the ends of its open slices."""
    for number, opened in enumerate(lanes):
        while opened and opened[-1] <= start:
            opened.pop()
        if not opened or (nest and end <= opened[-1]):
            opened.append(end)
            return number
    lanes.append([end])
    return len(lanes) - 1


def _edges(rows: pl.DataFrame) -> Iterator[tuple[int, int, str, int | None]]:
    """Begins and ends in the order of time; of one instant ends first, then begins, outer slices before inner ones."""
    opened: list[int] = []
    for start, end, name, flow in rows.select("start_ns", "end_ns", "name", "flow").iter_rows():
        while opened and opened[-1] <= start:
            yield opened.pop(), _END, "", None
        yield start, _BEGIN, name, flow
        opened.append(end)
    while opened:
        yield opened.pop(), _END, "", None


def _cut(rows: pl.DataFrame, window: Window | None, *, ends: bool, nest: bool) -> _Slices:
    """Slices of the window; where they may nest, outer ones come before inner ones of the same start."""
    cut = rows if window is None else clip(rows, window.start_ns, window.end_ns)
    named_rows = cut.select("start_ns", "end_ns", pl.col("name").fill_null("unknown"), "flow")
    return _Slices(named_rows.sort("start_ns", "end_ns", descending=[False, nest], maintain_order=True), ends, nest)


def _flows(trace: Trace, window: Window | None) -> pl.DataFrame:
    """Each call's first operation, where both are shown: ``call kind row``; a graph's later nodes follow it."""
    ops = op_calls(trace).filter(pl.col("call").is_not_null())
    if window is not None:
        inside = [
            (pl.col(start) < window.end_ns) & (pl.col(end) > window.start_ns)
            for start, end in (("start_ns", "end_ns"), ("call_start_ns", "call_end_ns"))
        ]
        ops = ops.filter(*inside)
    return ops.unique("call", keep="first", maintain_order=True).select("call", "kind", "row")


def _threads(trace: Trace) -> list[tuple[int, int]]:
    calls = [api_calls(trace).select("pid", "tid"), classified_os_calls(trace).select("pid", "tid")]
    return list(pl.concat(calls).unique().sort("pid", "tid").iter_rows())


def _pids(trace: Trace) -> list[int]:
    return sorted({pid for pid, _ in _threads(trace)} | {pid for use in gpu_uses(trace) for pid in use.pids})
