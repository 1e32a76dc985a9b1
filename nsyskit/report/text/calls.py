"""Calls of the CPU: synchronizing, launching, and the OS runtime by thread."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from nsyskit.analysis.launch import LaunchResult, Quantiles
from nsyskit.analysis.os_threads import OsThreadsResult
from nsyskit.analysis.sync import SyncResult
from nsyskit.report.names import chain
from nsyskit.report.text.layout import Layout, block_of, clipped, table
from nsyskit.report.words import SYNC_CLASSES
from nsyskit.units import human_count, human_ns, human_share


@block_of.register
def _sync(result: SyncResult, layout: Layout) -> RenderableType | None:
    if result.share_of_api is None:
        return None
    told = (
        f"{human_share(result.share_of_api)} of API time in synchronize calls, "
        f"{human_share(result.sync_copy_share)} with blocking copies."
    )
    if result.wait_share is not None:
        told += f" Of the sync time of driver threads the GPU was busy {human_share(result.wait_share)}."
    by_class = table(
        "", result.by_class,
        {"calls": lambda row: human_count(row["calls"]), "total": lambda row: human_ns(row["total_ns"])},
        layout, name=lambda row: f"{row['class']}: {_meaning(row['class'])}",
    )  # fmt: skip
    return Group(Text("Sync", style="bold"), Text(told), by_class)


def _meaning(sync_class: str) -> str:
    return SYNC_CLASSES[sync_class].removesuffix(": healthy")  # the class and its meaning have a colon between them


@block_of.register
def _launch(result: LaunchResult, _layout: Layout) -> RenderableType | None:
    if not result.launches and not result.graph.launches:
        return None
    counts = f"{human_count(result.launches)} launch calls, {human_count(result.pairs)} kernels paired"
    parts = {"call": result.api_ns, "queue": result.queue_ns, "kernel": result.kern_ns}
    lines = [f"{counts}; {', '.join(f'{name} {_quantile_text(values)}' for name, values in parts.items())}"]
    if result.shorter_than_launch_share is not None:
        lines.append(
            f"{human_share(result.shorter_than_launch_share)} of kernels are shorter than their own launch call"
        )
    if result.excluded_capture:
        lines.append(f"{human_count(result.excluded_capture)} launches only recorded a graph and are left out")
    graph = result.graph
    if graph.launches:
        lines.append(
            f"{human_count(graph.launches)} graph launches ({human_share(graph.coverage)} recorded), "
            f"{graph.captures} captures, {graph.instantiations} instantiations, {graph.updates} updates, "
            f"{graph.destroys} destroys"
        )
    return Group(Text("Launch", style="bold"), *(Text(line) for line in lines))


def _quantile_text(values: Quantiles) -> str:
    return "–" if values.p50 is None or values.p99 is None else f"p50 {human_ns(values.p50)} p99 {human_ns(values.p99)}"


@block_of.register
def _os_threads(result: OsThreadsResult, layout: Layout) -> RenderableType | None:
    shown = result.threads[: layout.top]
    if not shown:
        return None
    blocks: list[RenderableType] = [Text("OS runtime by thread", style="bold")]
    for thread in shown:
        mark = " (drives a GPU)" if thread.driver else ""
        calls = ", ".join(
            f"{row['name']} {human_ns(row['total_ns'])} ×{row['count']}"
            for row in thread.calls.head(4).iter_rows(named=True)
        )
        head = f"{thread.tid} {thread.name or ''}{mark}: {human_ns(thread.total_ns)} of {human_ns(thread.span_ns)}"
        blocks.append(clipped(f"{head}  {calls}", layout.width))
        blocks += [
            clipped(f"    {human_ns(row['total_ns'])} under {chain(row['frames'])}", layout.width, style="dim")
            for row in thread.chains.head(2).iter_rows(named=True)
        ]
    hidden = len(result.threads) - len(shown) + result.more
    if hidden > 0:
        blocks.append(Text(f"… and {hidden} more threads", style="dim"))
    return Group(*blocks)
