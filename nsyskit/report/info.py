"""Facts about a trace, as text and as JSON: nothing that names the machine, its user or the target's environment."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from nsyskit.trace import TraceMeta
from nsyskit.units import human_bytes, human_count, human_ns, printable


def info_document(meta: TraceMeta) -> dict[str, Any]:
    """The facts as plain values. The command line is reduced to the program's name: arguments may hold secrets."""
    return {
        "name": meta.name,
        "container": meta.container,
        "nsys_version": meta.nsys_version,
        "export_schema": meta.schema_version,
        "program": _program(meta),
        "captured_at": _captured_at(meta),
        "cuda_graph_trace": meta.capture.cuda_graph_trace,
        "osrt_threshold_ns": meta.capture.osrt_threshold_ns,
        "sources": dict(meta.sources),
        "gpus": [
            {
                "gpu": gpu.gpu, "name": gpu.name, "uuid": gpu.uuid, "memory_bytes": gpu.memory_bytes,
                "memory_bandwidth": gpu.memory_bandwidth, "sm_count": gpu.sm_count,
                "compute_capability": None if gpu.compute_capability is None
                else "{}.{}".format(*gpu.compute_capability),
            }
            for gpu in meta.gpus
        ],
        "tables": dict(meta.tables),
    }  # fmt: skip


def render_info_json(meta: TraceMeta) -> str:
    return json.dumps(info_document(meta), indent=1, ensure_ascii=False) + "\n"


def render_info(meta: TraceMeta) -> str:
    """One fact a line."""
    facts = info_document(meta)
    lines = [
        f"{facts['name']} ({facts['container']})",
        f"nsys        {facts['nsys_version'] or 'unknown: the export names none'}",
        f"schema      {facts['export_schema'] or 'unknown: 2021 or older'}",
        f"program     {facts['program'] or 'unknown'}",
        f"captured    {facts['captured_at'] or 'unknown'}",
        f"collected   {', '.join(name for name, there in meta.sources.items() if there) or 'nothing'}",
    ]
    absent = [name for name, there in meta.sources.items() if not there]
    if absent:
        lines.append(f"absent      {', '.join(absent)}")
    if meta.capture.cuda_graph_trace:
        lines.append(f"graphs      traced by {meta.capture.cuda_graph_trace}")
    if meta.capture.osrt_threshold_ns is not None:
        lines.append(f"OS calls    from {human_ns(meta.capture.osrt_threshold_ns)} on")
    lines += [_gpu_line(gpu) for gpu in facts["gpus"]]
    lines += [f"rows        {human_count(rows):>12}  {table}" for table, rows in facts["tables"].items()]
    return "\n".join(printable(line) for line in lines) + "\n"


def _gpu_line(gpu: dict[str, Any]) -> str:
    memory = f", {human_bytes(gpu['memory_bytes'])}" if gpu["memory_bytes"] else ""
    bandwidth = f" at {human_bytes(gpu['memory_bandwidth'])}/s" if gpu["memory_bandwidth"] else ""
    return f"GPU {gpu['gpu']}       {gpu['name']}{memory}{bandwidth}"


def _program(meta: TraceMeta) -> str | None:
    return meta.capture.command[0].rsplit("/", 1)[-1] if meta.capture.command else None


def _captured_at(meta: TraceMeta) -> str | None:
    start = meta.capture.session_start_utc_ns
    return None if start is None else datetime.fromtimestamp(start // 10**9, tz=UTC).isoformat().replace("+00:00", "Z")
