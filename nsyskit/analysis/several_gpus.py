"""Several GPUs in one trace: how many work at a time, which waits for which, what passes between them, who has more.

llama.cpp splits a model by layers (one GPU works while the others wait, unless prompts fill the pipeline) or by
tensors. GPUs are told apart by their place in ``SeveralGpusResult.uses``: columns called ``place``, ``waiting``,
``other``, ``source`` and ``target`` hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.causes import idle_by_cause
from nsyskit.analysis.copies import copy_purposes
from nsyskit.analysis.devices import device_pieces
from nsyskit.analysis.gpus import GpuUse, busy_of, gpu_uses, idle_of
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.steps import find_steps, op_steps
from nsyskit.analysis.windows import default_window
from nsyskit.errors import MissingTableError
from nsyskit.intervals import cover_sets, intersect, length, union
from nsyskit.trace import Trace, Window

OUTSIDE: Final = "outside steps"
_DUR: Final = pl.col("end_ns") - pl.col("start_ns")


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The most kernel and graph time of one GPU over the mean of all, by step: 1 is even, n is all on one of n."""

    steps: int
    p50: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class SeveralGpusResult:
    """What several GPUs did together.

    Attributes:
        uses: the GPUs that did work.
        busy_count: ``busy_gpus ns share``: the window by how many GPUs did anything, 0 to all; sums to it.
        busy_sets: ``places ns``: the window by which of them did, most first; sums to it.
        waits: ``waiting other peer_ns idle_ns`` of GPUs that one process feeds: how long ``waiting`` did nothing while
            ``other`` was busy, and how much of that its device ledger calls ``peer``: work was handed over already.
            With three GPUs and more an instant counts for every other that was busy.
        copies: ``source target purpose phase count bytes total_ns gb_per_s`` of copies between GPUs that start in the
            window; a place is null where the file does not tell the GPU.
        work: ``place busy_ns kernel_ns graph_ns share`` over the window; ``share`` of all kernel and graph time.
        by_phase: ``phase place steps busy_ns kernel_ns graph_ns``, a mean step of those that begin in the window.
            Operations count for the step that handed them over: in a pipeline they may run during the next.
        steps: ``index phase place busy_ns kernel_ns graph_ns``: the same by step.
        imbalance: by phase.
    """

    window: Window
    uses: tuple[GpuUse, ...]
    busy_count: pl.DataFrame
    busy_sets: pl.DataFrame
    waits: pl.DataFrame
    copies: pl.DataFrame
    work: pl.DataFrame
    by_phase: pl.DataFrame
    steps: pl.DataFrame
    imbalance: Mapping[str, Imbalance]


def several_gpus(trace: Trace, *, window: Window | None = None) -> SeveralGpusResult:
    """How the GPUs of a trace share its work.

    Raises:
        MissingTableError: CUDA was not collected, or fewer than two GPUs worked.
    """
    uses = gpu_uses(trace)
    if len(uses) < 2:
        raise MissingTableError("work of a second GPU", hint="nothing is missing if the run used one")
    window = window or default_window(trace)
    busy_count, busy_sets = together([busy_of(trace, use) for use in uses], window)
    steps = _steps(trace, uses, window)
    return SeveralGpusResult(
        window=window,
        uses=uses,
        busy_count=busy_count.rename({"busy": "busy_gpus"}),
        busy_sets=busy_sets,
        waits=_waits(trace, uses, window),
        copies=_copies(trace, uses, window),
        work=_work(trace, uses, window),
        by_phase=_by_phase(steps),
        steps=steps,
        imbalance=_imbalance(steps),
    )


def together(layers: list[pl.DataFrame], window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The window by how many of the layers (merged) cover it, and by which.

    ``busy ns share`` with a row for each number from 0 to all, and ``places ns``, most first, ties by the places.
    """
    pieces = cover_sets(layers, window.start_ns, window.end_ns)
    by_mask = pieces.group_by("mask").agg(ns=_DUR.sum()).with_columns(
        places=pl.col("mask").map_elements(_places, return_dtype=pl.List(pl.Int64))
    )  # fmt: skip
    sums = by_mask.group_by(busy=pl.col("places").list.len().cast(pl.Int64)).agg(pl.col("ns").sum())
    every = pl.DataFrame({"busy": range(len(layers) + 1)}, schema={"busy": pl.Int64})
    counted = every.join(sums, on="busy", how="left", maintain_order="left").with_columns(pl.col("ns").fill_null(0))
    share = pl.col("ns") / window.dur_ns if window.dur_ns else pl.lit(0.0)
    sets = by_mask.sort(["ns", "mask"], descending=[True, False]).select("places", "ns")
    return counted.with_columns(share=share), sets


def _places(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _waits(trace: Trace, uses: tuple[GpuUse, ...], window: Window) -> pl.DataFrame:
    rows = []
    for waiting, use in enumerate(uses):
        peer = idle_by_cause(trace, use, window)["peer"]
        idle = idle_of(trace, use, window)
        for other, fellow in enumerate(uses):
            if other != waiting and set(use.pids) & set(fellow.pids):
                rows.append((waiting, other, *(length(intersect(one, busy_of(trace, fellow))) for one in (peer, idle))))
    schema = dict.fromkeys(("waiting", "other", "peer_ns", "idle_ns"), pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _copies(trace: Trace, uses: tuple[GpuUse, ...], window: Window) -> pl.DataFrame:
    members = [(pid, device, place) for place, use in enumerate(uses) for pid, device in use.members]
    places = pl.DataFrame(members, schema={"pid": pl.Int32, "device": pl.Int64, "place": pl.Int64}, orient="row")
    rows = (
        trace.memcpys.select("start_ns", "end_ns", "pid", "src_device", "dst_device")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64))
        .collect()
        .join(copy_purposes(trace), on="row", how="inner")
    )
    apart = (pl.col("label") == "DtoD") & (pl.col("src_device") != pl.col("dst_device"))
    starts = pl.col("start_ns").is_between(window.start_ns, window.end_ns, "left")
    rows = rows.filter(starts & ((pl.col("label") == "PtoP") | apart.fill_null(value=False)))
    for side, column in (("source", "src_device"), ("target", "dst_device")):
        named = places.rename({"device": column, "place": side})
        rows = rows.join(named, on=["pid", column], how="left", maintain_order="left")
    phases = find_steps(trace).steps.select(step="index", phase="phase")
    rows = rows.join(phases, on="step", how="left").with_columns(pl.col("phase").fill_null(OUTSIDE))
    keys = ["source", "target", "purpose", "phase"]
    summed = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("count"), pl.col("bytes").sum(), _DUR.sum().alias("total_ns")
    )
    speed = pl.when(pl.col("total_ns") > 0).then(pl.col("bytes") / pl.col("total_ns"))
    return summed.with_columns(gb_per_s=speed).sort(keys, nulls_last=True)


def _work(trace: Trace, uses: tuple[GpuUse, ...], window: Window) -> pl.DataFrame:
    rows = []
    for place, use in enumerate(uses):
        pieces = device_pieces(trace, use, window)
        parts = [length(pieces[part]) for part in ("kernel", "graph", "memcpy", "memset")]
        rows.append((place, sum(parts), *parts[:2]))
    schema = dict.fromkeys(("place", "busy_ns", "kernel_ns", "graph_ns"), pl.Int64)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    computing = pl.col("kernel_ns") + pl.col("graph_ns")
    return frame.with_columns(share=pl.when(computing.sum() > 0).then(computing / computing.sum()))


def _steps(trace: Trace, uses: tuple[GpuUse, ...], window: Window) -> pl.DataFrame:
    """Every GPU in every step that begins in the window, also one that did nothing in it."""
    chosen = find_steps(trace).steps.filter(pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left"))
    grid = chosen.select("index", "phase").join(
        pl.DataFrame({"place": range(len(uses))}, schema={"place": pl.Int64}), how="cross", maintain_order="left"
    )
    columns = ["start_ns", "end_ns", "kind", "pid", "device"]
    inside = op_calls(trace).select(*columns, op_steps(trace).cast(pl.Int64).alias("index")).drop_nulls("index")
    frames = []
    for place, use in enumerate(uses):
        ops = inside.filter(use.matches())
        covered = {
            "busy_ns": ops,
            "kernel_ns": ops.filter(pl.col("kind") == "kernel"),
            "graph_ns": ops.filter(pl.col("kind") == "graph"),
        }
        own = grid.filter(pl.col("place") == place)
        for name, rows in covered.items():
            sums = union(rows, by=["index"]).group_by("index").agg(_DUR.sum().alias(name))
            own = own.join(sums, on="index", how="left", maintain_order="left").with_columns(pl.col(name).fill_null(0))
        frames.append(own)
    return pl.concat(frames).sort("index", "place")


def _by_phase(steps: pl.DataFrame) -> pl.DataFrame:
    return (
        steps.group_by("phase", "place")
        .agg(pl.len().cast(pl.Int64).alias("steps"), pl.col("busy_ns", "kernel_ns", "graph_ns").mean())
        .sort("phase", "place")
    )


def _imbalance(steps: pl.DataFrame) -> dict[str, Imbalance]:
    computing = pl.max_horizontal("kernel_ns", "graph_ns")  # one hides the other, unless a file holds both
    ratios = (
        steps.group_by("index", "phase")
        .agg((computing.max() / computing.mean()).alias("ratio"))
        .with_columns(pl.when(pl.col("ratio").is_finite()).then("ratio").alias("ratio"))
    )
    found = {}
    for phase in sorted(steps["phase"].unique()):
        own = ratios.filter(pl.col("phase") == phase)["ratio"]
        middle, most = own.quantile(0.5, interpolation="nearest"), own.max()
        found[phase] = Imbalance(len(own), middle, None if most is None else float(most))  # type: ignore[arg-type]
    return found
