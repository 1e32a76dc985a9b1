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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import pairwise
from math import gcd
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.causes import classified_os_calls
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.launches import GRAPH_LAUNCH, calls_named, captures, launch_calls
from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.pairing import api_calls, call_classes, op_calls
from nsyskit.intervals import assign, count_upto, covered_ns, union
from nsyskit.trace import Trace

Phase = Literal["prefill", "decode", "mixed"]

STEP_COLUMNS: Final = {
    "index": pl.Int64, "pid": pl.Int32, "tid": pl.Int32, "request": pl.Int64, "last_of_request": pl.Boolean,
    "phase": pl.String, "confidence": pl.String, "evidence": pl.String,
    "n_tokens": pl.Int64, "n_outputs": pl.Int64,
    "begin_ns": pl.Int64, "forward_end_ns": pl.Int64, "end_ns": pl.Int64, "cold": pl.Boolean,
}  # fmt: skip
"""Columns of `StepsFound.steps`."""

_MAX_GROUP: Final = 32
_MAX_TOKENS: Final = 65_536
_MAX_UBATCH: Final = 8_192
_MAX_VECTOR_BATCH: Final = 8
_BREAKS_GROUP: Final = "^(cuda|cu)(Malloc|Free|HostAlloc|Host|Memset|Module|Library|StreamCreate|Ctx|Init)"
_BUILDS: Final = "^(cuda|cu)(StreamBeginCapture|GraphInstantiate|Module(Load|Get)|LibraryLoad)"
_MIN_IDLE_NS: Final = 200_000
_NEVER_MIXING_TOOLS: Final = frozenset({
    "llama-bench", "llama-cli", "llama-completion", "llama-simple", "llama-batched-bench", "llama-perplexity",
})  # fmt: skip


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


@dataclass(slots=True)
class _Upload:
    at: int
    done: int
    size: int
    device: int
    row: int  # in the trace's memcpys


@dataclass(slots=True)
class _Segment:
    """A group of uploads and the work that follows it, up to the next upload."""

    uploads: list[_Upload]
    n_tokens: int | None
    last_call: int = 0
    launched: bool = False
    downloads: list[tuple[int, int]] = field(default_factory=list)  # (call, bytes)


@dataclass(slots=True)
class _Pass:
    """A forward pass: the segments from one step's opening to the next."""

    segments: list[_Segment] = field(default_factory=list)
    last_call: int = 0
    launched: bool = False

    def add(self, segment: _Segment) -> None:
        self.segments.append(segment)
        self.last_call = max(self.last_call, segment.last_call)
        self.launched = self.launched or segment.launched

    @property
    def begin(self) -> int:
        return self.segments[0].uploads[0].at

    @property
    def n_tokens(self) -> int:
        return self.segments[0].n_tokens or 0  # a pass opens with a segment that has some

    @property
    def devices(self) -> set[int]:
        return {upload.device for segment in self.segments if segment.n_tokens for upload in segment.uploads}

    @property
    def output_bytes(self) -> int:
        """Bytes of the last copy back, which nothing but the next step's uploads follows; 0 without one."""
        downloads = self.segments[-1].downloads
        return downloads[-1][1] if downloads else 0


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
    for key, events in _events(trace).group_by("pid", "tid", maintain_order=True):
        passes, lost = _passes(events)
        torn += lost
        vocabulary = _n_vocab(passes) or vocabulary
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
    ops = op_calls(trace).select("pid", "tid", start_ns=pl.coalesce("call_start_ns", "start_ns"))
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


_AT: Final = (
    pl.col("pid"), pl.col("tid"), pl.col("start_ns").alias("at"), pl.col("start_ns").alias("last"),
    pl.col("end_ns").alias("done"),
)  # fmt: skip


def _events(trace: Trace) -> pl.DataFrame:
    """What a thread did, in the order of its calls: ``pid tid at kind device bytes done``.

    Kinds: ``up`` HtoD copy, ``down`` DtoH copy, ``run`` launches (neighbours put together), ``break`` other calls that
    no ubatch makes between its uploads. Rows of lost calls stand where their operation began.
    """
    copies = trace.memcpys.select(pl.col("label").cast(pl.String), "bytes").collect()
    ops = op_calls(trace).filter(pl.col("kind") == "memcpy")
    ops = ops.with_columns(label=copies["label"][ops["row"]], bytes=copies["bytes"][ops["row"]])
    at = pl.coalesce("call_start_ns", "start_ns")
    kind = pl.col("label").replace_strict({"HtoD": "up", "DtoH": "down"}, default=None, return_dtype=pl.String)
    columns = ["pid", "tid", "at", "last", "done", "kind", "device", "bytes", "row"]
    moved = ops.with_columns(
        pl.col("row").cast(pl.Int64), at=at, last=at, done=pl.coalesce("call_end_ns", "start_ns"), kind=kind
    ).filter(pl.col("kind").is_not_null())
    moved = moved.select(columns)
    breaks = _happened(calls_named(trace, _BREAKS_GROUP).select(_AT), "break").select(columns)
    orphans = _happened(_orphan_graphs(trace), "run").select(columns)
    launches = _launches(trace)
    others = pl.concat([moved, breaks, orphans])
    runs = _happened(launches if others["tid"].null_count() else _runs(launches, others), "run").select(columns)
    events = pl.concat([moved, runs, orphans, breaks])
    events = _adopt_orphans(events).sort("pid", "tid", "at", maintain_order=True)
    same = (pl.col("kind") == "run") & (pl.col("kind").shift(1) == "run")
    same &= (pl.col("tid") == pl.col("tid").shift(1)) & (pl.col("pid") == pl.col("pid").shift(1))
    block = (~same.fill_null(value=False)).cum_sum()
    return events.group_by(block.alias("block"), maintain_order=True).agg(
        pl.col("pid", "tid", "at", "kind", "device", "bytes", "row").first(),
        pl.col("done", "last").max(),
    )


def _happened(rows: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Rows with ``pid tid at last done`` as events that move nothing."""
    return rows.select(
        "pid", "tid", "at", "last", "done", kind=pl.lit(kind), device=pl.lit(-1, pl.Int32), bytes=pl.lit(0, pl.Int64),
        row=pl.lit(-1, pl.Int64),
    )  # fmt: skip


def _launches(trace: Trace) -> pl.DataFrame:
    """Launches of kernels and graphs that did not only record a graph: ``pid tid at last done`` by start."""
    calls = launch_calls(trace)
    kernels = calls.filter(~pl.col("captured")) if calls["captured"].any() else calls
    graphs = calls_named(trace, GRAPH_LAUNCH)
    rows = [frame.select(_AT) for frame in (kernels, graphs)]
    return rows[0] if graphs.is_empty() else pl.concat(rows).sort("at", maintain_order=True)


def _runs(launches: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """A thread's launches put together from one other event to the next: millions of rows fewer to sort."""
    frames = [launches.clear()]
    for pid, tid in launches.select("pid", "tid").unique().sort("pid", "tid").iter_rows():
        of_thread = _of((pid, tid))
        own = launches.filter(of_thread)
        block = count_upto(others.filter(of_thread)["at"].sort(), own["at"]).cast(pl.UInt32)
        runs = own.group_by(block.alias("block"), maintain_order=True)
        frames.append(runs.agg(pl.col("pid", "tid", "at").first(), pl.col("last", "done").max()).drop("block"))
    return pl.concat(frames)


def _orphan_graphs(trace: Trace) -> pl.DataFrame:
    """Whole graphs whose launch call was lost: one may be all that a step ran."""
    lost = op_calls(trace).filter((pl.col("kind") == "graph") & pl.col("call").is_null())
    return lost.select("pid", "tid", at="start_ns", last="start_ns", done="start_ns")


def _adopt_orphans(events: pl.DataFrame) -> pl.DataFrame:
    """Give rows of lost calls to the thread of their process that made the call before."""
    return events.sort("pid", "at", maintain_order=True).with_columns(
        pl.col("tid").forward_fill().backward_fill().over("pid")
    ).drop_nulls("tid")  # fmt: skip


def _passes(events: pl.DataFrame) -> tuple[list[_Pass], int]:
    """The forward passes of one thread, and how many began before the trace did."""
    segments = list(_segments(events))
    indexed = any(_tokens_by_indices(_sizes(segment)) for segment in segments)
    tokens = _tokens_by_indices if indexed else _tokens_by_positions
    for segment in segments:
        segment.n_tokens = tokens(_sizes(segment))
    passes: list[_Pass] = []
    torn = 0
    for segment in segments:
        if segment.n_tokens and _opens(segment, passes[-1] if passes else None):
            passes.append(_Pass())
        if passes:
            passes[-1].add(segment)
        elif segment.launched:
            torn = 1  # work whose uploads were not seen
    return passes, torn


def _segments(events: pl.DataFrame) -> Iterator[_Segment]:
    current = _Segment([], None)
    columns = events.select("kind", "at", "last", "done", "bytes", "device", "row")
    for kind, at, last, done, size, device, row in columns.iter_rows():
        if kind == "up":
            if current.launched or current.downloads:
                yield current
                current = _Segment([], None)
            current.uploads.append(_Upload(at, done, size, device, row))
            del current.uploads[:-_MAX_GROUP]
        elif kind == "break":
            if not current.launched and not current.downloads:
                current.uploads = []  # weights, not inputs
        else:
            current.launched = current.launched or kind == "run"
            if kind == "down":
                current.downloads.append((at, size))
        if kind != "break":
            current.last_call = max(current.last_call, last, done)
    if current.launched or current.downloads or current.uploads:
        yield current


def _sizes(segment: _Segment) -> tuple[int, ...]:
    """Without those that a damaged row does not tell."""
    return tuple(upload.size for upload in segment.uploads if upload.size is not None)


@lru_cache(maxsize=4_096)  # most steps upload the same sizes as others
def _tokens_by_indices(sizes: tuple[int, ...]) -> int | None:
    """How many tokens a group of uploads is for, None when it is no group of user inputs.

    KV indices, 8 bytes a token and in pairs for K and V, stand beside positions of 4 bytes a token (M-RoPE 16).
    """
    counts = Counter(sizes)
    found: list[tuple[int, bool, int]] = []
    for n in {size // 8 for size in counts if 0 < size <= 8 * _MAX_TOKENS and size % 8 == 0}:
        plain, indices = counts[4 * n], counts[8 * n]
        positions = plain or counts[16 * n]
        if positions and indices >= 2 and indices % 2 == 0:
            found.append((positions + indices, plain > 0, -n))
    return -max(found)[2] if found else None


@lru_cache(maxsize=4_096)
def _tokens_by_positions(sizes: tuple[int, ...]) -> int | None:
    """The same for versions without KV indices: every other upload is a whole number of rows for n tokens.

    Embeddings and masks are multiples of 2 bytes a token and larger than positions; output ids are fewer and last.
    """
    found = [0]
    for size in set(sizes):
        n, rest = divmod(size, 4)
        if rest or not 0 < n <= _MAX_UBATCH:
            continue
        smaller = [place for place, other in enumerate(sizes) if other < size]
        if smaller in ([], [len(sizes) - 1]) and all(other % (2 * n) == 0 for other in sizes if other > size):
            found.append(n)
    return max(found) or None if len(sizes) > 1 else None


def _opens(segment: _Segment, current: _Pass | None) -> bool:
    """Whether user inputs begin another step: their device had its own already, or the last step has given output."""
    if current is None or current.segments[-1].downloads:
        return True
    return bool({upload.device for upload in segment.uploads} & current.devices)


def _n_vocab(passes: Sequence[_Pass]) -> int | None:
    """From the sizes of output copies: 4 bytes a token of the vocabulary and output; None when they are no logits.

    Best told by steps of one token, else by the output ids, else by what all sizes are a multiple of.
    """
    sizes = [(one, one.output_bytes // 4) for one in passes if one.output_bytes]
    told = [size for one, size in sizes if one.n_tokens == 1]
    told = told or [size // ids for one, size in sizes if (ids := _output_ids(one)) and size % ids == 0]
    votes = Counter(told).most_common(1)
    found = votes[0][0] if votes else reduce(gcd, (size for _, size in sizes), 0)
    return found if found > _MAX_VECTOR_BATCH else None


@dataclass(slots=True)
class _Timed:
    one: _Pass
    forward_end: int
    end: int
    last: bool
    request: int
    same_batch: bool  # as the step before: nobody waited for that one before handing over this one's inputs


def _timed(trace: Trace, key: tuple[object, ...], passes: Sequence[_Pass]) -> tuple[list[_Timed], int]:
    """When each pass was waited for and where its step ends; passes that nobody waited for are torn."""
    own = _of(key)
    calls = (
        api_calls(trace).select("start_ns", "end_ns", "pid", "tid").filter(call_classes(trace) == "sync").filter(own)
    )
    starts, ends = calls["start_ns"].to_list(), calls["end_ns"].to_list()
    op_ends = _op_ends(trace, key, passes)
    waited = _waited_blocked(trace, own) if trace.meta.sources.get("osrt", False) else None
    result: list[_Timed] = []
    torn = 0
    for position, one in enumerate(passes):
        after = passes[position + 1] if position + 1 < len(passes) else None
        forward = _forward_end(starts, ends, one.last_call, op_ends[position], after.begin if after else None)
        if forward is None or not one.launched:
            torn += 1
            continue
        follows = bool(result) and bisect_left(starts, one.begin) - bisect_left(starts, result[-1].one.last_call) < 2
        result.append(_Timed(one, forward, after.begin if after else forward, after is None, 0, follows))
    _close_requests(result, waited)
    return result, torn


def _of(key: tuple[object, ...]) -> pl.Expr:
    """The rows of one thread."""
    return pl.all_horizontal(pl.col("pid") == pl.lit(key[0]), pl.col("tid") == pl.lit(key[1]))


def _op_ends(trace: Trace, key: tuple[object, ...], passes: Sequence[_Pass]) -> list[int]:
    """When the last operation that each pass handed over ended on a GPU; 0 when it left none."""
    ops = op_calls(trace).select("end_ns", "call_start_ns", "pid", "tid").filter(_of(key))
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


def _close_requests(steps: list[_Timed], blocked: pl.DataFrame | None) -> None:
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


def _described(trace: Trace, key: tuple[object, ...], steps: Sequence[_Timed]) -> list[dict[str, object]]:
    vocabulary = _n_vocab([step.one for step in steps])
    outputs = [_n_outputs(step.one, vocabulary) for step in steps]
    phases = _phases(steps, outputs, alone=_never_mixes(trace))
    families = _families(trace, key, steps)
    rows: list[dict[str, object]] = []
    for step, n_outputs, phase, family in zip(steps, outputs, phases, families, strict=True):
        confidence, evidence = _confidence(step.one, n_outputs, phase, family)
        rows.append(
            {
                "index": 0, "pid": key[0], "tid": key[1], "request": step.request, "last_of_request": step.last,
                "phase": phase, "confidence": confidence, "evidence": evidence, "n_tokens": step.one.n_tokens,
                "n_outputs": n_outputs, "begin_ns": step.one.begin, "forward_end_ns": step.forward_end,
                "end_ns": step.end, "cold": False,
            }
        )  # fmt: skip
    return rows


def _n_outputs(one: _Pass, vocabulary: int | None) -> int | None:
    """From the logits copy, else from the output ids (the last upload, 4 bytes an output); 0 when nothing came back."""
    if one.output_bytes and vocabulary and one.output_bytes % (4 * vocabulary) == 0:
        return one.output_bytes // (4 * vocabulary)
    if ids := _output_ids(one):
        return ids
    if one.output_bytes and one.output_bytes % 4 == 0 and one.output_bytes <= 4 * one.n_tokens:
        return one.output_bytes // 4
    return None if one.output_bytes else 0


def _output_ids(one: _Pass) -> int | None:
    """How many output ids were uploaded, last and 4 bytes each; None where the last upload is something else."""
    uploads = [size for segment in one.segments if segment.n_tokens for size in _sizes(segment)]
    last = uploads[-1]
    spare = Counter(uploads)[4 * one.n_tokens] > 1 or last < 4 * one.n_tokens
    return last // 4 if last % 4 == 0 and last <= 4 * one.n_tokens and spare else None


def _never_mixes(trace: Trace) -> bool:
    """Whether no batch of the program holds prompts beside generating sequences, as its command line tells."""
    command = trace.meta.capture.command
    program = command[0].rsplit("/", 1)[-1] if command else ""
    if program in _NEVER_MIXING_TOOLS:
        return True
    slots = [value for flag, value in pairwise(command) if flag in {"-np", "--parallel", "--n-parallel"}]
    return program == "llama-server" and slots[-1:] == ["1"]


def _phases(steps: Sequence[_Timed], outputs: Sequence[int | None], *, alone: bool) -> list[Phase]:
    """decode: every token has its output; prefill: fewer have; mixed: prompts and generating sequences share a ubatch.

    llama-server gives every generating sequence a token in each batch. So fewer outputs than tokens while sequences
    generate is mixed, unless the one that did has just finished, which the next step tells.
    """
    phases: list[Phase] = []
    generating = answered = 0  # sequences that may have a token in this batch; outputs of the batch so far
    for position, (step, n_outputs) in enumerate(zip(steps, outputs, strict=True)):
        known = n_outputs or 0
        if position and steps[position - 1].request != step.request:
            generating = answered = 0
        if not step.same_batch:
            generating, answered = answered or generating, 0
            if n_outputs is not None:  # their tokens come first in a batch: those beyond its outputs have finished
                generating = min(generating, n_outputs)
        answered += known
        if n_outputs is None or n_outputs >= step.one.n_tokens:
            phases.append("decode" if known else "prefill")
        else:
            finished = generating == 1 and known == 1 and _next_decodes(steps, outputs, position)
            mixed = not alone and generating > 0 and known > 0 and not finished
            phases.append("mixed" if mixed else "prefill")
        generating = max(0, generating - known)
    return phases


def _next_decodes(steps: Sequence[_Timed], outputs: Sequence[int | None], position: int) -> bool:
    if position + 1 >= len(steps) or steps[position + 1].request != steps[position].request:
        return True
    return outputs[position + 1] == steps[position + 1].one.n_tokens


def _families(trace: Trace, key: tuple[object, ...], steps: Sequence[_Timed]) -> list[str | None]:
    """Which family did most of each step's matrix products: ``vector``, ``matrix``, None where kernels are hidden."""
    facts = kernel_facts(trace).select("name_id", "family", "category")
    products = facts.filter(pl.col("category").str.starts_with("matmul"))
    kernels = op_calls(trace).select("start_ns", "end_ns", "kind", "pid", "tid", "row", "call_start_ns")
    kernels = kernels.filter((pl.col("kind") == "kernel") & _of(key))
    ids = trace.kernels.select("name_id").collect()["name_id"]
    begins = pl.Series([step.one.begin for step in steps], dtype=pl.Int64)
    rows = kernels.select(
        step=count_upto(begins, kernels["call_start_ns"]).cast(pl.Int32) - 1,
        name_id=ids.gather(kernels["row"]), dur=pl.col("end_ns") - pl.col("start_ns"),
    ).filter(pl.col("name_id").is_in(products["name_id"].implode()))  # fmt: skip
    sums = rows.group_by("step", "name_id").agg(pl.col("dur").sum())
    named = sums.join(products, on="name_id", how="left")
    vector = pl.col("dur").filter(pl.col("family").str.starts_with("mul_mat_vec")).sum()
    shares = named.group_by("step").agg(share=vector / pl.col("dur").sum())
    found = dict(shares.iter_rows())
    return [
        None if found.get(position) is None else "vector" if found[position] > 0.5 else "matrix"
        for position in range(len(steps))
    ]


def _confidence(one: _Pass, n_outputs: int | None, phase: Phase, family: str | None) -> tuple[str, str]:
    """Two witnesses: what was uploaded and copied back, and the kernels that ran."""
    expected = "vector" if one.n_tokens <= _MAX_VECTOR_BATCH else "matrix"
    said = f"{one.n_tokens} tokens in, {'?' if n_outputs is None else n_outputs} outputs"
    if phase == "decode" and one.n_tokens == 1:
        said += " (a one-token prompt looks the same)"
    if n_outputs is None:
        return "low", said
    if family is None:
        return "medium", f"{said}; kernels not visible"
    return ("high", f"{said}; {family} kernels") if family == expected else ("medium", f"{said}, yet {family} kernels")


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
