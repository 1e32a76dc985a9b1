"""Which GPUs worked, and whose work it was.

``device`` is a CUDA ordinal and means something only within its process. Work is put together by physical GPU where
the file tells which one an ordinal is; elsewhere each (process, device) stands for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import gpu_ops, op_calls
from nsyskit.errors import TraceFormatError
from nsyskit.frames import distinct, kept
from nsyskit.intervals import complement, union
from nsyskit.trace import Trace, Window

MOST_GPUS: Final = 128
MOST_THREADS: Final = 512
"""Every GPU and every thread that feeds one gets a ledger of its own; damaged ids would ask for thousands of them."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU that did work. ``gpu`` is nsys's id, None when unknown; ``members`` are the (pid, device) that are it."""

    gpu: int | None
    name: str | None
    members: tuple[tuple[int, int], ...]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(sorted({pid for pid, _ in self.members}))

    @property
    def device(self) -> int:
        return self.members[0][1]

    def matches(self) -> pl.Expr:
        """The rows of a frame with ``pid`` and ``device`` that are this GPU's."""
        return pl.any_horizontal(
            *((pl.col("pid") == pid) & (pl.col("device") == device) for pid, device in self.members)
        )


@once_per_trace
def gpu_uses(trace: Trace) -> tuple[GpuUse, ...]:
    """Every GPU with at least one operation, in a stable order.

    Raises:
        TraceFormatError: there are more of them than any machine has.
    """
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for pid, device in sorted(distinct(gpu_ops(trace).select("pid", "device")).drop_nulls().iter_rows()):
        gpu = trace.meta.gpu_of(pid, device)
        members.setdefault((gpu.gpu,) if gpu else (pid, device), []).append((pid, device))
    _check_count(len(members), MOST_GPUS, "GPUs did work")
    uses = []
    for own in members.values():
        gpu = trace.meta.gpu_of(*own[0])
        uses.append(GpuUse(gpu=gpu.gpu if gpu else None, name=gpu.name if gpu else None, members=tuple(own)))
    return tuple(uses)


@once_per_trace
def ops_of(trace: Trace, use: GpuUse) -> pl.DataFrame:
    """The rows of ``op_calls`` that ran on one GPU."""
    return rows_of(trace, use, op_calls(trace))


def rows_of(trace: Trace, use: GpuUse, rows: pl.DataFrame) -> pl.DataFrame:
    """Of rows with ``pid`` and ``device`` those of one GPU; where only one worked, also those that do not say so."""
    return rows if len(gpu_uses(trace)) == 1 else kept(rows, use.matches())


@once_per_trace
def busy_of(trace: Trace, use: GpuUse) -> pl.DataFrame:
    """When a GPU did anything at all: merged ``start_ns end_ns``, over the whole trace."""
    return union(ops_of(trace, use))


def idle_of(trace: Trace, use: GpuUse, window: Window) -> pl.DataFrame:
    """When a GPU did nothing: merged ``start_ns end_ns``, within the window."""
    return complement(busy_of(trace, use), window.start_ns, window.end_ns)


@once_per_trace
def feeds(trace: Trace, window: Window) -> pl.DataFrame:
    """Which thread handed over operations that start in the window: distinct ``pid tid use`` (index of a GpuUse).

    Raises:
        TraceFormatError: there are more of them than any program has.
    """
    starts = pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left")
    frames = [
        distinct(kept(ops_of(trace, use).select("start_ns", "pid", "tid"), starts).select("pid", "tid"))
        .drop_nulls()
        .with_columns(use=pl.lit(index, pl.Int64))
        for index, use in enumerate(gpu_uses(trace))
    ]
    schema = {"pid": pl.Int32, "tid": pl.Int32, "use": pl.Int64}
    found = pl.concat([pl.DataFrame(schema=schema), *frames]).sort("pid", "tid", "use")
    _check_count(found.select("pid", "tid").n_unique() if found.height else 0, MOST_THREADS, "threads fed a GPU")
    return found


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise TraceFormatError(
            f"{count:,} {what}, by the ids in the trace: it is damaged, or of more than {most} at once",
            hint="export the report again, or capture fewer processes",
        )
