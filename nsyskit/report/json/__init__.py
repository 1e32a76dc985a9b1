"""The JSON document ``nsyskit.analysis/1``: stable names, sorted lists, nothing of the target's environment."""

from __future__ import annotations

import json
from typing import Any

from nsyskit.analysis.analyze import Report
from nsyskit.analysis.devices import DevicesResult
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.threads import ThreadsResult
from nsyskit.report.json import calls, program, steps  # noqa: F401 - they register their results
from nsyskit.report.json.gpus import add_gaps, add_host_functions
from nsyskit.report.json.plain import rows, section, span
from nsyskit.report.schemas import shipped_schema
from nsyskit.trace import TraceMeta, Window

__all__ = ["SCHEMA", "document", "json_schema", "render_json", "section"]

SCHEMA = "nsyskit.analysis/1"
_OF_STEPS = frozenset({"steps", "phases"})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, shipped with the package."""
    return shipped_schema("analysis")


def render_json(report: Report) -> str:
    """The document as text; keys in the order of the contract."""
    return json.dumps(document(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The document as plain values. A section without a source is None; one not asked for is absent.

    Every single step is told only where steps were asked for by name.
    """
    body: dict[str, Any] = {
        "schema": SCHEMA,
        "trace": _trace(report.meta, report.window, report),
        "trust": [{"level": note.level, "code": note.code, "message": note.message} for note in report.trust],
    }
    for name, result in report.sections.items():
        if name in {"gaps", "host_functions"}:  # they are told within their device
            continue
        body["mem_hist" if name == "copies" else name] = None if result is None else section(result)
    if report.named & _OF_STEPS and report.sections.get("steps") is not None:
        body["steps"]["steps"] = rows(report.sections["steps"].steps)  # tens of MB of a long trace
    devices = report.sections.get("devices")
    if devices is not None:
        add_gaps(body["devices"], devices, report.sections.get("gaps"))
        add_host_functions(body["devices"], devices, report.sections.get("host_functions"))
    if report.verdict is not None:
        body["verdict"] = section(report.verdict)
    return body


def _trace(meta: TraceMeta, window: Window | None, report: Report) -> dict[str, Any]:
    active = _active_pids(report)
    return {
        "name": meta.name,
        "nsys_version": meta.nsys_version,
        "export_schema": meta.schema_version,
        "sources": dict(meta.sources),
        "gpus": [
            {"gpu": gpu.gpu, "name": gpu.name, "uuid": gpu.uuid, "memory_bandwidth": gpu.memory_bandwidth}
            for gpu in meta.gpus
        ],
        "processes": [{"pid": pid, "program": meta.program_of(pid)} for pid in sorted(active)],
        "tables": dict(meta.tables),
        "window": None if window is None else span(window),
    }


def _active_pids(report: Report) -> set[int]:
    """Processes that appear in the results; nsys names every process of the machine."""
    pids: set[int] = set()
    for result in report.sections.values():
        if isinstance(result, OsThreadsResult | ThreadsResult):
            pids |= {thread.pid for thread in result.threads}
        elif isinstance(result, DevicesResult):
            pids |= {pid for ledger in result.devices for pid in ledger.use.pids}
    return pids
