"""Launch overhead and CUDA-graph health."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.launches import GRAPH_LAUNCH, LAUNCH, launched, rows_named, within
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import api_calls, api_names, gpu_ops, handing, op_calls
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.frames import selected, summed
from nsyskit.trace import Trace, Window

GRAPH_CALLS: Final = {
    "launches": GRAPH_LAUNCH,
    "captures": "^(cuda|cu)StreamEndCapture",
    "instantiations": "^(cuda|cu)GraphInstantiate",
    "updates": "^(cuda|cu)GraphExec.*Update|^(cuda|cu)GraphExecUpdate",
    "destroys": "^(cuda|cu)GraphExecDestroy",
}


_WAIT: Final = pl.col("start_ns") - pl.col("call_end_ns")
PAIR: Final = {
    "call": pl.col("call"),
    "api_ns": pl.col("call_end_ns") - pl.col("call_start_ns"),
    # the wait of a replay's later nodes holds the work of its earlier ones
    "queue_ns": pl.when((_WAIT >= 0) & pl.col("first")).then(_WAIT),
    "kern_ns": pl.col("end_ns") - pl.col("start_ns"),
    "total_ns": pl.max_horizontal("end_ns", "call_end_ns") - pl.col("call_start_ns"),
}
"""Columns of ``launch_pairs``."""


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
    launches, named = (within(trace, rows, window) for rows in (launched(trace), rows_named(trace, LAUNCH)))
    quantiles: dict[str, Quantiles] = {}
    for name in ("api_ns", "queue_ns", "kern_ns", "total_ns"):  # all pairs at once would be the largest frame of all
        quantiles[name] = _quantiles(launch_pairs(trace, window, [name], narrow=True).to_series())
    pairs, shorter = summed(
        _kernels(trace), _in(window).sum(), (_in(window) & (PAIR["kern_ns"] < PAIR["api_ns"])).sum()
    )
    return LaunchResult(
        window=window,
        pairs=pairs,
        launches=len(launches),
        **quantiles,
        shorter_than_launch_share=shorter / pairs if pairs else None,
        orphans=_orphans(trace, window),
        excluded_capture=len(named) - len(launches),
        graph=_graph_health(trace, window),
    )


def launch_pairs(
    trace: Trace, window: Window, columns: Sequence[str] = tuple(PAIR), *, narrow: bool = False
) -> pl.DataFrame:
    """Kernels whose launch call starts in the window: ``call api_ns queue_ns kern_ns total_ns``, or some of these.

    Times are Int64, or as narrow as the largest allows.
    """
    return selected(_kernels(trace), _in(window), narrow=narrow, **{name: PAIR[name] for name in columns})


@once_per_trace
def _kernels(trace: Trace) -> pl.DataFrame:
    """``op_calls``, and whether each is the first kernel of its call: of a replay, nearly all are not."""
    ops = op_calls(trace)
    alone = gpu_ops(trace)["call"].count() == handing(trace).sum()
    call = pl.when(pl.col("kind") == "kernel").then("call")
    return ops.with_columns(first=pl.lit(value=True) if alone else call.is_first_distinct())


def _in(window: Window) -> pl.Expr:
    begun = pl.col("call_start_ns").is_between(window.start_ns, window.end_ns, "left").fill_null(value=False)
    return (pl.col("kind") == "kernel") & begun


def _orphans(trace: Trace, window: Window) -> int:
    ops = gpu_ops(trace)
    if not ops["call"].null_count():
        return 0
    starts = pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left")
    return ops.filter(starts & pl.col("call").is_null()).height


def _graph_health(trace: Trace, window: Window) -> GraphHealth:
    rows = {kind: within(trace, rows_named(trace, pattern), window) for kind, pattern in GRAPH_CALLS.items()}
    whole = gpu_ops(trace).filter(pl.col("kind") == "graph")["call"].drop_nulls().unique()
    by_graph = api_names(trace).filter(pl.col("base_name").str.contains(GRAPH_CALLS["launches"]))["name_id"]
    called = pl.lit(api_calls(trace)["name_id"]).gather("call")
    of_graphs = (pl.col("kind") == "kernel") & called.is_in(by_graph.implode())
    (nodes,) = summed(op_calls(trace), of_graphs.sum()) if len(by_graph) else (0,)
    return GraphHealth(
        **{kind: len(calls) for kind, calls in rows.items()},
        recorded=int(handing(trace)[rows["launches"]].sum()),
        whole=int(rows["launches"].is_in(whole.implode()).sum()),
        node_level=bool(nodes),
    )


def _quantiles(values: pl.Series) -> Quantiles:
    known = values.drop_nulls()
    if known.is_empty():
        return Quantiles(None, None, None, None)
    mean = float(known.mean())  # type: ignore[arg-type]
    p50, p90, p99 = _ranked(known, [int((len(known) - 1) * share + 0.5) for share in (0.5, 0.9, 0.99)])
    return Quantiles(p50, p90, p99, mean)


def _ranked(values: pl.Series, ranks: Sequence[int]) -> Iterator[int]:
    """The values at ascending ranks. What lies below one is not looked at for the next."""
    below = 0
    for rank in ranks:
        share = (rank - below) / max(len(values) - 1, 1)
        found = int(values.quantile(share, interpolation="nearest") or 0)
        yield found
        rest = values.filter(values >= found)
        below += len(values) - len(rest)
        values = rest
