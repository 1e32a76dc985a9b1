"""The facts about a trace. What names the user's machine or environment stays in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import polars as pl

from nsyskit import nsys_schema as nsys
from nsyskit.ingest.source import RawSource
from nsyskit.schema import SOURCES
from nsyskit.trace import CaptureFacts, Gpu, Process, TraceMeta

_GPU_NUMBERS = {
    "memoryBandwidth": "memory_bandwidth",
    "totalMemory": "memory_bytes", "smCount": "sm_count", "clockRate": "clock_hz",
}  # fmt: skip


def read_meta(
    source: RawSource, *, name: str, container: Literal["sqlite", "parquet", "rep"], tables: Mapping[str, int]
) -> TraceMeta:
    """Gather ``TraceMeta`` from the small tables; of the large ones it looks whether they hold anything."""
    export = _pairs(source, next((table for table in nsys.META_EXPORT if source.columns(table)), ""))
    capture = _pairs(source, nsys.META_CAPTURE)
    gpus = _gpus(source)
    return TraceMeta(
        name=name,
        container=container,
        nsys_version=_first(export, "EXPORT_PRODUCT_VERSION"),
        schema_version=_first(export, "EXPORT_SCHEMA_VERSION"),
        sources=_sources(source, capture),
        gpus=gpus,
        devices=_devices(source),
        ordinals=_ordinals(source, gpus, capture),
        processes=_processes(source),
        capture=_capture_facts(source, capture),
        tables=tables,
    )


def _pairs(source: RawSource, table: str) -> list[tuple[str, str]]:
    if not {"name", "value"} <= source.columns(table):
        return []
    return [(name, value) for name, value in source.read(table, ["name", "value"]).iter_rows()]


def _first(pairs: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in pairs if key == name and value), None)


def _sources(source: RawSource, capture: list[tuple[str, str]]) -> dict[str, bool]:
    declared = {nsys.CAPTURE_EVENT_SOURCE.get(value) for name, value in capture if name == nsys.CAPTURE_EVENT}
    tables = {what: [nsys.TABLE_OF[table] for table in members] for what, members in SOURCES.items()}
    tables["gpu_metrics"] = [nsys.GPU_METRICS]
    return {what: what in declared or any(source.has_rows(table) for table in of) for what, of in tables.items()}


def _gpus(source: RawSource) -> tuple[Gpu, ...]:
    present = source.columns(nsys.TARGET_GPU)
    if "id" not in present:
        return ()
    wanted = ["id", "name", "uuid", *_GPU_NUMBERS, "computeMajor", "computeMinor"]
    frame = source.read(nsys.TARGET_GPU, [column for column in wanted if column in present])
    return tuple(_gpu(row) for row in frame.sort("id").iter_rows(named=True))


def _gpu(row: dict[str, int | str | None]) -> Gpu:
    numbers = {field: int(row[column]) for column, field in _GPU_NUMBERS.items() if row.get(column)}  # type: ignore[arg-type]
    major, minor = row.get("computeMajor"), row.get("computeMinor")
    capability = (int(major), int(minor)) if major is not None and minor is not None else None
    return Gpu(
        gpu=int(row["id"] or 0),
        name=str(row.get("name") or "unknown GPU"),
        uuid=str(row["uuid"]) if row.get("uuid") else None,
        compute_capability=capability,
        **numbers,
    )


def _devices(source: RawSource) -> dict[tuple[int, int], int]:
    """(pid, CUDA ordinal) -> physical GPU, from the file's own table of them."""
    if not {"pid", "cudaId", "gpuId"} <= source.columns(nsys.TARGET_CUDA_DEVICE):
        return {}
    rows = source.read(nsys.TARGET_CUDA_DEVICE, ["pid", "cudaId", "gpuId"]).drop_nulls()
    return {(pid, ordinal): gpu for pid, ordinal, gpu in rows.iter_rows()}


def _ordinals(source: RawSource, gpus: tuple[Gpu, ...], capture: list[tuple[str, str]]) -> dict[int, int]:
    """CUDA ordinal -> physical GPU for processes that the file's table does not list.

    nsys's own numbering holds in the process only where nothing can be hidden from it: on a machine with one GPU, or
    where the environment was recorded and hides none.
    """
    if len(gpus) != 1 and not _nothing_hidden(source, capture):
        return {}
    if not {"id", "cuDevice"} <= source.columns(nsys.TARGET_GPU):
        return {}
    return {ordinal: gpu for gpu, ordinal in source.read(nsys.TARGET_GPU, ["id", "cuDevice"]).drop_nulls().iter_rows()}


def _nothing_hidden(source: RawSource, capture: list[tuple[str, str]]) -> bool:
    recorded = [value for name, value in capture if name.endswith(":ENVIRONMENT_VARIABLE")]
    recorded += [value for name, value in _pairs(source, nsys.TARGET_ENVIRONMENT) if name == "DeviceEnvironment"]
    recorded = [text for text in recorded if text]
    return bool(recorded) and not any("CUDA_VISIBLE_DEVICES=" in text for text in recorded)


def _processes(source: RawSource) -> tuple[Process, ...]:
    if not {"globalPid", "name"} <= source.columns(nsys.PROCESSES):
        return ()
    frame = source.read(nsys.PROCESSES, ["globalPid", "name"]).drop_nulls("globalPid")
    named = {(value >> 24) & 0xFFFFFF: _program(name) for value, name in frame.iter_rows()}
    return tuple(Process(pid=pid, program=named[pid]) for pid in sorted(named))


def _program(name: str | None) -> str | None:
    """A program's name without its folders: they may name a user."""
    return re.split(r"[/\\]", name)[-1] if name else None


def _capture_facts(source: RawSource, capture: list[tuple[str, str]]) -> CaptureFacts:
    mode = next((value.lower() for name, value in capture if name.endswith("CUDA_GRAPH_TRACE_OPTIONS:MODE")), "")
    threshold = _first(capture, "OS_RUNTIME_OPTIONS:DURATION_THRESHOLD_NS")
    return CaptureFacts(
        command=_command(capture),
        cuda_graph_trace="graph" if mode.startswith("graph") else "node" if mode.startswith("node") else None,
        osrt_threshold_ns=int(threshold) if threshold and threshold.isdigit() else None,
        session_start_utc_ns=_session_start(source),
        events=tuple(value for name, value in capture if name == nsys.CAPTURE_EVENT),
        host=_host([*_pairs(source, nsys.TARGET_ENVIRONMENT), *capture]),
        rank=_rank(capture),
    )


def _host(facts: list[tuple[str, str]]) -> str | None:
    """The machine's name; what ``redact`` left in its place is none."""
    for wanted in nsys.FACT_CAPTURED_ON:
        for name, value in facts:
            if re.fullmatch(rf"(.*[:_])?{wanted}", name) and value and value[0].isalnum():
                return value
    return None


def _rank(capture: list[tuple[str, str]]) -> int | None:
    variables = [value for name, value in capture if name.endswith(":ENVIRONMENT_VARIABLE") and value]
    told = {variable: number for variable, _, number in (text.partition("=") for text in variables)}
    return next((int(told[name]) for name in nsys.FACT_RANK if told.get(name, "").isdecimal()), None)


def _command(capture: list[tuple[str, str]]) -> tuple[str, ...]:
    program = _first(capture, "PROCESS_0:COMMAND")
    arguments = {
        int(match[1]): value
        for name, value in capture
        if (match := re.fullmatch(r"PROCESS_0:ARGUMENT_(\d+)", name)) and value is not None
    }
    return (program, *(arguments[index] for index in sorted(arguments))) if program else ()


def _session_start(source: RawSource) -> int | None:
    if "utcEpochNs" not in source.columns(nsys.SESSION_START):
        return None
    value = source.read(nsys.SESSION_START, ["utcEpochNs"]).select(pl.col("utcEpochNs").first())
    return int(value.item()) if value.height and value.item() is not None else None
