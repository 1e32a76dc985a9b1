"""nsys's tables and columns, per schema: what ``nsys export --lazy=false`` makes, as far as a trace here has rows.

A column's type is INTEGER; ``!`` marks NOT NULL, ``t`` TEXT, ``k`` the primary key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KERNEL = (
    "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid demangledName! shortName! "
    "mangledName launchType cacheConfig registersPerThread! gridX! gridY! gridZ! blockX! blockY! blockZ! "
    "staticSharedMemory! dynamicSharedMemory! localMemoryPerThread! localMemoryTotal! gridId! sharedMemoryExecuted "
    "graphNodeId sharedMemoryLimitConfig"
)
_MEMCPY = (
    "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid bytes! copyKind! "
    "deprecatedSrcId srcKind dstKind srcDeviceId srcContextId dstDeviceId dstContextId migrationCause graphNodeId "
    "virtualAddress"
)
_MEMSET = (
    "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid value! bytes! graphNodeId "
    "memKind"
)
_SYNC = "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid syncType! eventId!"
_SYNC_2025 = (
    "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid deprecatedSyncType syncType! "
    "eventId! eventSyncId"
)
_CHAIN = (
    "id! symbol! module! kernelMode thumbCode unresolved specialEntry originalIP unwindMethod stackDepth! "
    "+(id,stackDepth)"
)
_GPU = (
    "vmId! id! name:t busLocation:t isDiscrete l2CacheSize totalMemory memoryBandwidth clockRate smCount pwGpuId "
    "uuid:t luid chipName:t cuDevice ctxswDevPath:t ctrlDevPath:t revision nodeMask constantMemory maxIPC "
    "maxRegistersPerBlock maxShmemPerBlock maxShmemPerBlockOptin maxShmemPerSm maxRegistersPerSm threadsPerWarp "
    "asyncEngines maxWarpsPerSm maxBlocksPerSm maxThreadsPerBlock maxBlockDimX maxBlockDimY maxBlockDimZ "
    "maxGridDimX maxGridDimY maxGridDimZ computeMajor computeMinor smMajor smMinor"
)
_ENUM = "id!k name:t label:t"

_COMMON: Final[dict[str, str]] = {
    "ANALYSIS_DETAILS": "globalVid! duration! startTime! stopTime!",
    "COMPOSITE_EVENTS": "id!k start! cpu threadState globalTid cpuCycles!",
    "CUPTI_ACTIVITY_KIND_KERNEL": _KERNEL,
    "CUPTI_ACTIVITY_KIND_MEMCPY": _MEMCPY,
    "CUPTI_ACTIVITY_KIND_MEMSET": _MEMSET,
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start! end! eventClass! globalTid correlationId nameId! returnValue! callchainId",
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": _SYNC,
    "ENUM_CUDA_MEMCPY_OPER": _ENUM,
    "ENUM_CUDA_MEM_KIND": _ENUM,
    "ENUM_CUPTI_SYNC_TYPE": _ENUM,
    "ENUM_NSYS_EVENT_CLASS": _ENUM,
    "ENUM_SAMPLING_THREAD_STATE": _ENUM,
    "META_DATA_CAPTURE": "name!:t value:t",
    "META_DATA_EXPORT": "name!:t value:t",
    "OSRT_API": "start! end! eventClass! globalTid nameId! returnValue! nestingLevel callchainId!",
    "OSRT_CALLCHAINS": _CHAIN,
    "PROCESSES": "globalPid pid name:t",
    "PROFILER_OVERHEAD": "start! end! globalTid nameId! returnValue!",
    "ProcessStreams": "globalPid! filenameId! contentId!",
    "SAMPLING_CALLCHAINS": _CHAIN,
    "StringIds": "id!k value!:t",
    "TARGET_INFO_CUDA_CONTEXT_INFO": (
        "nullStreamId! hwId! vmId! processId! deviceId! contextId! parentContextId isGreenContext"
    ),
    "TARGET_INFO_CUDA_STREAM": "streamId! hwId! vmId! processId! contextId! priority! flag!",
    "TARGET_INFO_GPU": _GPU,
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs utcTime:t localTime:t",
    "ThreadNames": "nameId! priority globalTid",
}

_ADDED_2025: Final[dict[str, str]] = {
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": (
        "start! end! deviceId! contextId! greenContextId streamId! correlationId globalPid graphId! graphExecId!"
    ),
    "CUPTI_ACTIVITY_KIND_MEMCPY": f"{_MEMCPY} copyCount",
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": _SYNC_2025,
    "DIAGNOSTIC_EVENT": "timestamp! timestampType! source! severity! text!:t globalPid",
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL": _ENUM,
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId! pid!",
}


@dataclass(frozen=True, slots=True)
class Schema:
    """A version of nsys and the tables it exports."""

    product: str
    date: str
    version: str
    tables: dict[str, str]


SCHEMAS: Final[dict[str, Schema]] = {
    "2023.4": Schema("2023.4.4.54", "2023.4", "3.7.2", _COMMON),
    "2025": Schema("2025.3.1.90", "2025.3", "3.20.2", _COMMON | _ADDED_2025),
}


def columns(spec: str) -> list[str]:
    """The names of a table's columns."""
    return [word.split(":")[0].rstrip("k").rstrip("!") for word in _words(spec)]


def create(table: str, spec: str) -> str:
    """The statement that makes a table."""
    lines = [_column(word) for word in _words(spec)]
    lines += [f"PRIMARY KEY {word[1:]}" for word in spec.split() if word.startswith("+")]
    return f"CREATE TABLE {table} (" + ", ".join(lines) + ")"


def _words(spec: str) -> list[str]:
    return [word for word in spec.split() if not word.startswith("+")]


def _column(word: str) -> str:
    name, _, kind = word.partition(":")
    key = "!k" in name
    bare = name.replace("!k", "").replace("!", "")
    text = "TEXT" if kind == "t" else "INTEGER"
    return f"{bare} {text}{' NOT NULL' if '!' in name else ''}{' PRIMARY KEY' if key else ''}"


ENUMS: Final[dict[str, tuple[tuple[int, str, str], ...]]] = {
    "ENUM_CUDA_MEMCPY_OPER": (
        (0, "CUDA_MEMCPY_KIND_UNKNOWN", "Unknown"),
        (1, "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
        (2, "CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
        (3, "CUDA_MEMCPY_KIND_HTOA", "Host-to-Array"),
        (4, "CUDA_MEMCPY_KIND_ATOH", "Array-to-Host"),
        (5, "CUDA_MEMCPY_KIND_ATOA", "Array-to-Array"),
        (6, "CUDA_MEMCPY_KIND_ATOD", "Array-to-Device"),
        (7, "CUDA_MEMCPY_KIND_DTOA", "Device-to-Array"),
        (8, "CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
        (9, "CUDA_MEMCPY_KIND_HTOH", "Host-to-Host"),
        (10, "CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
        (11, "CUDA_MEMCPY_KIND_UVM_HTOD", "Unified Host-to-Device"),
        (12, "CUDA_MEMCPY_KIND_UVM_DTOH", "Unified Device-to-Host"),
        (13, "CUDA_MEMCPY_KIND_UVM_DTOD", "Unified Device-to-Device"),
    ),
    "ENUM_CUDA_MEM_KIND": (
        (0, "CUDA_MEMOPR_MEMORY_KIND_PAGEABLE", "Pageable"),
        (1, "CUDA_MEMOPR_MEMORY_KIND_PINNED", "Pinned"),
        (2, "CUDA_MEMOPR_MEMORY_KIND_DEVICE", "Device"),
        (3, "CUDA_MEMOPR_MEMORY_KIND_ARRAY", "Array"),
        (4, "CUDA_MEMOPR_MEMORY_KIND_MANAGED", "Managed"),
        (5, "CUDA_MEMOPR_MEMORY_KIND_DEVICE_STATIC", "Device Static"),
        (6, "CUDA_MEMOPR_MEMORY_KIND_MANAGED_STATIC", "Managed Static"),
        (7, "CUDA_MEMOPR_MEMORY_KIND_UNKNOWN", "Unknown"),
    ),
    "ENUM_CUPTI_SYNC_TYPE": (
        (0, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_UNKNOWN", "Unknown"),
        (1, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE", "Event sync"),
        (2, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT", "Stream wait sync"),
        (3, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE", "Stream sync"),
        (4, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE", "Context sync"),
    ),
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL": (
        (0, "UnknownLevel", "Unknown"), (1, "Info", "Info"), (2, "Warning", "Warning"), (3, "Error", "Error"),
        (4, "Verbose", "Verbose"),
    ),
    "ENUM_NSYS_EVENT_CLASS": (
        (0, "TRACE_PROCESS_EVENT_CUDA_RUNTIME", "CUDA runtime"),
        (1, "TRACE_PROCESS_EVENT_CUDA_DRIVER", "CUDA driver"),
        (27, "TRACE_PROCESS_EVENT_OS_RUNTIME", "OSRT runtime"),
        (31, "TRACE_PROCESS_EVENT_OS_RUNTIME_START", "OSRT start"),
        (67, "TRACE_PROCESS_EVENT_CUDABACKTRACE", "CUDA backtrace"),
    ),
    "ENUM_SAMPLING_THREAD_STATE": ((0, "Unknown", "Unknown"), (1, "Running", "Running"), (7, "Waiting", "Waiting")),
}  # fmt: skip
