"""CUDA calls: what the synchronizing ones waited for, and how far launches run ahead of the GPU."""

from __future__ import annotations

from dataclasses import asdict

from nsyskit.analysis.launch import LaunchResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.report.figures import drawing
from nsyskit.report.page.elements import NOTHING, Html, join, note, tag, text
from nsyskit.report.page.sections import Sections, block
from nsyskit.report.page.tables import count, ns, share, table, words
from nsyskit.report.words import SYNC_CLASSES
from nsyskit.units import human_count, human_share


@block.register
def _sync(result: SyncResult, made: Sections, name: str) -> Html:
    if result.share_of_api is None:
        return made.nothing("No CUDA API call in this window.")
    told = [
        (
            f"Synchronizing functions are {human_share(result.share_of_api)} of all time in CUDA calls "
            f"({human_share(result.sync_copy_share)} with copies that blocked)."
        )
    ]
    if result.wait_share is not None:
        told.append(
            f"During {human_share(result.wait_share)} of the driver threads' sync time a GPU they feed was busy: "
            "that part is waiting for work, not a loss."
        )
    classes = table(
        "What synchronizing calls waited for",
        result.by_class,
        [
            words("class", lambda row: row["class"]),
            words("meaning", lambda row: SYNC_CLASSES[row["class"]]),
            count("calls", "calls"),
            ns("total", "total_ns"),
        ],
    )
    calls = table(
        "CUDA calls",
        result.by_api,
        [
            words("call", lambda row: row["name"] or ""),
            share("of API time", "share_of_api"),
            ns("total", "total_ns"),
            count("calls", "calls"),
            words("class", lambda row: row["class"] or ""),
        ],
    )
    plot = made.drawn(name, drawing(result), "Sync time by what the calls waited for")
    return join([*(tag("p", text(line)) for line in told), plot, classes, calls])


@block.register
def _launch(result: LaunchResult, made: Sections, name: str) -> Html:
    if not result.launches and not result.graph.launches:
        return made.nothing("Nothing was launched in this window.")
    told = [f"{human_count(result.launches)} launch calls, {human_count(result.pairs)} kernels paired with theirs."]
    if result.shorter_than_launch_share is not None:
        told.append(
            f"{human_share(result.shorter_than_launch_share)} of kernels are shorter than their own launch call."
        )
    if result.orphans:
        told.append(f"{human_count(result.orphans)} GPU operations have no API row.")
    if result.excluded_capture:
        told.append(f"{human_count(result.excluded_capture)} launches only recorded a graph and are left out.")
    parts = {
        "launch call": result.api_ns,
        "queue": result.queue_ns,
        "kernel": result.kern_ns,
        "call to end of kernel": result.total_ns,
    }
    rows = [{"part": part, **asdict(values)} for part, values in parts.items()]
    quantiles = table(
        "Launches",
        rows,
        [
            words("part", lambda row: row["part"]),
            ns("p50", "p50"),
            ns("p90", "p90"),
            ns("p99", "p99"),
            ns("mean", "mean"),
        ],
    )
    plot = (
        made.drawn(name, drawing(result), "Quantiles of launch calls, queue times and kernels")
        if result.pairs
        else NOTHING
    )
    return join([tag("p", text(" ".join(told))), plot, quantiles, _graphs(result)])


def _graphs(result: LaunchResult) -> Html:
    graph = result.graph
    if not graph.launches:
        return note("No CUDA graph was launched in this window.")
    rows = [
        {"what": "launches", "count": graph.launches},
        {"what": "recorded as a whole: their kernels are hidden", "count": graph.whole},
        {"what": "recorded node by node", "count": graph.recorded - graph.whole},
        {"what": "left no row: what they ran is unknown", "count": graph.launches - graph.recorded},
        {"what": "captures", "count": graph.captures},
        {"what": "instantiations", "count": graph.instantiations},
        {"what": "updates", "count": graph.updates},
        {"what": "destroys", "count": graph.destroys},
    ]
    how = "node by node" if graph.node_level else "as a whole"
    told = tag("p", text(f"Graphs were traced {how}; {human_share(graph.coverage)} of their launches left rows."))
    return join([told, table("CUDA graphs", rows, [words("what", lambda row: row["what"]), count("count", "count")])])
