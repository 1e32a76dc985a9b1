"""Stretches in which a GPU did nothing, with what the CPU did meanwhile."""

from __future__ import annotations

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.gaps import DeviceGaps, GapsResult
from nsyskit.analysis.host_functions import DeviceHostFunctions, HostFunctionsResult
from nsyskit.analysis.timeline import gpu_label
from nsyskit.report.figures import drawing
from nsyskit.report.names import chain
from nsyskit.report.page.elements import NOTHING, Html, join, tag, text
from nsyskit.report.page.names import cut, operation
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import Column, Row, count, ns, share, table, words
from nsyskit.units import human_ns, human_share


@block.register
def _gaps(result: GapsResult, made: Sections, name: str) -> Html:
    plot = made.drawn(name, drawing(result), "Idle time by the length of the gap") if result.devices else NOTHING
    return join([plot, *(_longest(device, result.window.start_ns) for device in result.devices)])


@block.register
def _host_functions(result: HostFunctionsResult, made: Sections, name: str) -> Html:
    pieces = [_explained(device) for device in result.devices]
    if any(device.functions.height for device in result.devices):
        pieces.insert(0, made.drawn(name, drawing(result), "Functions that ran on the CPU while the GPU idled"))
    return join(pieces)


def _longest(device: DeviceGaps, origin: int) -> Html:
    return table(
        f"Longest bubbles of {gpu_label(device.use)}",
        device.longest,
        [
            Column("length", lambda row: row["dur_ns"], human_ns),
            Column("at", lambda row: row["start_ns"] - origin, human_ns, hint="from the window's start"),
            words("causes", _cause_split),
            operation("operation before", "before", 60, absent="–"),
            operation("operation after", "after", 60, absent="–"),
        ],
    )


def _cause_split(row: Row) -> str:
    """A gap's three largest causes: ``host 80.0 %, sync 20.0 %``."""
    causes = sorted((-row[cause], cause) for cause in CAUSES if row[cause])[:3]
    return ", ".join(f"{cause} {human_share(-value / row['dur_ns'])}" for value, cause in causes)


def _explained(device: DeviceHostFunctions) -> Html:
    name = gpu_label(device.use)
    pieces = []
    if device.running_ns is not None and device.descheduled_ns is not None:
        told = (
            f"Of the time {name} idled for the CPU, a driver thread was running {human_ns(device.running_ns)} "
            f"and none was {human_ns(device.descheduled_ns)}."
        )
        pieces.append(tag("p", text(told)))
    if device.functions.height:
        pieces.append(
            table(
                f"CPU functions while {name} idled",
                device.functions,
                [
                    words("function", lambda row: cut(row["function"]), full=lambda row: row["function"]),
                    words("module", lambda row: row["module"] or ""),
                    words("cause", lambda row: row["cause"]),
                    share("of the cause's samples", "share"),
                    count("samples", "samples"),
                ],
            )
        )
    if device.waits.height:
        pieces.append(
            table(
                f"OS calls while {name} idled",
                device.waits,
                [
                    words("call", lambda row: row["name"]),
                    ns("idle time", "total_ns"),
                    count("count", "count"),
                    words("under", lambda row: cut(_chain(row["frames"])), full=lambda row: _chain(row["frames"], 20)),
                ],
            )
        )
    return join(pieces)


def _chain(frames: list[str] | None, most: int = 4) -> str:
    return chain(frames or [], most, otherwise="–")
