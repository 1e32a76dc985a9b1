"""Real nsys exports of a few rows, written by the test that uses them.

    trace = open_tiny(
        tmp_path,
        api("cudaLaunchKernel_v7000", 0, 3, corr=1),
        kernel("mul", 5, 13, corr=1),
    )

Table and column names are nsys's own; what a row does not say is 0 where nsys demands a value and NULL elsewhere.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from nsyskit.ingest import open_trace
from nsyskit.trace import Trace

PID, TID = 10, 11
_VM = 1 << 48
WHOLE_CONTEXT = 4294967295

# Columns in nsys's order; `!` NOT NULL, `:t` TEXT.
_GPU_OP = "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid"
_CHAIN = "id! symbol! module! kernelMode thumbCode unresolved specialEntry originalIP unwindMethod stackDepth!"
DDL = {
    "StringIds": "id! value!:t",
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start! end! eventClass! globalTid correlationId nameId! returnValue! callchainId",
    "CUPTI_ACTIVITY_KIND_KERNEL": f"{_GPU_OP} demangledName! shortName! mangledName launchType cacheConfig "
    "registersPerThread! gridX! gridY! gridZ! blockX! blockY! blockZ! staticSharedMemory! dynamicSharedMemory! "
    "localMemoryPerThread! localMemoryTotal! gridId! sharedMemoryExecuted graphNodeId sharedMemoryLimitConfig",
    "CUPTI_ACTIVITY_KIND_MEMCPY": f"{_GPU_OP} bytes! copyKind! deprecatedSrcId srcKind dstKind srcDeviceId "
    "srcContextId dstDeviceId dstContextId migrationCause graphNodeId virtualAddress",
    "CUPTI_ACTIVITY_KIND_MEMSET": f"{_GPU_OP} value! bytes! graphNodeId memKind",
    "CUDA_GPU_MEMORY_USAGE_EVENTS": (
        "start! globalPid! deviceId! contextId! address! pc! bytes! memKind! memoryOperationType! name:t correlationId "
        "localMemoryPoolAddress localMemoryPoolReleaseThreshold localMemoryPoolSize localMemoryPoolUtilizedSize "
        "importedMemoryPoolAddress importedMemoryPoolProcessId"
    ),
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": f"{_GPU_OP} graphId! graphExecId!",
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": f"{_GPU_OP} syncType! eventId!",
    "OSRT_API": "start! end! eventClass! globalTid nameId! returnValue! nestingLevel callchainId!",
    "NVTX_EVENTS": "start! end eventType! rangeId category color text:t globalTid endGlobalTid textId domainId",
    "PROFILER_OVERHEAD": "start! end! globalTid nameId! returnValue!",
    "COMPOSITE_EVENTS": "id! start! cpu threadState globalTid cpuCycles!",
    "SCHED_EVENTS": "start! cpu! isSchedIn! globalTid threadState threadBlock",
    "SAMPLING_CALLCHAINS": _CHAIN,
    "OSRT_CALLCHAINS": _CHAIN,
    "ThreadNames": "nameId! priority globalTid",
    "PROCESSES": "globalPid pid name:t",
    "ProcessStreams": "globalPid! filenameId! contentId!",
    "DIAGNOSTIC_EVENT": "timestamp! timestampType! source! severity! text!:t globalPid",
    "TARGET_INFO_GPU": "vmId! id! name:t busLocation:t totalMemory memoryBandwidth clockRate smCount uuid:t cuDevice "
    "computeMajor computeMinor",
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId! pid!",
    "TARGET_INFO_SYSTEM_ENV": "globalVid devStateName!:t name!:t nameEnum! value!:t",
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs utcTime:t localTime:t",
    "META_DATA_EXPORT": "name!:t value:t",
    "EXPORT_META_DATA": "name!:t value:t",
    "META_DATA_CAPTURE": "name!:t value:t",
    "ENUM_CUDA_MEMCPY_OPER": "id! name:t label:t",
    "ENUM_CUDA_MEM_KIND": "id! name:t label:t",
}
COPY_KINDS = {
    "unknown": 0, "HtoD": 1, "DtoH": 2, "HtoA": 3, "AtoH": 4, "AtoA": 5, "AtoD": 6, "DtoA": 7, "DtoD": 8, "HtoH": 9,
    "PtoP": 10, "unified_HtoD": 11, "unified_DtoH": 12, "unified_DtoD": 13,
}  # fmt: skip
MEMORY_KINDS = {"pageable": 0, "pinned": 1, "device": 2, "array": 3, "managed": 4}
STYLES = {"PushPop": 59, "StartEnd": 60, "mark": 34, "domain": 75}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an nsys table; ``strings`` are columns that refer to StringIds."""

    table: str
    values: dict[str, Any]
    strings: dict[str, str] = field(default_factory=dict)


def global_tid(pid: int, tid: int) -> int:
    return _VM | pid << 24 | tid


def api(
    name: str, start: int, end: int, *, corr: int | None = None, pid: int = PID, tid: int = TID, **more: Any
) -> Row:
    """A CUDA runtime or driver call."""
    values = {"start": start, "end": end, "globalTid": global_tid(pid, tid), "correlationId": corr} | more
    return Row("CUPTI_ACTIVITY_KIND_RUNTIME", values, {} if "nameId" in more else {"nameId": name})


def kernel(name: str, start: int, end: int, *, short: str | None = None, **more: Any) -> Row:
    strings = {} if "demangledName" in more else {"demangledName": name, "shortName": short or name}
    return Row("CUPTI_ACTIVITY_KIND_KERNEL", _op(start, end, more), strings)


def memcpy(
    label: str, start: int, end: int, nbytes: int = 64, *, src: str | None = None, dst: str | None = None, **more: Any
) -> Row:
    """A copy; its memory kinds follow from the label, with a pinned host side, unless they are said."""
    kinds = {"H": "pinned", "D": "device", "A": "array", "P": "device"}
    kinds_of_label = (kinds[label[0]], kinds[label[-1]]) if label in COPY_KINDS and len(label) == 4 else (None, None)
    values = _op(start, end, more) | {
        "bytes": nbytes,
        "copyKind": COPY_KINDS[label],
        "srcKind": MEMORY_KINDS.get(src or kinds_of_label[0]),
        "dstKind": MEMORY_KINDS.get(dst or kinds_of_label[1]),
    }
    return Row("CUPTI_ACTIVITY_KIND_MEMCPY", values)


def memset(start: int, end: int, nbytes: int = 64, **more: Any) -> Row:
    return Row("CUPTI_ACTIVITY_KIND_MEMSET", _op(start, end, more) | {"bytes": nbytes, "memKind": 2})


def allocation(at: int, nbytes: int, *, release: bool = False, kind: int = 2, device: int = 0, pid: int = PID) -> Row:
    """Memory that is allocated or released; kind 2 is the device's."""
    values = {
        "start": at, "globalPid": global_tid(pid, 0), "deviceId": device, "address": 4096, "bytes": nbytes,
        "memKind": kind, "memoryOperationType": int(release),
    }  # fmt: skip
    return Row("CUDA_GPU_MEMORY_USAGE_EVENTS", values)


def graph(start: int, end: int, **more: Any) -> Row:
    """A CUDA graph launch traced as a whole."""
    return Row("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", _op(start, end, more))


def awaited(corr: int, stream: int = WHOLE_CONTEXT, **more: Any) -> Row:
    """What a synchronizing call waited for."""
    return Row("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", _op(0, 0, {"corr": corr, "stream": stream} | more))


def os_call(
    name: str, start: int, end: int, *, pid: int = PID, tid: int = TID, event_class: int = 27, chain: int = 0
) -> Row:
    values = {"start": start, "end": end, "globalTid": global_tid(pid, tid), "eventClass": event_class}
    return Row("OSRT_API", values | {"callchainId": chain}, {"nameId": name})


def nvtx(text: str | None, start: int, end: int | None, *, style: str = "PushPop", domain: int = 0, **more: Any) -> Row:
    values = {"start": start, "end": end, "eventType": STYLES[style], "text": text, "domainId": domain}
    return Row("NVTX_EVENTS", values | {"globalTid": global_tid(PID, TID)} | more)


def overhead(name: str, start: int, end: int, *, pid: int = PID, tid: int = TID) -> Row:
    return Row("PROFILER_OVERHEAD", {"start": start, "end": end, "globalTid": global_tid(pid, tid)}, {"nameId": name})


def sample(at: int, *frames: str, number: int, module: str = "/usr/lib/libllama.so", tid: int = TID) -> list[Row]:
    """A CPU sample with its call chain, innermost first."""
    event = Row("COMPOSITE_EVENTS", {"id": number, "start": at, "globalTid": global_tid(PID, tid)})
    return [event, *_frames("SAMPLING_CALLCHAINS", number, frames, module)]


def os_chain(number: int, *frames: str) -> list[Row]:
    """The call chain above an OS call, innermost first."""
    return _frames("OSRT_CALLCHAINS", number, frames, "libc.so.6")


def switch(at: int, *, runs: bool, tid: int = TID) -> Row:
    return Row("SCHED_EVENTS", {"start": at, "isSchedIn": int(runs), "globalTid": global_tid(PID, tid)})


def thread_name(name: str, *, pid: int = PID, tid: int = TID) -> Row:
    return Row("ThreadNames", {"globalTid": global_tid(pid, tid)}, {"nameId": name})


def process(name: str, *, pid: int = PID) -> Row:
    return Row("PROCESSES", {"globalPid": global_tid(pid, 0), "pid": pid, "name": name})


def diagnostic(text: str, *, severity: int = 2) -> Row:
    return Row("DIAGNOSTIC_EVENT", {"text": text, "severity": severity})


def gpu(number: int, name: str, *, ordinal: int | None = None, **more: Any) -> Row:
    return Row("TARGET_INFO_GPU", {"id": number, "name": name, "cuDevice": ordinal} | more)


def cuda_device(gpu_number: int, ordinal: int, *, pid: int = PID) -> Row:
    """Which GPU a process calls by which ordinal."""
    return Row("TARGET_INFO_CUDA_DEVICE", {"gpuId": gpu_number, "cudaId": ordinal, "pid": pid})


def fact(name: str, value: str, *, table: str = "META_DATA_CAPTURE") -> Row:
    return Row(table, {"name": name, "value": value})


def string(number: int, value: str) -> Row:
    """A string under an id of the test's choice; others are numbered from 1 on."""
    return Row("StringIds", {"id": number, "value": value})


def exporter(version: str = "2023.4.4.54-234433681190v0", schema: str = "3.7.2") -> list[Row]:
    """The export's own metadata."""
    return [
        fact("EXPORT_PRODUCT_VERSION", version, table="META_DATA_EXPORT"),
        fact("EXPORT_SCHEMA_VERSION", schema, table="META_DATA_EXPORT"),
    ]


def tables_of(*rows: Row | list[Row]) -> dict[str, list[dict[str, Any]]]:
    """Rows by table, their strings replaced by ids."""
    flat = [row for item in rows for row in (item if isinstance(item, list) else [item])]
    ids = {row.values["value"]: row.values["id"] for row in flat if row.table == "StringIds"}
    tables: dict[str, list[dict[str, Any]]] = {"StringIds": []}
    for row in flat:
        for text in row.strings.values():
            if text not in ids:
                ids[text] = max([0, *ids.values()]) + 1
                tables["StringIds"].append({"id": ids[text], "value": text})
        tables.setdefault(row.table, []).append(
            row.values | {column: ids[text] for column, text in row.strings.items()}
        )
    return tables


def write_sqlite(path: Path, *rows: Row | list[Row], drop: tuple[str, ...] = (), eager: bool = False) -> Path:
    """An SQLite export: tables with rows only, as a lazy export; ``drop`` names columns that its nsys did not know."""
    tables = tables_of(*rows)
    with closing(sqlite3.connect(path)) as connection:
        for table in DDL if eager else tables:
            columns = [column for column in _columns(table) if column[0] not in drop]
            declared = ", ".join(
                f'"{name}" {"TEXT" if text else "INTEGER"}{" NOT NULL" if needed else ""}'
                for name, needed, text in columns
            )
            connection.execute(f"CREATE TABLE {table} ({declared})")
            names, marks = ", ".join(f'"{name}"' for name, _, _ in columns), ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",
                [
                    [row.get(name, ("" if text else 0) if needed else None) for name, needed, text in columns]
                    for row in tables.get(table, [])
                ],
            )
        connection.commit()
    return path


def write_parquet(folder: Path, *rows: Row | list[Row]) -> Path:
    """A Parquet export, with the unsigned and narrow types that nsys gives its columns."""
    folder.mkdir()
    kinds = {
        "start": pl.Int64, "end": pl.Int64, "timestamp": pl.Int64, "eventClass": pl.Int64, "stackDepth": pl.Int64,
        "globalTid": pl.UInt64, "globalPid": pl.UInt64, "nameId": pl.UInt64, "bytes": pl.UInt64, "copyKind": pl.UInt8,
    }  # fmt: skip
    for table, content in tables_of(*rows).items():
        schema = {name: pl.String if text else kinds.get(name, pl.UInt32) for name, _, text in _columns(table)}
        filled = [
            {name: row.get(name, ("" if text else 0) if needed else None) for name, needed, text in _columns(table)}
            for row in content
        ]
        pl.DataFrame(filled, schema=schema).write_parquet(folder / f"{table}.parquet")
    return folder


def open_tiny(tmp_path: Path, *rows: Row | list[Row], **options: Any) -> Trace:
    """The trace of the rows, through a real file and the real door."""
    return open_trace(write_sqlite(tmp_path / "trace.sqlite", *rows, **options))


def _columns(table: str) -> list[tuple[str, bool, bool]]:
    """(name, NOT NULL, text) of each column."""
    words = (word.partition(":") for word in DDL[table].split())
    return [(name.rstrip("!"), name.endswith("!"), kind == "t") for name, _, kind in words]


def _op(start: int, end: int, more: dict[str, Any]) -> dict[str, Any]:
    spelled = {"corr": "correlationId", "device": "deviceId", "stream": "streamId", "node": "graphNodeId"}
    pid = more.get("pid", PID)
    values = {"start": start, "end": end, "globalPid": global_tid(pid, 0), "streamId": 7}
    return values | {spelled.get(name, name): value for name, value in more.items() if name != "pid"}


def _frames(table: str, number: int, frames: tuple[str, ...], module: str) -> list[Row]:
    return [
        Row(table, {"id": number, "stackDepth": depth}, {"symbol": frame, "module": module})
        for depth, frame in enumerate(frames)
    ]
