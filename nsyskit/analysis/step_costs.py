"""What a step and a token cost: counts, copies, ledger and kernel categories per step, phases, the slowest steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nsyskit.analysis.causes import CAUSES
from nsyskit.analysis.copies import PURPOSES, copy_purposes
from nsyskit.analysis.devices import BUSY_PARTS, DeviceLedger, device_ledger, device_pieces, pieces_over
from nsyskit.analysis.gpus import GpuUse, gpu_uses
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.launches import GRAPH_LAUNCH, launched, rows_named
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import HANDED_OVER, api_calls, call_classes, op_calls
from nsyskit.analysis.prompt_cost import PromptCost, prompt_cost
from nsyskit.analysis.step_events import of_thread
from nsyskit.analysis.steps import find_steps, inside_steps, op_steps
from nsyskit.analysis.windows import steady_window, window_all
from nsyskit.errors import MissingTableError
from nsyskit.frames import PIECE_ROWS, in_runs, packed, unpacked
from nsyskit.intervals import clip, count_before, covered_ns, intersect, length, overlap_ns, union
from nsyskit.trace import Trace, Window

PHASES: Final = ("prefill", "decode", "mixed")
LEDGER_PARTS: Final = (*BUSY_PARTS, *CAUSES)
COUNTS: Final = ("kernels", "launches", "graph_launches", "captures", "syncs", "copies", "bytes")
_EVENTS: Final = ("allocations", "loads")
_ALLOCATES: Final = "^(cuda|cu)(Malloc|Free|MemAlloc|MemFree|MemCreate)"
_LOADS: Final = "^(cuda|cu)(Module(Load|Get)|LibraryLoad)"
_SLOWEST: Final = 5
_SLOWEST_BY_PROMPT: Final = 2
_CLOCK_DROP: Final = 1.10


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """All steps of a phase in the window.

    Periods run from step begin to step begin; a request's last step has none and counts only in ``count``, ``tokens``
    and ``outputs``. ``ms_per_token`` holds p50, p95, p99, max over periods, each divided by its step's tokens.
    ``per_token`` divides by the tokens of the steps with a period: ``ledger`` (ns by part of the busiest GPU; the parts
    sum to the mean period), ``categories`` (kernel ns), and ``COUNTS``.
    """

    phase: str
    count: int
    tokens: int
    outputs: int
    periods: int
    ms_per_token: Mapping[str, float | None]
    tokens_per_s: float | None
    ledger: Mapping[str, float]
    categories: Mapping[str, float]
    counts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StepsResult:
    """Steps with their costs.

    Attributes:
        window: steps that begin in it are counted.
        steps: ``steps.STEP_COLUMNS``, ``period_ns`` (null for a request's last step), ``COUNTS``, ``bytes_<purpose>``
            and ``<part>_ns`` of ``LEDGER_PARTS``, which sum to ``end_ns - begin_ns``.
        ledger: of the GPU busiest inside steps, the instants inside steps of the window only.
        offload_ns: of that, idle time of causes host, os and blocked between the first and the last operation of a
            step: the CPU computes between GPU segments.
        slowest: ``index phase period_ns times cause``: ``times`` the phase's median, and what was different. A batch
            that another slot's prompt came into is held against batches without one.
        prompt_cost_ms: median period of mixed steps above that of decode steps: what a prompt chunk costs the others.
        prompts: the same token by token, None where no batch holds prompts beside generating sequences.
    """

    window: Window
    steps: pl.DataFrame
    torn: int
    ledger: DeviceLedger
    offload_ns: int
    by_phase: Mapping[str, PhaseCost]
    slowest: pl.DataFrame
    prompt_cost_ms: float | None
    prompts: PromptCost | None = None


def steps(trace: Trace, *, window: Window | None = None, texts: Sequence[str] = ()) -> StepsResult:
    """Steps that begin in the window (default: ``steady``, all when nothing is steady), and what their tokens cost.

    ``texts`` is output of the program to read instead of what the trace kept: it tells which sequences generate.

    Raises:
        MissingTableError: no step was found; the message says why.
    """
    found = find_steps(trace)
    if found.why_none is not None:
        raise MissingTableError(f"llama.cpp steps ({found.why_none})", hint="capture llama.cpp with --trace=cuda")
    window = window or steady_window(trace) or window_all(trace)
    rows = step_rows(trace).filter(pl.col("begin_ns").is_between(window.start_ns, window.end_ns, "left"))
    by_phase = {phase: cost for phase in PHASES if (cost := _phase(trace, phase, rows)) is not None}
    inside = clip(inside_steps(trace), window.start_ns, window.end_ns)
    ledgers = [device_ledger(trace, use, window, inside=inside) for use in gpu_uses(trace)]
    ledger = max(ledgers, key=lambda one: one.busy_ns)
    prompts = prompt_cost(trace, rows, tuple(texts))
    return StepsResult(
        window=window,
        steps=rows,
        torn=found.torn,
        ledger=ledger,
        offload_ns=_offload(trace, ledger.use, window, inside),
        by_phase=by_phase,
        slowest=_slowest(rows, prompts),
        prompt_cost_ms=_prompt_cost(rows),
        prompts=prompts,
    )


@once_per_trace
def busiest(trace: Trace) -> GpuUse:
    """The GPU with most busy time inside steps."""
    if len(gpu_uses(trace)) == 1:
        return gpu_uses(trace)[0]
    window, inside = window_all(trace), inside_steps(trace)
    busy = {
        use: sum(overlap_ns(inside, pieces_over(trace, use, window)[part]) for part in BUSY_PARTS)
        for use in gpu_uses(trace)
    }
    return max(busy, key=lambda use: busy[use])


def _offload(trace: Trace, use: GpuUse, window: Window, inside: pl.DataFrame) -> int:
    """Idle time for the host between a step's first and last operation on one GPU."""
    ops = op_calls(trace).with_columns(op_steps(trace))
    forward_ends = find_steps(trace).steps["forward_end_ns"]
    own = (pl.lit(forward_ends).gather("step") > HANDED_OVER) & use.matches()
    span_of = pl.col("start_ns").min(), pl.col("end_ns").max()
    rows = (piece.select("step", "start_ns", "end_ns", own=own) for piece in ops.iter_slices(PIECE_ROWS))
    pieces = [in_runs(piece.filter("own"), "step").group_by("step").agg(span_of) for piece in rows]
    spans = pl.concat(pieces).group_by("step").agg(span_of)
    idle = device_pieces(trace, use, window)
    host = union(pl.concat([idle[cause] for cause in ("host", "os", "blocked")]))
    return length(intersect(intersect(host, inside), union(spans)))


@once_per_trace
def step_rows(trace: Trace) -> pl.DataFrame:
    """Every step with its costs, as ``StepsResult.steps``."""
    rows = find_steps(trace).steps
    counted = [_counts(trace, rows), _bytes(trace, rows), _ledgers(trace, rows)]
    period = pl.when(~pl.col("last_of_request")).then(pl.col("end_ns") - pl.col("begin_ns"))
    return pl.concat([rows.with_columns(period_ns=period), *counted], how="horizontal")


def _counts(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    calls = {
        "launches": launched(trace),
        "graph_launches": rows_named(trace, GRAPH_LAUNCH),
        "captures": rows_named(trace, "^(cuda|cu)StreamBeginCapture"),
        "allocations": rows_named(trace, _ALLOCATES),
        "loads": rows_named(trace, _LOADS),
        "syncs": (call_classes(trace) == "sync").arg_true(),
    }
    kernels = kernels_by_step(trace)
    counts = {
        "kernels": _per_step(kernels["index"], rows.height, kernels["count"]),
        "copies": _per_step(op_steps(trace).filter(op_calls(trace)["kind"] == "memcpy"), rows.height),
    } | _calls_per_step(trace, rows, calls)
    return pl.DataFrame([counts[name].alias(name) for name in (*COUNTS[:-1], *_EVENTS)])


def _calls_per_step(trace: Trace, rows: pl.DataFrame, calls: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """How many of ascending rows of ``api_calls`` begin within each step, on its thread; by their names."""
    every = api_calls(trace).select("start_ns", "pid", "tid")
    counted = {name: [pl.Series(dtype=pl.Int64)] for name in calls}
    order = [pl.Series(dtype=pl.Int64)]
    for key, own in rows.group_by("pid", "tid", maintain_order=True):
        first, stop = (count_before(every["start_ns"], own[edge]) for edge in ("begin_ns", "end_ns"))
        on_thread = every.select(of_thread(key).fill_null(value=False)).to_series()
        for name, called in calls.items():
            mine = called if on_thread.all() else called.filter(on_thread.gather(called))
            upto_first, upto_stop = (count_before(mine, row.cast(mine.dtype)) for row in (first, stop))
            counted[name].append(upto_stop - upto_first)
        order.append(own["index"])
    at = pl.concat(order).arg_sort()
    return {name: pl.concat(parts)[at] for name, parts in counted.items()}


def _per_step(steps_of: pl.Series, height: int, values: pl.Series | None = None) -> pl.Series:
    """How many rows, or the sum of their values, each step has."""
    frame = pl.DataFrame({"index": steps_of.cast(pl.Int64)})
    value = pl.len().cast(pl.Int64) if values is None else pl.col("value").sum()
    frame = frame if values is None else frame.with_columns(value=values.cast(pl.Int64))
    sums = frame.drop_nulls("index").group_by("index").agg(value=value)
    every = pl.DataFrame({"index": pl.int_range(height, eager=True)})
    return every.join(sums, on="index", how="left", maintain_order="left")["value"].fill_null(0)


def _bytes(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    copies = copy_purposes(trace)
    of_step = copies["step"]
    columns = [_per_step(of_step, rows.height, copies["bytes"]).alias("bytes")]
    for purpose in PURPOSES:
        own = pl.select(pl.when(copies["purpose"] == purpose).then(of_step)).to_series()
        columns.append(_per_step(own, rows.height, copies["bytes"]).alias(f"bytes_{purpose}"))
    return pl.DataFrame(columns)


def _ledgers(trace: Trace, rows: pl.DataFrame) -> pl.DataFrame:
    pieces = pieces_over(trace, busiest(trace), window_all(trace))
    spans = rows.select(start_ns="begin_ns", end_ns="end_ns")
    return pl.DataFrame([covered_ns(spans, pieces[part]).alias(f"{part}_ns") for part in LEDGER_PARTS])


def _phase(trace: Trace, phase: str, rows: pl.DataFrame) -> PhaseCost | None:
    own = rows.filter(pl.col("phase") == phase)
    if own.is_empty():
        return None
    timed = own.filter(pl.col("period_ns").is_not_null())
    tokens = int(timed["n_tokens"].sum())
    period = int(timed["period_ns"].sum())
    per_token = (timed["period_ns"] / timed["n_tokens"] / 1e6).alias("ms")

    def each(column: str) -> float:
        return int(timed[column].sum()) / tokens if tokens else 0.0

    return PhaseCost(
        phase=phase,
        count=own.height,
        tokens=int(own["n_tokens"].sum()),
        outputs=int(own["n_outputs"].fill_null(0).sum()),
        periods=timed.height,
        ms_per_token={
            "p50": _quantile(per_token, 0.5), "p95": _quantile(per_token, 0.95), "p99": _quantile(per_token, 0.99),
            "max": _quantile(per_token, 1.0),
        },
        tokens_per_s=tokens / period * 1e9 if period else None,
        ledger={part: each(f"{part}_ns") for part in LEDGER_PARTS},
        categories={name: ns / tokens for name, ns in _categories(trace, timed).items()} if tokens else {},
        counts={name: each(name) for name in COUNTS},
    )  # fmt: skip


def _quantile(values: pl.Series, share: float) -> float | None:
    found = values.quantile(share, interpolation="nearest")
    return None if found is None else float(found)


@once_per_trace
def kernels_by_step(trace: Trace) -> pl.DataFrame:
    """Kernels by step and name: ``index name_id dur count``."""
    ids = pl.lit(trace.kernels.select("name_id").collect()["name_id"])
    ops = op_calls(trace).select("kind", "row", "start_ns", "end_ns", index=op_steps(trace))
    in_steps = (pl.col("kind") == "kernel") & pl.col("index").is_not_null()
    key = packed(pl.col("index"), ids.gather("row"))
    counted = {"dur": (pl.col("end_ns") - pl.col("start_ns")).sum(), "count": pl.len().cast(pl.Int64)}
    # a piece holds few steps: its groups stay in a core's cache
    pieces = [piece.filter(in_steps).group_by(key=key).agg(**counted) for piece in ops.iter_slices(PIECE_ROWS)]
    found = pl.concat(pieces).group_by("key").agg(pl.col("dur", "count").sum())
    index, name_id = unpacked(pl.col("key"))
    return found.select("dur", "count", index=index, name_id=name_id)


@once_per_trace
def kernel_steps(trace: Trace) -> pl.DataFrame:
    """Kernel time by step and kind of kernel: ``index category quant total_ns``."""
    facts = kernel_facts(trace).select("name_id", "category", "quant")
    named = kernels_by_step(trace).join(facts, on="name_id", how="left")
    return named.group_by("index", "category", "quant").agg(total_ns=pl.col("dur").sum())


def _categories(trace: Trace, rows: pl.DataFrame) -> dict[str, int]:
    own = kernel_steps(trace).filter(pl.col("index").is_in(rows["index"].implode()))
    sums = (
        own.group_by("category").agg(pl.col("total_ns").sum()).sort(["total_ns", "category"], descending=[True, False])
    )
    return {str(name): int(ns) for name, ns in sums.iter_rows()}


def _slowest(rows: pl.DataFrame, prompts: PromptCost | None) -> pl.DataFrame:
    """The steps that exceed their phase's median most, each with what was different in it."""
    timed = rows.filter(pl.col("period_ns").is_not_null())
    timed = timed.with_columns(times=pl.col("period_ns") / pl.col("period_ns").median().over("phase", "n_tokens"))
    delayed = _delayed(timed, prompts)
    own = timed.join(delayed, on="index", how="anti", maintain_order="left")
    top = own.sort(["times", "index"], descending=[True, False]).head(_SLOWEST)
    causes = []
    for row in top.iter_rows(named=True):
        like = timed.filter((pl.col("phase") == row["phase"]) & (pl.col("n_tokens") == row["n_tokens"]))
        causes.append(_difference(row, like))
    columns = ["index", "phase", "begin_ns", "period_ns", "times"]
    found = pl.concat([top.select(columns).with_columns(cause=pl.Series(causes, dtype=pl.String)), delayed])
    return found.sort(["times", "index"], descending=[True, False]).head(_SLOWEST)


def _delayed(timed: pl.DataFrame, prompts: PromptCost | None) -> pl.DataFrame:
    """The steps that another slot's prompt held up most: two at most, for they are many and of one kind."""
    columns = [*("index", "phase", "begin_ns", "period_ns", "times"), "cause"]
    if prompts is None:
        return timed.clear().with_columns(cause=pl.lit(None, pl.String)).select(columns)
    told = pl.format(
        "another slot's prompt ({} tokens): +{} ms for {}", "prompt_tokens",
        (pl.col("extra_ns") / 1e6).round(3), "generating",
    )  # fmt: skip
    chunks = prompts.chunks.select("index", times=pl.col("interval_ns") / pl.col("usual_ns"), cause=told)
    found = timed.drop("times").join(chunks, on="index", how="inner", maintain_order="left")
    return found.sort(["times", "index"], descending=[True, False]).head(_SLOWEST_BY_PROMPT).select(columns)


def _difference(row: Mapping[str, Any], like: pl.DataFrame) -> str:
    """What sets a step apart from the median one of its kind: events first, then the part of the ledger that grew."""
    medians = {part: float(like[f"{part}_ns"].median() or 0) for part in LEDGER_PARTS}  # type: ignore[arg-type]
    grown = {part: row[f"{part}_ns"] - median for part, median in medians.items()}
    part, excess = max(grown.items(), key=lambda item: item[1])
    events = {"captures": "graph rebuilt", "loads": "module load", "allocations": "allocation"}
    told = [text for name, text in events.items() if row[name] > float(like[name].median() or 0)]  # type: ignore[arg-type]
    same_kernels = row["kernels"] == like["kernels"].median() and row["kernels"] > 0
    if part == "kernel" and same_kernels and row["kernel_ns"] > _CLOCK_DROP * medians["kernel"]:
        told.append("slower kernels (clock drop)")
    if excess <= 0:
        return "; ".join(told) or "nothing stands out"
    return "; ".join([*told, f"{part} +{excess / 1e6:.3f} ms"])


def _prompt_cost(rows: pl.DataFrame) -> float | None:
    medians = [rows.filter(pl.col("phase") == phase)["period_ns"].median() for phase in ("mixed", "decode")]
    mixed, decode = medians
    return None if mixed is None or decode is None else (float(mixed) - float(decode)) / 1e6  # type: ignore[arg-type]
