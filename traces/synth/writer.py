"""Writes a layout as nsys's exporter would: lazily (a table without rows does not exist), values as nsys has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from traces.synth import world as w
from traces.synth.ddl import ENUMS, SCHEMAS, Schema, columns, create
from traces.synth.layout import Layout, long_calls
from traces.synth.tape import I64, Columns, take
from traces.synth.world import Gpu, Process

_CHUNK = 200_000
_START_UTC_NS = 1_767_225_600_000_000_000  # 2026-01-01
PROVENANCE = "synthetic: laid out by traces.synth, no GPU and no profiler took part"

Value: TypeAlias = "I64 | str | tuple[I64, str]"
"""A column of numbers; an SQL expression that holds for all rows and may name columns in braces; or both."""


def write(layout: Layout, path: Path, *, name: str, seed: int) -> None:
    """Write the SQLite file. The same layout gives the same bytes."""
    path.unlink(missing_ok=True)
    schema = SCHEMAS[layout.schema]
    with sqlite3.connect(path, isolation_level=None) as connection:
        for pragma in ("page_size=4096", "journal_mode=off", "synchronous=off", "locking_mode=exclusive"):
            connection.execute(f"pragma {pragma}")
        connection.execute("begin")
        file = _File(connection, schema)
        _write_events(file, layout)
        _write_facts(file, layout, name, seed)
        connection.execute("commit")
    connection.close()


class _File:
    """The open file; makes a table when its first rows come."""

    def __init__(self, connection: sqlite3.Connection, schema: Schema) -> None:
        self.connection = connection
        self.schema = schema
        self.made: set[str] = set()

    def _make(self, table: str) -> None:
        if table not in self.made:
            self.connection.execute(create(table, self.schema.tables[table]))
            self.made.add(table)

    def columns(self, table: str, **values: Value) -> None:
        """Rows from columns; columns not named stay NULL."""
        split = {
            name: value if isinstance(value, tuple) else (value, "{" + name + "}") for name, value in values.items()
        }
        bound = {name: value for name, (value, _) in split.items() if not isinstance(value, str)}
        arrays = list(bound.values())
        rows = len(arrays[0])
        if not rows:
            return
        self._make(table)
        places = {name: f"?{at}" for at, name in enumerate(bound, 1)}
        sql = ", ".join((value if isinstance(value, str) else rule).format(**places) for value, rule in split.values())
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({sql})"
        for at in range(0, rows, _CHUNK):
            self.connection.executemany(statement, zip(*(a[at : at + _CHUNK].tolist() for a in arrays), strict=True))

    def rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Whole rows, in the order of the table's columns. Nothing happens where this version has no such table."""
        if not rows or table not in self.schema.tables:
            return
        self._make(table)
        marks = ", ".join("?" * len(columns(self.schema.tables[table])))
        self.connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def _write_events(file: _File, layout: Layout) -> None:
    rng = np.random.default_rng(layout.facts.get("shuffle", 0))

    def ordered(table: Columns) -> Columns:
        return take(table, rng.permutation(len(table["start"]))) if layout.unsorted else table

    ops = layout.ops
    _kernels(file, layout, ordered(take(ops, ops["type"] == w.KERNEL)))
    _memcpys(file, layout, ordered(take(ops, ops["type"] == w.MEMCPY)))
    memsets = ordered(take(ops, ops["type"] == w.MEMSET))
    file.columns(
        "CUPTI_ACTIVITY_KIND_MEMSET", **_place(layout, memsets), value="0", bytes=memsets["bytes"],
        memKind=memsets["src"],
    )  # fmt: skip
    graphs = ordered(take(ops, ops["type"] == w.GRAPH))
    file.columns(
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", **_place(layout, graphs), graphId=graphs["what"],
        graphExecId=graphs["what"] + 1,
    )  # fmt: skip
    _calls(file, layout, ordered(layout.api))
    if layout.backtraces:
        _backtraces(file, layout)
    _waits(file, layout, ordered(layout.syncs))
    osrt, overheads = ordered(layout.osrt), ordered(layout.overheads)
    file.columns(
        "OSRT_API", start=osrt["start"], end=osrt["end"], eventClass="27", globalTid=_tids(layout, osrt),
        nameId=osrt["name"], returnValue="0", nestingLevel="0", callchainId=osrt["chain"],
    )  # fmt: skip
    file.columns(
        "PROFILER_OVERHEAD", start=overheads["start"], end=overheads["end"], globalTid=_tids(layout, overheads),
        nameId=overheads["name"], returnValue="0",
    )  # fmt: skip
    _samples(file, layout)


def _place(layout: Layout, ops: Columns) -> dict[str, Value]:
    """Where and when: the columns that all tables of GPU rows share."""
    pids = np.array([process.global_pid for process in layout.world.processes], dtype=np.int64)
    return {
        "start": ops["start"], "end": ops["end"], "deviceId": ops["device"], "contextId": ops["context"],
        "streamId": ops["stream"], "correlationId": ops["corr"], "globalPid": pids[ops["proc"]],
    }  # fmt: skip


def _tids(layout: Layout, rows: Columns) -> I64:
    tids = np.array([thread.global_tid for thread in layout.world.threads], dtype=np.int64)
    return tids[rows["thread"]]


def _kernels(file: _File, layout: Layout, ops: Columns) -> None:
    strings = layout.world.strings
    classes = layout.world.kernels.catalogue.classes
    if not len(ops["start"]):
        return
    facts = np.array(
        [(strings.id(c.demangled), strings.id(c.short), c.registers, *c.grid, *c.block, c.static_bytes, c.dynamic_bytes)
         for c in classes], dtype=np.int64,
    )[ops["what"]]  # fmt: skip
    file.columns(
        "CUPTI_ACTIVITY_KIND_KERNEL", **_place(layout, ops), demangledName=facts[:, 0], shortName=facts[:, 1],
        mangledName="{demangledName}", launchType="1", cacheConfig="3", registersPerThread=facts[:, 2],
        gridX=facts[:, 3], gridY=facts[:, 4], gridZ=facts[:, 5], blockX=facts[:, 6], blockY=facts[:, 7],
        blockZ=facts[:, 8], staticSharedMemory=facts[:, 9], dynamicSharedMemory=facts[:, 10],
        localMemoryPerThread="0", localMemoryTotal="0", gridId="{correlationId}", sharedMemoryExecuted="32768",
        graphNodeId=(ops["node"], "nullif({graphNodeId}, 0)"), sharedMemoryLimitConfig="0",
    )  # fmt: skip


def _memcpys(file: _File, layout: Layout, ops: Columns) -> None:
    peer = ops["what"] == w.PTOP
    extra: dict[str, Value] = {"copyCount": "1"} if layout.schema == "2025" else {}
    for part, devices in ((take(ops, ~peer), False), (take(ops, peer), True)):
        sides: dict[str, Value] = (
            {"srcDeviceId": part["src_device"], "srcContextId": part["src_device"] + 1,
             "dstDeviceId": part["dst_device"], "dstContextId": part["dst_device"] + 1}
            if devices else {}
        )  # fmt: skip
        file.columns(
            "CUPTI_ACTIVITY_KIND_MEMCPY", **_place(layout, part), bytes=part["bytes"], copyKind=part["what"],
            srcKind=part["src"], dstKind=part["dst"], **sides, **extra,
        )  # fmt: skip


def _calls(file: _File, layout: Layout, api: Columns) -> None:
    file.columns(
        "CUPTI_ACTIVITY_KIND_RUNTIME", start=api["start"], end=api["end"], eventClass=_event_class(layout, api),
        globalTid=_tids(layout, api), correlationId=api["corr"], nameId=api["name"], returnValue="0",
    )  # fmt: skip


def _event_class(layout: Layout, api: Columns) -> I64:
    """1 for calls of the driver API (``cuModuleLoadDataEx``), 0 for those of the runtime."""
    driver = np.array([not name.startswith("cuda") for name in layout.world.strings.values], dtype=np.int64)
    return driver[api["name"]]


def _backtraces(file: _File, layout: Layout) -> None:
    """Calls that took long enough for a backtrace come twice, the copy in a class of its own."""
    api = layout.api
    twice = take(api, long_calls(layout))
    file.columns(
        "CUPTI_ACTIVITY_KIND_RUNTIME", start=twice["start"], end=twice["end"], eventClass="67",
        globalTid=_tids(layout, twice), correlationId=twice["corr"], nameId=twice["name"], returnValue="0",
    )  # fmt: skip


def _waits(file: _File, layout: Layout, syncs: Columns) -> None:
    extra: dict[str, Value] = {"eventSyncId": str(w.WHOLE_CONTEXT)} if layout.schema == "2025" else {}
    # nsys numbers the types one lower than its own ENUM table says, up to 2025
    file.columns(
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        **_place(layout, syncs), syncType=syncs["kind"] - 1, eventId=syncs["event"], **extra,
    )  # fmt: skip


def _samples(file: _File, layout: Layout) -> None:
    samples, strings = layout.samples, layout.world.strings
    numbers = np.arange(1, len(samples["start"]) + 1, dtype=np.int64)
    file.columns(
        "COMPOSITE_EVENTS", id=numbers, start=samples["start"], cpu=samples["cpu"], threadState="1",
        globalTid=_tids(layout, samples), cpuCycles="1000000",
    )  # fmt: skip
    module = strings.id("/usr/lib/libllama.so")
    chains = layout.world.chains
    file.rows("SAMPLING_CALLCHAINS", [
        row for number, chain in zip(numbers.tolist(), samples["chain"].tolist(), strict=True)
        for row in _frames(strings, chains[chain], number, module)
    ])  # fmt: skip
    used = set(layout.osrt["chain"].tolist()) - {0}
    file.rows("OSRT_CALLCHAINS", [row for at in sorted(used) for row in _frames(strings, chains[at], at, module)])


def _frames(strings: w.Strings, frames: tuple[str, ...], chain: int, module: int) -> Iterator[tuple[Any, ...]]:
    for depth, frame in enumerate(frames):
        yield (chain, strings.id(frame), module, None, None, None, None, 4096 + 16 * depth, None, depth)


def _write_facts(file: _File, layout: Layout, name: str, seed: int) -> None:
    world, strings = layout.world, layout.world.strings
    last = max(int(table["end"].max()) for table in (layout.ops, layout.api, layout.osrt) if len(table["end"]))
    file.rows("ANALYSIS_DETAILS", [(w.VM, last, 0, last)])
    file.rows("PROCESSES", [(one.global_pid, one.pid, f"/usr/bin/{one.program}") for one in world.processes])
    file.rows("ThreadNames", [(strings.id(one.name), 20, one.global_tid) for one in world.threads])
    streams = []
    for process in world.processes:
        for kind, lines in (("stdout", process.stdout), ("stderr", process.stderr)):
            streams.append((process.global_pid, strings.id(f"/streams/pid_{process.pid}_{kind}.log"),
                            strings.id("".join(lines))))  # fmt: skip
    file.rows("ProcessStreams", streams)
    file.rows("TARGET_INFO_GPU", [_gpu(layout, gpu) for gpu in world.gpus])
    devices = [
        (gpu.number, ordinal, process.pid) for process in world.processes for ordinal, gpu in enumerate(process.devices)
    ]
    file.rows("TARGET_INFO_CUDA_DEVICE", devices)
    _contexts(file, layout)
    file.rows("TARGET_INFO_SESSION_START_TIME", [(_START_UTC_NS, "2026-01-01T00:00:00", "2026-01-01T00:00:00")])
    file.rows("DIAGNOSTIC_EVENT", _diagnostics(layout))
    for table, rows in ENUMS.items():
        file.rows(table, rows)
    file.rows("META_DATA_EXPORT", _export(file.schema, name, seed))
    file.rows("META_DATA_CAPTURE", _capture(layout))
    file.rows("StringIds", list(enumerate(strings.values)))


def _gpu(layout: Layout, gpu: Gpu) -> tuple[Any, ...]:
    model = gpu.model
    facts: dict[str, Any] = {
        "vmId": w.VM, "id": gpu.number, "name": model.name, "busLocation": f"0000:{gpu.number + 1:02x}:00.0",
        "isDiscrete": 1, "l2CacheSize": 4 << 20, "totalMemory": model.memory_bytes,
        "memoryBandwidth": round(model.bandwidth), "clockRate": model.clock_hz, "smCount": model.sm_count,
        "pwGpuId": gpu.number, "uuid": f"00000000-0000-0000-0000-{gpu.number:012x}", "luid": 0,
        "chipName": model.chip, "cuDevice": gpu.ordinal, "ctxswDevPath": "", "ctrlDevPath": "", "threadsPerWarp": 32,
        "maxThreadsPerBlock": 1024, "asyncEngines": 3, "computeMajor": model.compute[0],
        "computeMinor": model.compute[1], "smMajor": model.compute[0], "smMinor": model.compute[1],
    }  # fmt: skip
    return tuple(facts.get(name) for name in columns(SCHEMAS[layout.schema].tables["TARGET_INFO_GPU"]))


def _contexts(file: _File, layout: Layout) -> None:
    ops = layout.ops
    packed = np.unique(((ops["proc"] << 16 | ops["device"]) << 16 | ops["context"]) << 16 | ops["stream"]).tolist()
    seen = [(value >> 48, value >> 32 & 0xFFFF, value >> 16 & 0xFFFF, value & 0xFFFF) for value in packed]
    pids = [process.pid for process in layout.world.processes]
    contexts = sorted({(proc, device, context) for proc, device, context, _ in seen})
    file.rows("TARGET_INFO_CUDA_CONTEXT_INFO", [(7, 0, 1, pids[p], d, c, 0, 0) for p, d, c in contexts])
    file.rows("TARGET_INFO_CUDA_STREAM", [(stream, 0, 1, pids[p], c, 0, 2) for p, _, c, stream in seen])


def _diagnostics(layout: Layout) -> list[tuple[Any, ...]]:
    process: Process = layout.world.processes[0]
    rows: list[tuple[Any, ...]] = [
        (1_000, 1, 1, 1, "Common injection library initialized successfully.", process.global_pid),
        (2_000, 1, 1, 1, "CUDA injection initialized successfully.", process.global_pid),
    ]  # fmt: skip
    lost = layout.removed.get("graph_gpu_rows", 0) + layout.removed.get("api_rows", 0)
    if lost:
        rows.append((3_000, 1, 3, 2, f"Number of CUDA events dropped: {lost}.", process.global_pid))
    return rows


def _export(schema: Schema, name: str, seed: int) -> list[tuple[str, str]]:
    major, minor, micro = schema.version.split(".")
    return [
        ("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"), ("EXPORT_PRODUCT_VERSION", schema.product),
        ("EXPORT_PRODUCT_DATE", schema.date), ("EXPORT_SCHEMA_VERSION", schema.version),
        ("EXPORT_SCHEMA_VERSION_MAJOR", major), ("EXPORT_SCHEMA_VERSION_MINOR", minor),
        ("EXPORT_SCHEMA_VERSION_MICRO", micro), ("EXPORT_PARAM_LAZY", "true"),
        ("EXPORT_PARAM_OUTPUT_FILE", "trace.sqlite"), ("SYNTHETIC", PROVENANCE),
        ("SYNTHETIC_PRESET", name), ("SYNTHETIC_SEED", str(seed)),
    ]  # fmt: skip


def _capture(layout: Layout) -> list[tuple[str, str]]:
    rows = [("CAPTURE_EVENT_TYPE", "Cuda")]
    rows += [("CAPTURE_EVENT_TYPE", "OSRuntime")] if layout.osrt_collected else []
    rows.append(("OS_RUNTIME_OPTIONS:DURATION_THRESHOLD_NS", "1000"))
    for at, process in enumerate(layout.world.processes):
        rows.append((f"PROCESS_{at}:COMMAND", process.program))
        rows += [(f"PROCESS_{at}:ARGUMENT_{n}", value) for n, value in enumerate(process.arguments)]
        rows.append((f"PROCESS_{at}:COLLECT_CUDA_TRACE", "true"))
        rows.append((f"PROCESS_{at}:CUDA_GRAPH_TRACE_OPTIONS:MODE", "Node" if layout.graph == "node" else "Graph"))
    return rows
