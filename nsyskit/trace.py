"""The central value: a Trace is lazy canonical frames plus the facts about where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

WindowKind = Literal["all", "gpu", "steady", "explicit"]


@dataclass(frozen=True, slots=True)
class Window:
    """The ``[start_ns, end_ns)`` that an analysis looked at, and how it was chosen."""

    kind: WindowKind
    start_ns: int
    end_ns: int

    @property
    def dur_ns(self) -> int:
        return self.end_ns - self.start_ns

    def holds(self, other: Window) -> bool:
        """Whether no instant of the other lies outside."""
        return self.start_ns <= other.start_ns and other.end_ns <= self.end_ns


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical GPU. ``gpu`` is nsys's id of it; ``memory_bandwidth`` is bytes per second, None when not recorded."""

    gpu: int
    name: str
    uuid: str | None = None
    memory_bandwidth: int | None = None
    memory_bytes: int | None = None
    sm_count: int | None = None
    compute_capability: tuple[int, int] | None = None
    clock_hz: int | None = None


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    program: str | None


@dataclass(frozen=True, slots=True)
class CaptureFacts:
    """How nsys was told to look, as far as the file says. None: not recorded.

    ``command`` is the program and its arguments as typed; it may hold secrets and is rendered only when asked for.
    So is ``host``, the machine's own name. ``rank`` is the process's number in its job, as the launcher set it.
    ``session_start_utc_ns`` is the UTC time of the trace's time 0.
    """

    command: tuple[str, ...] = ()
    cuda_graph_trace: Literal["graph", "node"] | None = None
    osrt_threshold_ns: int | None = None
    session_start_utc_ns: int | None = None
    events: tuple[str, ...] = ()
    host: str | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class TraceMeta:
    """Facts about a trace.

    Attributes:
        name: the file's name without its folders.
        container: ``sqlite``, ``parquet`` or ``rep``.
        nsys_version: version of the exporter, None in exports of 2021 and before.
        schema_version: nsys's export schema, such as ``3.20.2``.
        sources: for each of ``schema.SOURCES`` whether it was collected; "not collected" must never look like zero.
        gpus: physical GPUs of the machine, used or not.
        devices: (pid, CUDA ordinal in that process) -> ``Gpu.gpu``, where the file says.
        ordinals: CUDA ordinal -> ``Gpu.gpu`` for any process, only where no GPU can be hidden from it.
        processes: every process that nsys names, most of them bystanders.
        tables: rows of each non-empty nsys table, by nsys's name.
    """

    name: str
    container: Literal["sqlite", "parquet", "rep"]
    nsys_version: str | None = None
    schema_version: str | None = None
    sources: Mapping[str, bool] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    devices: Mapping[tuple[int, int], int] = field(default_factory=dict)
    ordinals: Mapping[int, int] = field(default_factory=dict)
    processes: tuple[Process, ...] = ()
    capture: CaptureFacts = CaptureFacts()
    tables: Mapping[str, int] = field(default_factory=dict)

    def gpu_of(self, pid: int, device: int) -> Gpu | None:
        """The physical GPU behind a process's CUDA ordinal, None when the file does not say."""
        gpu_id = self.devices.get((pid, device), self.ordinals.get(device))
        return next((gpu for gpu in self.gpus if gpu.gpu == gpu_id), None)

    def program_of(self, pid: int) -> str | None:
        """The name of a process's program, without its folders."""
        return next((process.program for process in self.processes if process.pid == pid), None)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Trace:
    """Captured data in canonical form: ``meta`` and one lazy frame a table, columns as in ``schema.TABLES``.

    Frames read their file when collected, once: a second collect is served from memory. Nothing mutates a Trace.
    Two traces are equal only when they are the same one.
    """

    meta: TraceMeta
    tables: Mapping[str, pl.LazyFrame]

    @property
    def kernels(self) -> pl.LazyFrame:
        return self.tables["kernels"]

    @property
    def memcpys(self) -> pl.LazyFrame:
        return self.tables["memcpys"]

    @property
    def memsets(self) -> pl.LazyFrame:
        return self.tables["memsets"]

    @property
    def graphs(self) -> pl.LazyFrame:
        return self.tables["graphs"]

    @property
    def api_calls(self) -> pl.LazyFrame:
        return self.tables["api_calls"]

    @property
    def syncs(self) -> pl.LazyFrame:
        return self.tables["syncs"]

    @property
    def os_calls(self) -> pl.LazyFrame:
        return self.tables["os_calls"]

    @property
    def nvtx(self) -> pl.LazyFrame:
        return self.tables["nvtx"]

    @property
    def overheads(self) -> pl.LazyFrame:
        return self.tables["overheads"]

    @property
    def strings(self) -> pl.LazyFrame:
        return self.tables["strings"]
