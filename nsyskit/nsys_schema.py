"""nsys's own table and column spellings, in one place. Ingest, redaction and the trace generator use it, nobody else.

Source: the DDL that ``nsys export --lazy=false`` writes (2022.4, 2023.4) and lazy exports of 2021 to 2026.
"""

from __future__ import annotations

from typing import Final

TABLE_OF: Final[dict[str, str]] = {
    "kernels": "CUPTI_ACTIVITY_KIND_KERNEL",
    "memcpys": "CUPTI_ACTIVITY_KIND_MEMCPY",
    "memsets": "CUPTI_ACTIVITY_KIND_MEMSET",
    "graphs": "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
    "allocations": "CUDA_GPU_MEMORY_USAGE_EVENTS",
    "api_calls": "CUPTI_ACTIVITY_KIND_RUNTIME",
    "syncs": "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
    "os_calls": "OSRT_API",
    "nvtx": "NVTX_EVENTS",
    "overheads": "PROFILER_OVERHEAD",
    "samples": "COMPOSITE_EVENTS",
    "sched": "SCHED_EVENTS",
    "sample_chains": "SAMPLING_CALLCHAINS",
    "os_chains": "OSRT_CALLCHAINS",
    "api_chains": "CUDA_CALLCHAINS",
    "strings": "StringIds",
    "thread_names": "ThreadNames",
    "diagnostics": "DIAGNOSTIC_EVENT",
    "gpu_metrics": "GPU_METRICS",
    "os_marks": "OSRT_API",
    "streams_text": "ProcessStreams",
}
"""Canonical table -> nsys table."""

_SPAN = {"start_ns": "start", "end_ns": "end"}
_THREAD = {"pid": "globalTid", "tid": "globalTid"}
_GPU_OP = _SPAN | {
    "pid": "globalPid", "device": "deviceId", "context": "contextId", "stream": "streamId",
    "correlation_id": "correlationId",
}  # fmt: skip
_CHAIN = {"chain_id": "id", "depth": "stackDepth", "symbol_id": "symbol", "module_id": "module"}

COLUMN_OF: Final[dict[str, dict[str, str]]] = {
    "kernels": _GPU_OP | {
        "name_id": "demangledName", "short_name_id": "shortName", "graph_node_id": "graphNodeId",
        "grid_x": "gridX", "grid_y": "gridY", "grid_z": "gridZ",
        "block_x": "blockX", "block_y": "blockY", "block_z": "blockZ", "registers": "registersPerThread",
        "shared_static_bytes": "staticSharedMemory", "shared_dynamic_bytes": "dynamicSharedMemory",
    },
    "memcpys": _GPU_OP | {
        "bytes": "bytes", "label": "copyKind", "src_memory": "srcKind", "dst_memory": "dstKind",
        "src_device": "srcDeviceId", "dst_device": "dstDeviceId", "graph_node_id": "graphNodeId",
    },
    "memsets": _GPU_OP | {"bytes": "bytes", "memory": "memKind", "graph_node_id": "graphNodeId"},
    "graphs": _GPU_OP | {"graph_id": "graphId", "graph_exec_id": "graphExecId"},
    "allocations": {
        "start_ns": "start", "pid": "globalPid", "device": "deviceId", "address": "address", "bytes": "bytes",
        "memory": "memKind", "allocates": "memoryOperationType",
    },
    "api_calls": _SPAN | _THREAD | {
        "correlation_id": "correlationId", "name_id": "nameId", "duplicate": "eventClass",
        "callchain_id": "callchainId", "return_value": "returnValue",
    },
    "syncs": _GPU_OP | {"event_id": "eventId"},
    "os_calls": _SPAN | _THREAD | {"name_id": "nameId", "callchain_id": "callchainId"},
    "os_marks": {"start_ns": "start", **_THREAD, "name_id": "nameId"},
    "overheads": _SPAN | _THREAD | {"name_id": "nameId"},
    "samples": {"start_ns": "start", **_THREAD, "sample_id": "id"},
    "sched": {"start_ns": "start", **_THREAD, "cpu": "cpu", "is_in": "isSchedIn"},
    "sample_chains": _CHAIN,
    "os_chains": _CHAIN,
    "api_chains": _CHAIN,
    "strings": {"string_id": "id", "value": "value"},
    "thread_names": _THREAD | {"name_id": "nameId"},
    "streams_text": {"pid": "globalPid", "name_id": "filenameId", "content_id": "contentId"},
}  # fmt: skip
"""Canonical table -> canonical column -> nsys column.

``nvtx``, ``diagnostics`` and ``gpu_metrics`` need several columns for one.
"""

OPTIONAL_COLUMNS: Final = frozenset({
    "eventClass", "callchainId", "returnValue", "graphNodeId", "graphId", "graphExecId", "srcKind", "dstKind",
    "memKind", "srcDeviceId", "dstDeviceId", "eventId", "correlationId", "gridX", "gridY", "gridZ", "blockX",
    "blockY", "blockZ", "registersPerThread", "staticSharedMemory", "dynamicSharedMemory", "contextId", "module",
    "globalTid", "globalPid",
})  # fmt: skip
"""Columns that some versions do not write; absent ones read as NULL. Any other absent column makes a table unusable."""

TEXT_COLUMNS: Final = frozenset({"value", "text", "name", "uuid", "metricName"})

EVENT_CLASS_OS_RUNTIME: Final = 27
"""Other classes in the OS runtime table mark its start and finish."""

MEMORY_OPERATION_ALLOCATION: Final = 0
"""Of ENUM_CUDA_DEV_MEM_EVENT_OPER; 1 is a release."""

EVENT_CLASS_API_BACKTRACE: Final = 67
"""Rows of this class repeat a call for its backtrace."""

# Values of the file's ENUM tables. Exports of 2021 have none and use the same numbers.
ENUM_COPY_KIND: Final = "ENUM_CUDA_MEMCPY_OPER"
COPY_KINDS: Final[dict[int, str]] = {
    0: "UNKNOWN", 1: "HTOD", 2: "DTOH", 3: "HTOA", 4: "ATOH", 5: "ATOA", 6: "ATOD", 7: "DTOA", 8: "DTOD", 9: "HTOH",
    10: "PTOP", 11: "UVM_HTOD", 12: "UVM_DTOH", 13: "UVM_DTOD",
}  # fmt: skip
COPY_KIND_PREFIX: Final = "CUDA_MEMCPY_KIND_"
COPY_LABEL: Final[dict[str, str]] = {
    "HTOD": "HtoD", "DTOH": "DtoH", "DTOD": "DtoD", "HTOH": "HtoH", "PTOP": "PtoP",
    "UVM_HTOD": "unified_HtoD", "UVM_DTOH": "unified_DtoH", "UVM_DTOD": "unified_DtoD",
    "HTOA": "array", "ATOH": "array", "ATOA": "array", "ATOD": "array", "DTOA": "array",
}  # fmt: skip
"""nsys's kind -> canonical label; anything else is ``other``."""

ENUM_MEMORY_KIND: Final = "ENUM_CUDA_MEM_KIND"
MEMORY_KINDS: Final[dict[int, str]] = {
    0: "PAGEABLE", 1: "PINNED", 2: "DEVICE", 3: "ARRAY", 4: "MANAGED", 5: "DEVICE_STATIC", 6: "MANAGED_STATIC",
    7: "UNKNOWN",
}  # fmt: skip
MEMORY_KIND_PREFIX: Final = "CUDA_MEMOPR_MEMORY_KIND_"
MEMORY_OF: Final[dict[str, str]] = {
    "PAGEABLE": "pageable", "PINNED": "pinned", "DEVICE": "device", "DEVICE_STATIC": "device", "ARRAY": "array",
    "MANAGED": "managed", "MANAGED_STATIC": "managed",
}  # fmt: skip

NVTX_STYLES: Final[dict[int, str]] = {59: "PushPop", 60: "StartEnd", 70: "PushPop", 71: "StartEnd"}
"""eventType -> style, for ranges; 70 and 71 are the variants with extended payloads."""
NVTX_DOMAIN_CREATE: Final = 75

SEVERITIES: Final[dict[int, str]] = {0: "unknown", 1: "info", 2: "warning", 3: "error", 4: "verbose"}

META_EXPORT: Final = ("META_DATA_EXPORT", "EXPORT_META_DATA")
"""Name, value pairs of the export; the second spelling is that of 2022."""
META_CAPTURE: Final = "META_DATA_CAPTURE"
PROCESSES: Final = "PROCESSES"
TARGET_GPU: Final = "TARGET_INFO_GPU"
TARGET_CUDA_DEVICE: Final = "TARGET_INFO_CUDA_DEVICE"
TARGET_ENVIRONMENT: Final = "TARGET_INFO_SYSTEM_ENV"
SESSION_START: Final = "TARGET_INFO_SESSION_START_TIME"
GPU_METRICS: Final = "GPU_METRICS"
GPU_METRIC_NAMES: Final = "TARGET_INFO_GPU_METRICS"
"""The name of each metric, by ``typeId`` and ``metricId``; the former tells one GPU's samples from another's."""

CAPTURE_EVENT: Final = "CAPTURE_EVENT_TYPE"
"""Capture metadata that names what was collected, one row each; these prove a source even where no row came."""
CAPTURE_EVENT_SOURCE: Final[dict[str, str]] = {"Cuda": "cuda", "OSRuntime": "osrt", "NvtxEvents": "nvtx"}

SIGNATURE_TABLES: Final = frozenset({"StringIds", *TABLE_OF.values(), *META_EXPORT})
"""An SQLite file or a directory without any of these is no nsys export."""

# Where a file names its machine, its user and what they did, for `redact`. All other text is scrubbed by shape.
FACT_TABLES: Final = (*META_EXPORT, META_CAPTURE, TARGET_ENVIRONMENT)
"""Name, value pairs."""
FACT_ENVIRONMENT: Final = ("ENVIRONMENT", "DeviceEnvironment")
"""A fact whose name ends in one of these, or goes on after it, is ``NAME=value`` once or many times, zeros between."""
FACT_HOST: Final = ("Hostname", "DEVICE_DISPLAY_NAME", "EXPORT_HOST", "HOST_NAME")
FACT_CAPTURED_ON: Final = ("Hostname", "HOST_NAME", "DEVICE_DISPLAY_NAME")
"""The machine that was traced, first that is there; the export may have been made on another."""
FACT_RANK: Final = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "RANK")
"""Variables that number a process among those of one job, as launchers set them."""
FACT_USER: Final = ("EXPORT_USER", "USER_NAME", "LAUNCH_USER", "RUN_AS")
FACT_FOLDER: Final = ("WORKING_DIR",)
FACT_COMMAND: Final = ("COMMAND",)
FACT_ARGUMENT: Final = ("ARGUMENT_", "ARGUMENTS")
FACT_PLAIN: Final = (
    "EXPORT_PRODUCT_", "EXPORT_SCHEMA_", "EXPORT_TIME", "CAPTURE_EVENT_TYPE", "OsDescription", "KernelVersion",
    "SoftwareReleaseVersion", "CpuDescription", "CpuInfo", "GpuInfo", "GpuMetrics", "Supported", "LinuxPerfInfo",
    "EventLibSourcesInfo", "HardwarePlatform", "SoftwarePlatform", "CpuArchitecture", "EXPORT_ARCH",
    "PROFILING_SESSION_UUID", "DEVICE_ID", "SYNTHETIC",
)  # fmt: skip
"""Names that begin so carry versions, dates and properties of hardware."""

STRING_NAMES: Final = frozenset({
    "nameId", "demangledName", "shortName", "mangledName", "endNameId", "objectNameId", "funcName", "kernelName",
    "taskName", "providerName", "description", "varName", "apiCallId", "symbol", "CpuInstruction", "textId",
    "categoryId", "colorId", "typeId", "eventNameId",
})  # fmt: skip
"""Columns that refer to strings which events are called by; other columns do when the file's own DDL says so."""
STRING_PATHS: Final = frozenset({"module", "filenameId", "srcFile", "modulePathId", "fileNameId"})
STRING_OUTPUT: Final = frozenset({"contentId"})
STRING_REFERENCE: Final = "REFERENCES StringIds"
STRINGS_ID, STRINGS_VALUE = "id", "value"
OUTPUT_COLUMNS: Final = frozenset({("ANALYSIS_FILE", "content")})
PATH_COLUMNS: Final = frozenset({
    ("ANALYSIS_FILE", "filename"), ("OSRT_FILE_ACCESS_DESCRIPTORS", "filePath"), ("PROCESSES", "name"),
})  # fmt: skip
USER_TEXT_COLUMNS: Final = frozenset({("NVTX_EVENTS", "text"), ("NVTX_EVENTS", "jsonText")})
"""What the program itself called its ranges: data, like the names of kernels."""
MESSAGE_COLUMNS: Final = frozenset({("DIAGNOSTIC_EVENT", "text")})
