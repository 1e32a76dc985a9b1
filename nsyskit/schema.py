"""The canonical tables: what every trace looks like once it has passed ingest.

Times are Int64 nanoseconds in the trace's clock; a row covers ``[start_ns, end_ns)``. ``pid`` and ``tid`` are the
operating system's. ``*_id`` columns named ``name_id``, ``symbol_id``, … refer to ``strings``. Rows of event tables are
sorted by ``start_ns``, then ``end_ns``, then by their order in the file.

Ids are as narrow as CUPTI and nsys count them (32 bits): with ten million rows a column, width is memory and time. A
correlation id that no call can have is null.

A column is either *core*, read whenever its table is, or *wide*, read only when a query names it.
"""

from __future__ import annotations

from typing import Final

import polars as pl

I64, I32, U32, STR, BOOL = pl.Int64(), pl.Int32(), pl.UInt32(), pl.String(), pl.Boolean()
Columns = dict[str, pl.DataType]

MEMORY_KINDS: Final = ("pageable", "pinned", "device", "array", "managed", "unknown")
"""Kinds of memory a copy reads or writes."""

COPY_LABELS: Final = (
    "HtoD", "DtoH", "DtoD", "HtoH", "PtoP", "unified_HtoD", "unified_DtoH", "unified_DtoD", "array", "other", "memset",
)  # fmt: skip
"""Canonical labels of memory operations."""

Label = pl.Enum(list(COPY_LABELS))
Memory = pl.Enum(list(MEMORY_KINDS))

_SPAN: Final[Columns] = {"start_ns": I64, "end_ns": I64}
_GPU_OP: Final[Columns] = _SPAN | {"pid": I32, "device": I32, "context": U32, "stream": U32, "correlation_id": U32}

TABLES: Final[dict[str, Columns]] = {
    # GPU side. `device` is the CUDA ordinal within the process; `graph_node_id` is set in node-level graph traces.
    "kernels": _GPU_OP | {
        "name_id": I32, "short_name_id": I32, "graph_node_id": I64,
        "grid_x": I64, "grid_y": I64, "grid_z": I64, "block_x": I64, "block_y": I64, "block_z": I64,
        "registers": I64, "shared_static_bytes": I64, "shared_dynamic_bytes": I64,
    },
    "memcpys": _GPU_OP | {
        "bytes": I64, "label": Label, "src_memory": Memory, "dst_memory": Memory,
        "src_device": I64, "dst_device": I64, "graph_node_id": I64,
    },
    "memsets": _GPU_OP | {"bytes": I64, "memory": Memory, "graph_node_id": I64},
    # A CUDA graph launch traced as a whole: spans its inner gaps, hides its kernels.
    "graphs": _GPU_OP | {"graph_id": I64, "graph_exec_id": I64},
    # An allocation or release of memory; recorded with --cuda-memory-usage=true only.
    "allocations": {
        "start_ns": I64, "pid": I32, "device": I32, "address": I64, "bytes": I64, "memory": Memory, "allocates": BOOL,
    },
    # Host side. `duplicate` marks backtrace copies of calls (eventClass 67): counted in sums as nsys does, only there.
    "api_calls": _SPAN | {
        "pid": I32, "tid": I32, "correlation_id": U32, "name_id": I32, "duplicate": BOOL,
        "callchain_id": I64, "return_value": I64,
    },
    # What a synchronizing call waited for; stream 4294967295 is the whole context. Holds queries and stream waits too.
    "syncs": _GPU_OP | {"event_id": I64},
    "os_calls": _SPAN | {"pid": I32, "tid": I32, "name_id": I32, "callchain_id": I64},
    # Where the OS runtime's tracing of a process began and ended; `name_id` says which.
    "os_marks": {"start_ns": I64, "pid": I32, "tid": I32, "name_id": I32},
    # `style` is PushPop, StartEnd, … for ranges; `text` carries the domain before a colon unless it is the default one.
    "nvtx": _SPAN | {"pid": I32, "tid": I32, "style": STR, "text": STR},
    "overheads": _SPAN | {"pid": I32, "tid": I32, "name_id": I32},
    # CPU samples and context switches are instants.
    "samples": {"start_ns": I64, "pid": I32, "tid": I32, "sample_id": I64},
    "sched": {"start_ns": I64, "pid": I32, "tid": I32, "cpu": I64, "is_in": BOOL},
    # Frames of a chain, `depth` 0 innermost.
    "sample_chains": {"chain_id": I64, "depth": I64, "symbol_id": I32, "module_id": I32},
    "os_chains": {"chain_id": I64, "depth": I64, "symbol_id": I32, "module_id": I32},
    "api_chains": {"chain_id": I64, "depth": I64, "symbol_id": I32, "module_id": I32},
    # Facts.
    "strings": {"string_id": I32, "value": STR},
    "thread_names": {"pid": I32, "tid": I32, "name_id": I32},
    "diagnostics": {"start_ns": I64, "severity": STR, "text": STR},
    # Samples of a GPU's own counters; `source` tells GPUs apart, `metric` ends in its unit, such as [Throughput %].
    "gpu_metrics": {"start_ns": I64, "source": I64, "metric": STR, "value": I64},
    "streams_text": {"pid": I32, "name_id": I32, "content_id": I32},
}  # fmt: skip

WIDE: Final[dict[str, frozenset[str]]] = {
    "kernels": frozenset({
        "short_name_id", "graph_node_id", "grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z",
        "registers", "shared_static_bytes", "shared_dynamic_bytes",
    }),
    "api_calls": frozenset({"return_value", "callchain_id"}),
    "syncs": frozenset({"event_id"}),
}  # fmt: skip
"""Columns that are read only when a query names them."""

BAD_ROWS: Final[Columns] = {"table": STR, "reason": STR, "rows": I64}
"""``Trace.tables["bad_rows"]``: rows that were left out because their times cannot be, and why."""

LATEST_NS: Final = 1 << 61
"""No time lies farther from zero: 73 years, beyond epoch times and far from where sums overflow."""

SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "cuda": ("kernels", "memcpys", "memsets", "graphs", "api_calls", "syncs"),
    "osrt": ("os_calls",),
    "nvtx": ("nvtx",),
    "sched": ("sched",),
    "samples": ("samples",),
    "gpu_metrics": (),
}
"""What can be collected, and the tables that prove it was."""


def polars_schema(table: str) -> pl.Schema:
    """The schema of a canonical table."""
    return pl.Schema(TABLES[table])


def empty(table: str) -> pl.DataFrame:
    """A canonical table without rows."""
    return pl.DataFrame(schema=polars_schema(table))
