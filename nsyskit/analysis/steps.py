"""Steps without NVTX: one step is one ubatch, found by what every ubatch uploads.

llama.cpp copies each user input (token ids, positions, KV indices, mask, output ids) to a device once a ubatch, before
anything runs there that needs it, and nothing else looks like it: positions take 4 bytes a token (M-RoPE 16), KV
indices 8, in pairs for K and V. A step begins with such a group of uploads and ends where the next begins. Further
groups within a step are those of other devices, and activations that come back from the CPU.

Nothing here trusts the order of rows, the number of splits, logits copies or kernel names; those are witnesses for the
confidence of a step, not for its borders.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.causes import classified_os_calls
from nsyskit.analysis.forward_passes import ForwardPass, forward_passes, n_outputs_of, n_vocab
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.launches import calls_named, captures
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import HANDED_OVER, api_calls, call_classes, op_calls
from nsyskit.analysis.step_events import of_thread, step_events
from nsyskit.analysis.step_phases import TimedPass, confidence_of, families_of, never_mixes, phases_of
from nsyskit.intervals import assign, covered_ns, union
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
    rows: list[dict[str, object]] = []
    torn = 0
    inputs: list[int] = []
    vocabulary: int | None = None
    for key, events in step_events(trace).group_by("pid", "tid", maintain_order=True):
        passes, lost = forward_passes(events)
        torn += lost
        vocabulary = n_vocab(passes) or vocabulary
        inputs += [
            upload.row for one in passes for segment in one.segments if segment.n_tokens for upload in segment.uploads
        ]
        timed, unfinished = _timed(trace, key, passes)
        torn += unfinished
        rows += _described(trace, key, timed)
    steps = _with_cold(trace, _frame(rows))
    why_none = None if rows else "no ubatch was found: no uploads of positions"
    return StepsFound(steps, torn, vocabulary, why_none, pl.Series(inputs, dtype=pl.Int64))


@once_per_trace
def inside_steps(trace: Trace) -> pl.DataFrame:
    """The instants inside any step, merged: ``start_ns end_ns``."""
    return union(find_steps(trace).steps.select(start_ns="begin_ns", end_ns="end_ns"))


def step_at(trace: Trace, rows: pl.DataFrame) -> pl.Series:
    """For rows with ``pid``, ``tid`` and ``start_ns`` (of a call) the index of their thread's step, null outside.

    A row without ``tid``, because its call was lost, belongs to its process's thread where only one takes steps.
    """
    found = find_steps(trace).steps
    result = pl.Series("step", [None], dtype=pl.Int64).new_from_index(0, rows.height)
    threads = found.select("pid", "tid").unique().sort("pid", "tid")
    alone = threads.filter(pl.len().over("pid") == 1)["pid"].to_list()
    for pid, tid in threads.iter_rows():
        own = found.filter((pl.col("pid") == pid) & (pl.col("tid") == tid))
        at = assign(rows["start_ns"], own.select(start_ns="begin_ns", end_ns="end_ns"))
        here = (rows["pid"] == pid) & ((rows["tid"] == tid) | (rows["tid"].is_null() & (pid in alone)))
        indices = pl.DataFrame({"at": at}).select(pl.lit(own["index"]).gather("at")).to_series()
        here = here.fill_null(value=False)
        result = indices if here.all() else pl.select(pl.when(here).then(indices).otherwise(result)).to_series()
    return result.alias("step")


@once_per_trace
def op_steps(trace: Trace) -> pl.Series:
    """The index of the step that handed over each row of ``op_calls``, null outside of steps."""
    ops = op_calls(trace).select("pid", "tid", start_ns=HANDED_OVER)
    return step_at(trace, ops).cast(pl.Int32)


def _frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=STEP_COLUMNS).sort("begin_ns", "pid", "tid")
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


def _timed(trace: Trace, key: tuple[object, ...], passes: Sequence[ForwardPass]) -> tuple[list[TimedPass], int]:
    """When each pass was waited for and where its step ends; passes that nobody waited for are torn."""
    own = of_thread(key)
    calls = (
        api_calls(trace).select("start_ns", "end_ns", "pid", "tid").filter(call_classes(trace) == "sync").filter(own)
    )
    starts, ends = calls["start_ns"].to_list(), calls["end_ns"].to_list()
    op_ends = _op_ends(trace, key, passes)
    waited = _waited_blocked(trace, own) if trace.meta.sources.get("osrt", False) else None
    result: list[TimedPass] = []
    torn = 0
    for position, one in enumerate(passes):
        after = passes[position + 1] if position + 1 < len(passes) else None
        forward = _forward_end(starts, ends, one.last_call, op_ends[position], after.begin if after else None)
        if forward is None or not one.launched:
            torn += 1
            continue
        follows = bool(result) and bisect_left(starts, one.begin) - bisect_left(starts, result[-1].one.last_call) < 2
        result.append(TimedPass(one, forward, after.begin if after else forward, after is None, 0, follows))
    _close_requests(result, waited)
    return result, torn


def _op_ends(trace: Trace, key: tuple[object, ...], passes: Sequence[ForwardPass]) -> list[int]:
    """When the last operation that each pass handed over ended on a GPU; 0 when it left none."""
    ops = op_calls(trace).select("end_ns", "call_start_ns", "pid", "tid").filter(of_thread(key))
    spans = pl.DataFrame(
        {"start_ns": [one.begin for one in passes], "end_ns": [one.last_call for one in passes]},
        schema={"start_ns": pl.Int64, "end_ns": pl.Int64},
    )
    last = ops.select("end_ns", step=assign(ops["call_start_ns"], spans)).group_by("step").agg(pl.col("end_ns").max())
    found = dict(last.iter_rows())
    return [found.get(position, 0) for position in range(len(passes))]


def _forward_end(starts: list[int], ends: list[int], last_call: int, op_end: int, limit: int | None) -> int | None:
    """The end of the first wait after the last call that outlasts the pass's work, before the next step's inputs."""
    for position in range(bisect_left(starts, last_call), len(starts)):
        if limit is not None and starts[position] >= limit:
            break
        if ends[position] >= op_end:
            return ends[position]
    return None if limit is None else max(min(op_end, limit), last_call)


def _waited_blocked(trace: Trace, own: pl.Expr) -> pl.DataFrame:
    return union(classified_os_calls(trace).filter(own & (pl.col("class") == "blocked")))


def _close_requests(steps: list[TimedPass], blocked: pl.DataFrame | None) -> None:
    """An idle wait for work ends a request: most of the time to the next step is spent in a blocking OS call.

    ``blocked`` None, without the OS runtime: a pause far longer than any other work between steps must do.
    """
    pauses = pl.DataFrame(
        {
            "start_ns": [step.forward_end for step in steps],
            "end_ns": [max(step.end, step.forward_end) for step in steps],
        },
        schema={"start_ns": pl.Int64, "end_ns": pl.Int64},
    )
    waits = [None] * len(steps) if blocked is None else covered_ns(pauses, blocked).to_list()
    usual = float((pauses["end_ns"] - pauses["start_ns"]).median() or 0)  # type: ignore[arg-type]
    request = 0
    for step, waiting in zip(steps, waits, strict=True):
        pause = step.end - step.forward_end
        step.request = request
        if waiting is None:
            idle = pause > 20 * max(usual, _MIN_IDLE_NS)
        else:
            idle = pause > _MIN_IDLE_NS and pause > 3 * usual and 2 * waiting >= pause
        if step.last or idle:
            step.last, step.end = True, step.forward_end
            request += 1


def _described(trace: Trace, key: tuple[object, ...], steps: Sequence[TimedPass]) -> list[dict[str, object]]:
    vocabulary = n_vocab([step.one for step in steps])
    outputs = [n_outputs_of(step.one, vocabulary) for step in steps]
    phases = phases_of(steps, outputs, alone=never_mixes(trace))
    families = families_of(trace, key, steps)
    rows: list[dict[str, object]] = []
    for step, n_outputs, phase, family in zip(steps, outputs, phases, families, strict=True):
        confidence, evidence = confidence_of(step.one, n_outputs, phase, family)
        rows.append(
            {
                "index": 0, "pid": key[0], "tid": key[1], "request": step.request, "last_of_request": step.last,
                "phase": phase, "confidence": confidence, "evidence": evidence, "n_tokens": step.one.n_tokens,
                "n_outputs": n_outputs, "begin_ns": step.one.begin, "forward_end_ns": step.forward_end,
                "end_ns": step.end, "cold": False,
            }
        )  # fmt: skip
    return rows


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
