"""The device ledger: every nanosecond of a GPU in the window has one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.causes import CAUSES, causes_over, whole_window
from nsyskit.analysis.gpus import GpuUse, gpu_uses, rows_of
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import gpu_tables
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.intervals import clip, length, overlap_ns, span, split, union
from nsyskit.trace import Trace, Window

BUSY_PARTS: Final = ("kernel", "graph", "memcpy", "memset")


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """One GPU's window: ``busy + idle == window``; ``kernel + graph + memcpy + memset == busy``; causes sum to idle.

    Attributes:
        window_ns: what the parts sum to: the window, or the time inside steps.
        graph_ns: whole-graph rows where no kernel row runs; such a row spans its inner gaps and is no kernel time.
        memcpy_ns: copies beside neither; memset_ns: the rest of busy.
        kernel_sum_ns: clipped kernel durations added up; overlap_ns: by how much that exceeds their union.
        idle: cause -> ns, every cause of ``CAUSES``.
    """

    use: GpuUse
    window: Window
    window_ns: int
    busy_ns: int
    kernel_ns: int
    graph_ns: int
    memcpy_ns: int
    memset_ns: int
    idle_ns: int
    kernel_sum_ns: int
    overlap_ns: int
    idle: Mapping[str, int]

    @property
    def busy_share(self) -> float:
        return self.busy_ns / self.window_ns if self.window_ns else 0.0


@dataclass(frozen=True, slots=True)
class DevicesResult:
    window: Window
    devices: tuple[DeviceLedger, ...]


@once_per_trace
def devices(trace: Trace, *, window: Window | None = None) -> DevicesResult:
    """The ledger of every GPU that did work, most busy first. Rows are clipped to the window.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA rows", hint="capture with --trace=cuda")
    window = window or default_window(trace)
    ledgers = [device_ledger(trace, use, window) for use in gpu_uses(trace)]
    ledgers.sort(key=lambda ledger: (-ledger.busy_ns, ledger.use.members))
    return DevicesResult(window=window, devices=tuple(ledgers))


def device_pieces(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    """Every part of a GPU's window as merged instants: ``BUSY_PARTS`` and ``CAUSES``, disjoint, together the window."""
    return {
        part: clip(frame, window.start_ns, window.end_ns) for part, frame in pieces_over(trace, use, window).items()
    }


def pieces_over(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    """As ``device_pieces``, but not cut at the window: what lies beyond it says nothing."""
    whole = whole_window(trace)
    return _busy_pieces(trace, use, whole if whole.holds(window) else window) | causes_over(trace, use, window)


def whole_pieces(trace: Trace) -> None:
    """Work out the pieces of every GPU over the whole trace, which later calls start from."""
    for use in gpu_uses(trace):
        pieces_over(trace, use, whole_window(trace))


@once_per_trace
def _busy_pieces(trace: Trace, use: GpuUse, window: Window) -> dict[str, pl.DataFrame]:
    ops = {kind: clip(_ran(trace, use, kind), window.start_ns, window.end_ns) for kind in BUSY_PARTS}
    pieces: dict[str, pl.DataFrame] = {}
    covered = span(0, 0)
    left = sum(not own.is_empty() for own in ops.values())
    for kind in BUSY_PARTS:
        own = union(ops[kind])
        pieces[kind] = own if covered.is_empty() else split(own, covered)[1]
        left -= not own.is_empty()
        if left > 0 and not own.is_empty():  # the union of all would not be looked at
            covered = own if covered.is_empty() else union(pl.concat([covered, pieces[kind]]))
    return pieces


@once_per_trace
def _kernels_overlap(trace: Trace, use: GpuUse) -> bool:
    return length(_ran(trace, use, "kernel")) != length(_busy_pieces(trace, use, whole_window(trace))["kernel"])


@once_per_trace
def _ran(trace: Trace, use: GpuUse, kind: str) -> pl.DataFrame:
    """When operations of a kind ran: ``start_ns end_ns`` by start."""
    rows = gpu_tables(trace)[kind].select("start_ns", "end_ns", "pid", "device").collect()
    return rows_of(trace, use, rows).select("start_ns", "end_ns")


def _overlap_ns(trace: Trace, use: GpuUse, inside: pl.DataFrame) -> int:
    """By how much the durations of kernels exceed the time that kernels ran."""
    if not _kernels_overlap(trace, use):
        return 0
    kernels = _ran(trace, use, "kernel")
    return overlap_ns(kernels, inside) - overlap_ns(inside, union(kernels))


def device_ledger(trace: Trace, use: GpuUse, window: Window, *, inside: pl.DataFrame | None = None) -> DeviceLedger:
    """The ledger of one GPU; with ``inside`` (merged, within the window) of those instants only."""
    pieces = pieces_over(trace, use, window)
    looked_at = span(window.start_ns, window.end_ns) if inside is None else inside
    parts = {part: overlap_ns(looked_at, frame) for part, frame in pieces.items()}
    busy_ns, idle = sum(parts[part] for part in BUSY_PARTS), {cause: parts[cause] for cause in CAUSES}
    kernel_sum_ns = parts["kernel"] + _overlap_ns(trace, use, looked_at)
    return DeviceLedger(
        use=use,
        window=window,
        window_ns=window.dur_ns if inside is None else length(inside),
        busy_ns=busy_ns,
        kernel_ns=parts["kernel"],
        graph_ns=parts["graph"],
        memcpy_ns=parts["memcpy"],
        memset_ns=parts["memset"],
        idle_ns=sum(idle.values()),
        kernel_sum_ns=kernel_sum_ns,
        overlap_ns=kernel_sum_ns - parts["kernel"],
        idle=idle,
    )
