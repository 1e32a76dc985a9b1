"""Steps without NVTX: one step is one ubatch, found by what every ubatch uploads.

llama.cpp copies each user input (token ids, positions, KV indices, mask, output ids) to a device once a ubatch, before
anything runs there that needs it, and nothing else looks like it: positions take 4 bytes a token (M-RoPE 16), KV
indices 8, in pairs for K and V. A step begins with such a group of uploads and ends where the next begins. Further
groups within a step are those of other devices, and activations that come back from the CPU.

Nothing here trusts the order of rows, the number of splits, logits copies or kernel names; those are witnesses for the
confidence of a step, not for its borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from nsyskit.analysis.causes import thread_instants
from nsyskit.analysis.forward_passes import forward_passes, n_outputs, n_vocab
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.launches import calls_named, captures
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import HANDED_OVER, api_calls, call_classes, op_calls
from nsyskit.analysis.pass_work import edges_of, with_work
from nsyskit.analysis.step_events import of_thread, step_events
from nsyskit.analysis.step_phases import confidence, never_mixes, phases_of
from nsyskit.frames import PIECE_ROWS
from nsyskit.intervals import assign, count_before, count_upto, covered_ns, neighbourhood, union
from nsyskit.trace import Trace

STEP_COLUMNS: Final = {
    "index": pl.Int64, "pid": pl.Int32, "tid": pl.Int32, "request": pl.Int64, "last_of_request": pl.Boolean,
    "phase": pl.String, "confidence": pl.String, "evidence": pl.String,
    "n_tokens": pl.Int64, "n_outputs": pl.Int64,
    "begin_ns": pl.Int64, "forward_end_ns": pl.Int64, "end_ns": pl.Int64, "cold": pl.Boolean,
}  # fmt: skip
"""Columns of `StepsFound.steps`."""


_BUILDS: Final = "^(cuda|cu)(StreamBeginCapture|GraphInstantiate|Module(Load|Get)|LibraryLoad)"
_MIN_IDLE_NS: Final = 200_000
_START: Final = pl.col("start_ns")


@dataclass(frozen=True, slots=True)
class StepsFound:
    """Steps in time order.

    Attributes:
        steps: ``STEP_COLUMNS``. ``end_ns`` is where the next step of the same request begins, ``forward_end_ns`` of the
            last one. ``cold`` marks steps that built a graph, loaded a module, or are the first of their phase.
        torn: forward passes cut by an edge of the trace; they are not in ``steps``.
        n_vocab: size of the vocabulary as the logits copies tell it, None without logits.
        why_none: why there are no steps at all, None when there are some.
        input_copies: rows of the trace's ``memcpys`` that upload user inputs.
    """

    steps: pl.DataFrame
    torn: int
    n_vocab: int | None
    why_none: str | None
    input_copies: pl.Series


@once_per_trace
def find_steps(trace: Trace) -> StepsFound:
    """Find every step of every driver thread. A trace that is no llama.cpp run has none, and says why."""
    why_none = _no_llama(trace)
    if why_none:
        return StepsFound(_frame([]), 0, None, why_none, pl.Series(dtype=pl.Int64))
    found: list[pl.DataFrame] = []
    inputs: list[pl.Series] = [pl.Series(dtype=pl.Int64)]
    torn = 0
    vocabulary: int | None = None
    for key, events in step_events(trace).group_by("pid", "tid", maintain_order=True):
        thread = forward_passes(events)
        torn += thread.torn
        if thread.passes.is_empty():
            continue
        inputs.append(thread.inputs)
        vocabulary = n_vocab(thread.passes) or vocabulary
        waited = _waited(trace, key, with_work(trace, key, thread.passes))
        torn += thread.passes.height - waited.height
        found.append(_described(trace, key, _with_requests(trace, key, waited)))
    steps = _with_cold(trace, _frame(found))
    why_none = "no ubatch was found: no uploads of positions" if steps.is_empty() else None
    return StepsFound(steps, torn, vocabulary, why_none, pl.concat(inputs))


@once_per_trace
def inside_steps(trace: Trace) -> pl.DataFrame:
    """The instants inside any step, merged: ``start_ns end_ns``."""
    return union(find_steps(trace).steps.select(start_ns="begin_ns", end_ns="end_ns"))


def step_at(trace: Trace, rows: pl.DataFrame, at: pl.Expr = _START) -> pl.Series:
    """For rows with ``pid``, ``tid`` and an instant (when a call began) the index of their thread's step, null outside.

    A row without ``tid``, because its call was lost, belongs to its process's thread where only one takes steps.
    """
    found = find_steps(trace).steps.select("pid", "tid", "index", start_ns="begin_ns", end_ns="end_ns")
    threads = found.select("pid", "tid").unique().sort("pid", "tid")
    alone = threads.filter(pl.len().over("pid") == 1)["pid"].to_list()
    steps = {key: found.filter(of_thread(key)) for key in threads.iter_rows()}
    empty = pl.Series(dtype=pl.Int32)
    places = (piece.select("pid", "tid", at=at) for piece in rows.iter_slices(PIECE_ROWS))
    pieces = [_step_at(piece, steps, alone) for piece in places]
    return pl.concat([empty, *pieces]).rechunk().alias("step")


def _step_at(rows: pl.DataFrame, steps: Mapping[tuple[int, int], pl.DataFrame], alone: Sequence[int]) -> pl.Series:
    result = pl.repeat(None, rows.height, dtype=pl.Int32, eager=True)
    first, last = rows.select(pl.col("at").min(), pl.col("at").max().alias("last")).row(0)
    for (pid, tid), own in steps.items():
        near = neighbourhood(own, first, last)
        here = (rows["pid"] == pid) & ((rows["tid"] == tid) | (rows["tid"].is_null() & (pid in alone)))
        here = here.fill_null(value=False)
        indices = near["index"].cast(pl.Int32).gather(assign(rows["at"], near))
        result = indices if here.all() else pl.select(pl.when(here).then(indices).otherwise(result)).to_series()
    return result


@once_per_trace
def op_steps(trace: Trace) -> pl.Series:
    """The index of the step that handed over each row of ``op_calls``, null outside of steps."""
    return step_at(trace, op_calls(trace), HANDED_OVER)


def _frame(found: list[pl.DataFrame]) -> pl.DataFrame:
    frame = pl.concat([pl.DataFrame(schema=STEP_COLUMNS), *found]).sort("begin_ns", "pid", "tid")
    return frame.with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64))


def _no_llama(trace: Trace) -> str | None:
    """None when the trace is of llama.cpp: by its kernels, its command line or its output."""
    if api_calls(trace).is_empty():
        return "no CUDA API calls were traced"
    known = kernel_facts(trace)
    if known.filter(~pl.col("category").is_in(["other", "matmul_float"])).height:
        return None
    command = " ".join(trace.meta.capture.command[:1]).lower()
    programs = [process.program or "" for process in trace.meta.processes]
    if any("llama" in text.lower() for text in [command, *programs]):
        return None
    ids = trace.tables["streams_text"].select("content_id")
    texts = trace.strings.join(ids, left_on="string_id", right_on="content_id", how="semi")
    if texts.filter(pl.col("value").str.contains("ggml_|llama_|llama-", literal=False)).collect().height:
        return None
    return "neither kernels, command line nor output are of llama.cpp"


def _waited(trace: Trace, key: tuple[object, ...], passes: pl.DataFrame) -> pl.DataFrame:
    """The passes that somebody waited for, with ``forward_end_ns end_ns last_of_request same_batch``.

    ``end_ns`` is where the next pass begins. ``same_batch`` as the step before: nobody waited for that one before
    handing over this one's inputs.
    """
    calls = api_calls(trace).select("start_ns", "end_ns", "pid", "tid")
    waits = calls.filter(call_classes(trace) == "sync").filter(of_thread(key))
    passes = passes.with_columns(
        next_begin_ns=pl.col("begin_ns").shift(-1),
        waits_before=count_before(waits["start_ns"], passes["begin_ns"]),
        waits_within=count_before(waits["start_ns"], passes["last_call_ns"]),
        forward_end_ns=_forward_ends(passes, waits),
    )
    passes = passes.with_columns(whole=pl.col("launched") & pl.col("forward_end_ns").is_not_null())
    # kernels of a torn pass are ascribed to the step before, of which its uploads may be a part
    products = pl.col("vector_ns", "product_ns").sum().over(pl.col("whole").cum_sum())
    return passes.with_columns(products).filter("whole").with_columns(
        end_ns=pl.coalesce("next_begin_ns", "forward_end_ns"),
        last_of_request=pl.col("next_begin_ns").is_null(),
        same_batch=(pl.col("waits_before") - pl.col("waits_within").shift(1) < 2).fill_null(value=False),
    )  # fmt: skip


def _forward_ends(passes: pl.DataFrame, waits: pl.DataFrame) -> pl.Series:
    """The end of the first wait after a pass's last call that outlasts the pass's work, before the next step's inputs.

    Without such a wait a pass ends with its work; when the last one did nobody knows.
    """
    after = waits.select("end_ns", place=count_upto(edges_of(passes), waits["start_ns"])).filter(
        (pl.col("place") % 2 == 0) & (pl.col("place") > 0)
    )
    after = after.select("end_ns", number=pl.col("place") // 2)
    outlasting = after.filter(pl.col("end_ns") >= pl.lit(passes["op_end_ns"]).gather(pl.col("number") - 1))
    first = outlasting.group_by("number", maintain_order=True).first()
    begins_next = pl.col("begin_ns").shift(-1)
    unwaited = pl.max_horizontal(pl.min_horizontal("op_end_ns", begins_next), "last_call_ns")
    return passes.join(first, on="number", how="left", maintain_order="left").select(
        pl.coalesce("end_ns", pl.when(begins_next.is_not_null()).then(unwaited))
    ).to_series()  # fmt: skip


def _with_requests(trace: Trace, key: tuple[Any, ...], steps: pl.DataFrame) -> pl.DataFrame:
    """Steps with their ``request``; the last of one ends with its forward pass.

    An idle wait for work ends a request: most of the time to the next step is spent in a blocking OS call. Without the
    OS runtime a pause far longer than any other work between steps must do.
    """
    pauses = steps.select(start_ns="forward_end_ns", end_ns=pl.max_horizontal("end_ns", "forward_end_ns"))
    usual = float((pauses["end_ns"] - pauses["start_ns"]).median() or 0)  # type: ignore[arg-type]
    pause = pl.col("end_ns") - pl.col("forward_end_ns")
    if trace.meta.sources.get("osrt", False):
        waiting = pl.lit(covered_ns(pauses, thread_instants(trace, *key)["blocked"]))
        idle = (pause > _MIN_IDLE_NS) & (pause > 3 * usual) & (waiting >= pause - waiting)
    else:
        idle = pause > 20 * max(usual, _MIN_IDLE_NS)
    steps = steps.with_columns(pl.col("last_of_request") | idle)
    return steps.with_columns(
        request=pl.col("last_of_request").shift(1, fill_value=False).cum_sum().cast(pl.Int64),
        end_ns=pl.when("last_of_request").then("forward_end_ns").otherwise("end_ns"),
    )


def _described(trace: Trace, key: tuple[object, ...], steps: pl.DataFrame) -> pl.DataFrame:
    steps = steps.with_columns(n_outputs=n_outputs(n_vocab(steps)))
    steps = steps.with_columns(phase=pl.Series(phases_of(steps, alone=never_mixes(trace)), dtype=pl.String))
    pid, tid = (pl.lit(each, pl.Int32) for each in key)
    index, cold = pl.lit(0, pl.Int64), pl.lit(value=False)
    steps = steps.with_columns(*confidence(), index=index, pid=pid, tid=tid, cold=cold)
    return steps.select(*STEP_COLUMNS)


def _with_cold(trace: Trace, steps: pl.DataFrame) -> pl.DataFrame:
    """Mark what belongs to warming up: graph building, module loading, the first step of each phase."""
    builds = pl.concat(
        [
            calls_named(trace, _BUILDS).select("pid", "tid", "start_ns"),
            captures(trace).select("pid", "tid", "start_ns"),
        ]
    ).sort("start_ns")
    built = steps.join_where(
        builds.rename({"pid": "of_pid", "tid": "of_tid"}),
        pl.col("pid") == pl.col("of_pid"),
        pl.col("tid") == pl.col("of_tid"),
        pl.col("start_ns") >= pl.col("begin_ns"),
        pl.col("start_ns") < pl.col("end_ns"),
    )["index"].unique()
    first = pl.int_range(pl.len()).over("phase") == 0
    return steps.with_columns(cold=first | pl.col("index").is_in(built.implode()))
