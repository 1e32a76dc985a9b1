"""Memory that the traced processes hold on each GPU, by the driver's allocations and releases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.errors import MissingTableError
from nsyskit.trace import Trace

_ON_GPU: Final = ("device", "array", "managed")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One CUDA device of one process.

    Attributes:
        label: the GPU and, where several processes use it, the process.
        total_bytes: of the GPU, None when not recorded.
        points: ``at_ns bytes``: what is held from each instant of the trace's clock on.
        before_bytes: released without having been allocated in the trace: held from its begin, and counted in.
        allocations: how many there were.
    """

    pid: int
    device: int
    label: str
    total_bytes: int | None
    points: pl.DataFrame
    before_bytes: int
    allocations: int

    @property
    def peak_bytes(self) -> int:
        return max(self.before_bytes, int(self.points["bytes"].max() or 0))  # type: ignore[arg-type]

    @property
    def end_bytes(self) -> int:
        return int(self.points["bytes"][-1])


@dataclass(frozen=True, slots=True)
class GpuMemoryResult:
    """Memory held over time, a device a process, by pid and ordinal."""

    devices: tuple[DeviceMemory, ...]


def gpu_memory(trace: Trace) -> GpuMemoryResult:
    """What was allocated on the GPUs, by nsys's memory events; pinned and pageable host memory takes no part.

    Raises:
        MissingTableError: no such event was recorded.
    """
    events = trace.tables["allocations"].filter(pl.col("memory").cast(pl.String).is_in(_ON_GPU)).collect()
    if events.is_empty():
        raise MissingTableError("GPU memory events", hint="capture with --cuda-memory-usage=true")
    keys = list(events.select("pid", "device").unique().sort("pid", "device").iter_rows())
    return GpuMemoryResult(tuple(_device(trace, events, pid, device) for pid, device in keys))


def _device(trace: Trace, events: pl.DataFrame, pid: int, device: int) -> DeviceMemory:
    own = events.filter((pl.col("pid") == pid) & (pl.col("device") == device))
    signed = pl.when("allocates").then(pl.col("bytes")).otherwise(-pl.col("bytes"))
    held = own.select(at_ns="start_ns", bytes=signed.cum_sum())
    before = max(0, -int(held["bytes"].min() or 0))  # type: ignore[arg-type]
    points = held.with_columns(pl.col("bytes") + before).unique("at_ns", keep="last", maintain_order=True)
    gpu = trace.meta.gpu_of(pid, device)
    name = f"GPU {device}" if gpu is None else f"GPU {gpu.gpu} {gpu.name}"
    several = events.filter(pl.col("device") == device)["pid"].n_unique() > 1
    return DeviceMemory(
        pid=pid,
        device=device,
        label=f"{name}, process {pid}" if several else name,
        total_bytes=gpu.memory_bytes if gpu else None,
        points=points,
        before_bytes=before,
        allocations=own.filter("allocates").height,
    )
