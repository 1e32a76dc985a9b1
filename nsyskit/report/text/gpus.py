"""The ledgers of GPUs and of the threads that drive them, gaps and what the CPU did in them, several GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.text import Text

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.devices import DeviceLedger, DevicesResult
from nsyskit.analysis.gaps import GapsResult
from nsyskit.analysis.host_functions import HostFunctionsResult
from nsyskit.analysis.several_gpus import SeveralGpusResult
from nsyskit.analysis.threads import PARTS, ThreadsResult
from nsyskit.report.names import chain, shortened
from nsyskit.report.several_gpus import busy_sentence, copy_rows, phase_sentences, wait_rows
from nsyskit.report.text.layout import Columns, Layout, block_of, clipped, ledger_block, number, table
from nsyskit.units import human_bytes, human_count, human_ns, human_share, printable


@block_of.register
def _devices(result: DevicesResult, layout: Layout) -> RenderableType | None:
    return Group(*(_device(ledger, layout.width) for ledger in result.devices)) if result.devices else None


def _device(ledger: DeviceLedger, width: int) -> RenderableType:
    name = ledger.use.name or f"GPU {ledger.use.device} of process {ledger.use.pids[0]}"
    title = f"{printable(name)}: busy {human_share(ledger.busy_share)} of {human_ns(ledger.window_ns)}"
    busy = {
        "kernel": ledger.kernel_ns, "graph": ledger.graph_ns, "memcpy": ledger.memcpy_ns, "memset": ledger.memset_ns,
    }  # fmt: skip
    parts = busy | {f"idle: {cause}": ledger.idle[cause] for cause in CAUSES}
    return ledger_block(title, parts, ledger.window_ns, width)


@block_of.register
def _threads(result: ThreadsResult, layout: Layout) -> RenderableType | None:
    blocks = []
    for thread in result.threads[: layout.top]:
        title = f"driver thread {thread.tid} {printable(thread.name or '')}"
        parts = {f"{part} (GPU {half})": values[part]
                 for part in PARTS for half, values in (("busy", thread.busy), ("idle", thread.idle))}  # fmt: skip
        blocks.append(ledger_block(title, parts, thread.window.dur_ns, layout.width))
    return Group(*blocks) if blocks else None


@block_of.register
def _gaps(result: GapsResult, layout: Layout) -> RenderableType | None:
    blocks = [
        table(
            f"Longest gaps of {found.use.name or 'GPU'} {found.use.device}", found.longest,
            {
                "length": lambda row: human_ns(row["dur_ns"]),
                "at": lambda row: human_ns(row["start_ns"] - result.window.start_ns),
                "cause": lambda row: _causes(row, 2 if layout.wide else 1),
            },
            layout, name=_between, label="between",
        )
        for found in result.devices
        if found.longest.height
    ]  # fmt: skip
    return Group(*blocks) if blocks else None


def _between(row: Mapping[str, Any]) -> str:
    return f"{shortened(row['before'] or '–')} → {shortened(row['after'] or '–')}"


def _causes(row: Mapping[str, Any], most: int) -> str:
    causes = sorted(((row[cause], cause) for cause in CAUSES if row[cause]), reverse=True)[:most]
    return ", ".join(f"{cause} {human_share(value / row['dur_ns'])}" for value, cause in causes)


@block_of.register
def _host_functions(result: HostFunctionsResult, layout: Layout) -> RenderableType | None:
    blocks: list[RenderableType] = []
    for device in result.devices:
        rows = device.functions.filter((pl.col("cause") == "host") & (pl.col("function") != "[unresolved]")).head(3)
        if rows.height:
            blocks.append(
                Text(printable(f"While {device.use.name or 'the GPU'} idled for the host, its driver threads were in"))
            )
        for row in rows.iter_rows(named=True):
            line = f"  {human_share(row['share'])} of {row['cause']} samples: {row['function']} ({row['module']})"
            blocks.append(clipped(line, layout.width))
        callers = device.callers.filter(pl.col("cause") == "host").head(1)
        blocks += [clipped(f"    under {chain(row)}", layout.width, style="dim") for row in callers["frames"]]
    return Group(*blocks) if blocks else None


@block_of.register
def _several_gpus(result: SeveralGpusResult, layout: Layout) -> RenderableType | None:
    waits: Columns = {
        "idle": lambda row: human_ns(row["idle_ns"]),
        "of the window": lambda row: human_share(row["share"]),
        "handed over": lambda row: human_ns(row["peer_ns"]),
    }
    copied: Columns = {
        "count": lambda row: human_count(row["count"]),
        "bytes": lambda row: human_bytes(row["bytes"]),
        "time": lambda row: human_ns(row["total_ns"]),
        "GB/s": lambda row: number(row["gb_per_s"], 2),
    }
    pairs, between = pl.DataFrame(wait_rows(result)), pl.DataFrame(copy_rows(result))
    blocks: list[RenderableType] = [
        Text("Several GPUs", style="bold"),
        *(Text(printable(line)) for line in (busy_sentence(result), *phase_sentences(result))),
    ]
    if pairs.height:
        blocks.append(table("", pairs, waits, layout, name=lambda row: row["pair"], label="while another was busy"))
    if between.height:
        blocks.append(table("", between, copied, layout, name=lambda row: row["pair"], label="copies between GPUs"))
    return Group(*blocks)
