"""GPUs with their gaps and what the CPU did in them, and several GPUs, as plain values."""

from __future__ import annotations

from typing import Any

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.gaps import GapsResult
from nsyskit.analysis.host_functions import HostFunctionsResult
from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.report.json.plain import rows, section, span


@section.register
def _devices(result: DevicesResult) -> Any:
    return [device(ledger) for ledger in result.devices]


def device(ledger: DeviceLedger) -> dict[str, Any]:
    """The ledger of one device."""
    return {
        "gpu": ledger.use.gpu,
        "name": ledger.use.name,
        "processes": list(ledger.use.pids),
        "device": ledger.use.device,
        "window_ns": ledger.window_ns,
        "busy_ns": ledger.busy_ns,
        "kernel_ns": ledger.kernel_ns,
        "graph_ns": ledger.graph_ns,
        "memcpy_ns": ledger.memcpy_ns,
        "memset_ns": ledger.memset_ns,
        "idle_ns": ledger.idle_ns,
        "overlap_ns": ledger.overlap_ns,
        "kernel_sum_ns": ledger.kernel_sum_ns,
        "idle": {cause: ledger.idle[cause] for cause in CAUSES},
    }


def add_host_functions(
    documents: list[dict[str, Any]], devices: DevicesResult, found: HostFunctionsResult | None
) -> None:
    """Tell each device's document what the CPU did while it idled."""
    by_use = {explained.use: explained for explained in found.devices} if found else {}
    for target, ledger in zip(documents, devices.devices, strict=True):
        if ledger.use in by_use:
            explained = by_use[ledger.use]
            target["host_functions"] = rows(explained.functions)
            target["host_callers"] = rows(explained.callers)
            target["host_waits"] = rows(explained.waits)
            target["host_running_ns"] = explained.running_ns
            target["host_descheduled_ns"] = explained.descheduled_ns


def add_gaps(documents: list[dict[str, Any]], devices: DevicesResult, gaps: GapsResult | None) -> None:
    """Tell each device's document its gaps."""
    if gaps is None:
        return
    by_use = {found.use: found for found in gaps.devices}
    for target, ledger in zip(documents, devices.devices, strict=True):
        found = by_use[ledger.use]
        target["gaps"] = [
            {
                "start_ns": row["start_ns"], "dur_ns": row["dur_ns"],
                "causes": {cause: row[cause] for cause in CAUSES if row[cause]},
                "before": row["before"], "after": row["after"],
            }
            for row in found.longest.iter_rows(named=True)
        ]  # fmt: skip
        target["gap_hist"] = rows(found.hist)


@section.register
def _several_gpus(result: SeveralGpusResult) -> Any:
    tables = ("busy_count", "busy_sets", "waits", "copies", "work", "by_phase", "steps")
    return {
        "window": span(result.window),
        "gpus": [
            {"gpu": use.gpu, "name": use.name, "device": use.device, "processes": list(use.pids)} for use in result.uses
        ],
        **{name: rows(getattr(result, name)) for name in tables},
        "imbalance": {
            phase: {"steps": one.steps, "p50": one.p50, "max": one.max} for phase, one in result.imbalance.items()
        },
    }
