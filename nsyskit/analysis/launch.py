"""Launch overhead and CUDA-graph health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.launches import launch_calls
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import ROW, api_calls, api_names, gpu_ops, handing, op_calls
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.trace import Trace, Window

GRAPH_CALLS: Final = {
    "launches": "^(cuda|cu)GraphLaunch",
    "captures": "^(cuda|cu)StreamEndCapture",
    "instantiations": "^(cuda|cu)GraphInstantiate",
    "updates": "^(cuda|cu)GraphExec.*Update|^(cuda|cu)GraphExecUpdate",
    "destroys": "^(cuda|cu)GraphExecDestroy",
}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """p50, p90, p99 (nearest observed value) and the mean, in ns; None where nothing was measured."""

    p50: int | None
    p90: int | None
    p99: int | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class GraphHealth:
    """Calls of each kind that start in the window.

    ``recorded`` are launches that left a whole-graph row or node rows; ``coverage`` is their share, None without
    launches. ``whole`` of them left a whole-graph row, which hides its kernels. ``node_level`` tells whether kernels
    inside graphs are visible, one by one.
    """

    launches: int
    captures: int
    instantiations: int
    updates: int
    destroys: int
    recorded: int
    whole: int
    node_level: bool

    @property
    def coverage(self) -> float | None:
        return self.recorded / self.launches if self.launches else None


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """Correlated pairs of launch call and kernel whose call starts in the window.

    Attributes:
        pairs: kernels with a launch call.
        api_ns, kern_ns: quantiles of the call's and of the kernel's duration.
        queue_ns: of ``kernel start − call end`` where not negative; later nodes of a graph replay have none.
        total_ns: of ``max(both ends) − call start``.
        shorter_than_launch_share: share of pairs whose kernel is shorter than its own launch call.
        orphans: GPU operations in the window without an API row.
        excluded_capture: launch calls between begin and end of a capture on their thread: they leave no GPU row.
        launches: launch calls in the window, captures left out.
    """

    window: Window
    pairs: int
    launches: int
    api_ns: Quantiles
    queue_ns: Quantiles
    kern_ns: Quantiles
    total_ns: Quantiles
    shorter_than_launch_share: float | None
    orphans: int
    excluded_capture: int
    graph: GraphHealth


@once_per_trace
def launch(trace: Trace, *, window: Window | None = None) -> LaunchResult:
    """Launch pairs and graph health.

    Raises:
        MissingTableError: CUDA was not collected.
    """
    if not trace.meta.sources.get("cuda", False):
        raise MissingTableError("CUDA launches", hint="capture with --trace=cuda")
    window = window or default_window(trace)
    inside = pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left")
    pairs = launch_pairs(trace, window)
    calls = launch_calls(trace).filter(inside)
    shorter = pairs.filter(pl.col("kern_ns") < pl.col("api_ns")).height
    return LaunchResult(
        window=window,
        pairs=pairs.height,
        launches=calls.filter(~pl.col("captured")).height,
        api_ns=_quantiles(pairs["api_ns"]),
        queue_ns=_quantiles(pairs["queue_ns"]),
        kern_ns=_quantiles(pairs["kern_ns"]),
        total_ns=_quantiles(pairs["total_ns"]),
        shorter_than_launch_share=shorter / pairs.height if pairs.height else None,
        orphans=gpu_ops(trace).filter(inside & pl.col("call").is_null()).height,
        excluded_capture=calls.filter("captured").height,
        graph=_graph_health(trace, window),
    )


def launch_pairs(trace: Trace, window: Window) -> pl.DataFrame:
    """Kernels whose launch call starts in the window: ``call api_ns queue_ns kern_ns total_ns``."""
    pairs = op_calls(trace).select("start_ns", "end_ns", "kind", "call", "call_start_ns", "call_end_ns")
    launched = pl.col("call_start_ns").is_between(window.start_ns, window.end_ns, "left")
    pairs = pairs.filter((pl.col("kind") == "kernel") & launched)
    wait = pl.col("start_ns") - pl.col("call_end_ns")
    first_of_call = pl.col("call").is_first_distinct()
    return pairs.select(
        "call",
        api_ns=pl.col("call_end_ns") - pl.col("call_start_ns"),
        # the wait of a replay's later nodes holds the work of its earlier ones
        queue_ns=pl.when((wait >= 0) & first_of_call).then(wait),
        kern_ns=pl.col("end_ns") - pl.col("start_ns"),
        total_ns=pl.max_horizontal("end_ns", "call_end_ns") - pl.col("call_start_ns"),
    )


def _graph_health(trace: Trace, window: Window) -> GraphHealth:
    names = api_names(trace)
    calls = api_calls(trace).select("start_ns", "name_id", call=pl.int_range(pl.len(), dtype=ROW))
    calls = calls.filter(pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left"))
    by_kind = {
        kind: calls.join(names.filter(pl.col("base_name").str.contains(pattern)), on="name_id", how="semi")
        for kind, pattern in GRAPH_CALLS.items()
    }
    whole = gpu_ops(trace).filter(pl.col("kind") == "graph")["call"].drop_nulls().unique()
    by_graph = set(names.filter(pl.col("base_name").str.contains(GRAPH_CALLS["launches"]))["name_id"])
    nodes = by_graph and op_calls(trace).filter(
        (pl.col("kind") == "kernel") & pl.col("call_name_id").is_in(list(by_graph))
    ).height  # fmt: skip
    return GraphHealth(
        **{kind: rows.height for kind, rows in by_kind.items()},
        recorded=by_kind["launches"].filter(handing(trace)[by_kind["launches"]["call"]]).height,
        whole=by_kind["launches"].filter(pl.col("call").is_in(whole.implode())).height,
        node_level=bool(nodes),
    )


def _quantiles(values: pl.Series) -> Quantiles:
    known = values.drop_nulls()
    if known.is_empty():
        return Quantiles(None, None, None, None)
    p50, p90, p99 = (int(known.quantile(q, interpolation="nearest") or 0) for q in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, float(known.mean()))  # type: ignore[arg-type]
