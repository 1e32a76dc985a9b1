"""The device ledger: every nanosecond of a GPU in the window has one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from nsyskit.analysis.causes import CAUSES, idle_by_cause
from nsyskit.analysis.gpus import GpuUse, gpu_uses, ops_of
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.intervals import clip, length, subtract, union
from nsyskit.trace import Trace, Window


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """One GPU's window: ``busy + idle == window``; ``kernel + graph + memcpy + memset == busy``; causes sum to idle.

    Attributes:
        graph_ns: whole-graph rows where no kernel row runs; such a row spans its inner gaps and is no kernel time.
        memcpy_ns: copies beside neither; memset_ns: the rest of busy.
        kernel_sum_ns: clipped kernel durations added up; overlap_ns: by how much that exceeds their union.
        idle: cause -> ns, every cause of ``CAUSES``.
    """

    use: GpuUse
    window: Window
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
        return self.busy_ns / self.window.dur_ns if self.window.dur_ns else 0.0


@dataclass(frozen=True, slots=True)
class DevicesResult:
    window: Window
    devices: tuple[DeviceLedger, ...]


def devices(trace: Trace, *, window: Window | None = None) -> DevicesResult:
    """The ledger of every GPU that did work, most busy first. Rows are clipped to the window.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA rows", hint="capture with --trace=cuda")
    window = window or default_window(trace)
    ledgers = [_ledger(trace, use, window) for use in gpu_uses(trace)]
    ledgers.sort(key=lambda ledger: (-ledger.busy_ns, ledger.use.members))
    return DevicesResult(window=window, devices=tuple(ledgers))


def _ledger(trace: Trace, use: GpuUse, window: Window) -> DeviceLedger:
    ops = clip(ops_of(trace, use).select("start_ns", "end_ns", "kind"), window.start_ns, window.end_ns)
    by_kind = {kind: ops.filter(pl.col("kind") == kind) for kind in ("kernel", "graph", "memcpy")}
    kernels, graphs, copies = (union(by_kind[kind]) for kind in ("kernel", "graph", "memcpy"))
    kernels_and_graphs = union(pl.concat([kernels, graphs]))
    busy_ns = length(union(ops))
    kernel_sum_ns = length(by_kind["kernel"])
    kernel_ns = length(kernels)
    graph_ns = length(kernels_and_graphs) - kernel_ns
    memcpy_ns = length(subtract(copies, kernels_and_graphs))
    idle = idle_by_cause(trace, use, window)
    return DeviceLedger(
        use=use,
        window=window,
        busy_ns=busy_ns,
        kernel_ns=kernel_ns,
        graph_ns=graph_ns,
        memcpy_ns=memcpy_ns,
        memset_ns=busy_ns - kernel_ns - graph_ns - memcpy_ns,
        idle_ns=window.dur_ns - busy_ns,
        kernel_sum_ns=kernel_sum_ns,
        overlap_ns=kernel_sum_ns - kernel_ns,
        idle={cause: length(idle[cause]) for cause in CAUSES},
    )
