"""The program's own numbers beside the trace's: what llama.cpp's tools printed, and what the steps say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.program_batches import batched_ns, perplexity_ns
from nsyskit.analysis.program_runs import Asked, Pass, bench_ns, passes_of, perf_ns, served
from nsyskit.analysis.steps import find_steps
from nsyskit.analysis.trust import TrustNote
from nsyskit.errors import MissingTableError
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.trace import Trace, Window

DIFFERS: Final = 0.05
"""Above this share of difference the trace and the program do not tell the same story."""
_TOO_SHORT_MS: Final = 1.0
"""Differences below this are work around a step that only the program's clock covers."""

_PERF_TOOLS: Final = frozenset({"llama-cli", "llama-completion"})


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """One printed measurement beside the trace's own.

    Attributes:
        numbers: what was printed.
        trace_tokens_per_s: the same rate by the trace, None where no steps can be told to be these.
        matched: ``steps`` when the very steps were found, ``phase`` for the mean of all steps of the phase.
        slack_ms: by how much the trace's time may be off.
    """

    numbers: ProgramNumbers
    trace_tokens_per_s: float | None = None
    matched: Literal["steps", "phase"] | None = None
    slack_ms: float = 0.0

    @property
    def difference(self) -> float | None:
        """By how much the trace's rate exceeds the printed one, as a share of that."""
        printed = self.numbers.tokens_per_s
        if not printed or self.trace_tokens_per_s is None:
            return None
        return self.trace_tokens_per_s / printed - 1

    @property
    def differs(self) -> bool:
        """Whether the trace and the program contradict each other."""
        share = abs(self.difference or 0)
        ms = self.numbers.ms
        return share > DIFFERS and (ms is None or share * ms > _TOO_SHORT_MS + self.slack_ms)


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Printed measurements in the order of their output, processes by pid. Empty when the output holds none."""

    rows: tuple[ProgramRow, ...]


def program(trace: Trace, *, window: Window | None = None, texts: Sequence[str] = ()) -> ProgramResult:  # noqa: ARG001 - a run is timed as a whole
    """What the program printed about itself, whatever the window: it timed whole runs.

    Args:
        trace: holds stdout and stderr when nsys kept them.
        window: as of every analysis; not used.
        texts: output to read instead, such as a log file.

    Raises:
        MissingTableError: the trace holds no output, and none was given.
    """
    outputs = [(None, text) for text in texts] or kept_output(trace)
    if not outputs:
        raise MissingTableError("output of the program", hint="give its log with --log FILE")
    rows = [row for pid, text in outputs for row in _rows(trace, pid, parse_output(text))]
    return ProgramResult(tuple(rows))


def program_notes(result: ProgramResult | None) -> list[TrustNote]:
    """A warning for numbers that differ by more than ``DIFFERS``."""
    rows = [row for row in result.rows if row.differs] if result else []
    if not rows:
        return []
    worst = max(rows, key=lambda row: abs(row.difference or 0))
    text = (
        f"the trace and the program differ in {len(rows)} number(s), most in {worst.numbers.label}: "
        f"{worst.numbers.tokens_per_s:,.1f} tokens/s printed, {worst.trace_tokens_per_s:,.1f} by the trace "
        f"({worst.difference:+.1%}); profiling itself, or a part of the run that was not traced"
    )
    return [TrustNote("warning", "program_differs", text)]


@once_per_trace
def kept_texts(trace: Trace) -> tuple[tuple[int, str], ...]:
    """What each process wrote to stdout and stderr, as nsys kept it: pid and text, a stream each, by pid and name."""
    ids = trace.tables["streams_text"].collect()
    strings = trace.strings.collect()
    texts = strings.rename({"string_id": "content_id", "value": "text"})
    names = strings.rename({"string_id": "name_id", "value": "name"})
    rows = ids.join(texts, on="content_id", how="left").join(names, on="name_id", how="left").sort("pid", "name")
    return tuple((pid, text) for pid, text in rows.select("pid", "text").iter_rows() if text)


def kept_output(trace: Trace) -> list[tuple[int | None, str]]:
    """The output of each process as one text: its two streams may print the same test in two formats."""
    pids = sorted({pid for pid, _ in kept_texts(trace)})
    return [(pid, "\n".join(text for of, text in kept_texts(trace) if of == pid)) for pid in pids]


def _rows(trace: Trace, pid: int | None, numbers: Sequence[ProgramNumbers]) -> Iterator[ProgramRow]:
    """The measurements with what the steps of their process say."""
    steps = steps_of(trace, pid)
    found: dict[int, ProgramRow] = {}
    for tool in dict.fromkeys(one.tool for one in numbers):
        own = [one for one in numbers if one.tool == tool]
        rows = _MATCHERS.get(tool, _by_perf if tool in _PERF_TOOLS else _unmatched)(own, steps)
        found |= {id(one): row for one, row in zip(own, rows, strict=True)}
    return (found[id(one)] for one in numbers)


@dataclass(frozen=True, slots=True)
class ProgramSteps:
    """Steps that a program's numbers may be about: as rows of ``find_steps``, and as its clock sees them."""

    rows: pl.DataFrame
    passes: tuple[Pass, ...]


@once_per_trace
def steps_of(trace: Trace, pid: int | None) -> ProgramSteps:
    """The steps of the thread that the numbers are about; none where several threads might be meant.

    A wrapper may own the output: then the only thread with steps is meant.
    """
    steps = find_steps(trace).steps
    own = steps.filter(pl.col("pid") == pid) if pid is not None else steps.clear()
    own = steps if own.is_empty() else own
    own = own if own.select("pid", "tid").n_unique() == 1 else own.clear()
    return ProgramSteps(own, passes_of(own))


def _unmatched(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:  # noqa: ARG001 - a matcher
    return [ProgramRow(one) for one in numbers]


def _bench(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:
    rows = []
    for one, times in zip(numbers, bench_ns(numbers, steps.passes), strict=True):
        tokens = (one.n_prompt or 0) + (one.n_gen or 0)
        rates = [tokens / took * 1e9 for took in times if took > 0]
        rows.append(ProgramRow(one, sum(rates) / len(rates), "steps") if rates else _by_phase(one, numbers, steps.rows))
    return rows


def _by_phase(one: ProgramNumbers, numbers: Sequence[ProgramNumbers], steps: pl.DataFrame) -> ProgramRow:
    """The mean of all steps of a phase, where only one test can have made them."""
    alone = one.n_depth == 0 and [other.phase for other in numbers].count(one.phase) == 1
    alone = alone and all(other.phase != "mixed" and not other.n_depth for other in numbers)
    timed = steps.filter((pl.col("phase") == one.phase) & ~pl.col("last_of_request"))
    took = int((timed["end_ns"] - timed["begin_ns"]).sum())
    if not alone or took == 0:
        return ProgramRow(one)
    return ProgramRow(one, int(timed["n_tokens"].sum()) / took * 1e9, "phase")


def _served(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:
    """Two measurements a request, which began in the order of their tasks."""
    requests = requests_of(numbers)
    asked = [asked_by(request) for request in requests]
    rows: dict[int, ProgramRow] = {}
    for request, took in zip(requests, served(asked, steps.passes), strict=True):
        for part, ns in (("prompt", took.prompt_ns), ("gen", took.gen_ns)) if took else ():
            printed = request.get(part)
            if took and printed is not None and ns > 0 and printed.n_divisor:
                rows[id(printed)] = ProgramRow(printed, printed.n_divisor / ns * 1e9, "steps", took.slack_ns / 1e6)
    return [rows.get(id(one), ProgramRow(one)) for one in numbers]


Request = Mapping[str, ProgramNumbers]
"""What llama-server printed of a request's ``prompt`` and of its answer, ``gen``."""


def requests_of(numbers: Sequence[ProgramNumbers]) -> list[Request]:
    """The requests that llama-server's numbers are of, in the order of their tasks."""
    requests: dict[object, dict[str, ProgramNumbers]] = {}
    for one in numbers:
        key = one.extra.get("id_task", one.label.rsplit(" ", 1)[0])
        requests.setdefault(key, {})["prompt" if one.phase == "prefill" else "gen"] = one
    return [requests[task] for task in sorted(requests, key=lambda task: task if isinstance(task, int) else 0)]


def asked_by(request: Request) -> Asked:
    """What a request asked for; one without an answer's line has one token."""
    prompt, gen = request.get("prompt"), request.get("gen")
    n_prompt, n_gen = (prompt.n_prompt or 0 if prompt else 0), max(1, gen.n_gen or 0 if gen else 0)
    return Asked(n_prompt, n_gen, _cached(next(iter(request.values())), n_prompt, n_gen))


def _cached(one: ProgramNumbers, n_prompt: int, n_gen: int) -> int:
    """Tokens that a request's prompt found in the cache: what its slot held in the end, less what was computed."""
    held = one.extra.get("n_context")
    if isinstance(held, int):
        return max(0, held - n_prompt - n_gen)
    cache_n = one.extra.get("cache_n")
    return cache_n if isinstance(cache_n, int) else 0


def _by_perf(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:
    """Perf lines of a run with one prompt and one answer."""
    timed = {phase: [one for one in numbers if one.phase == phase] for phase in ("prefill", "decode")}
    if any(len(rows) > 1 for rows in timed.values()):
        return _unmatched(numbers, steps)
    n_prompt, n_gen = (
        sum(getattr(one, name) or 0 for one in timed[phase])
        for phase, name in (("prefill", "n_prompt"), ("decode", "n_gen"))
    )
    took = perf_ns(n_prompt, n_gen, steps.passes, steps.rows["phase"].to_list())
    rates = {
        id(one): (one.n_divisor or 0) / took[phase] * 1e9
        for phase, rows in timed.items()
        for one in rows
        if took.get(phase)
    }
    return [ProgramRow(one, rates[id(one)], "steps") if rates.get(id(one)) else ProgramRow(one) for one in numbers]


def _batched(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:
    times = batched_ns(numbers, steps.passes)
    return [
        ProgramRow(one, one.n_divisor / took * 1e9, "steps") if took and one.n_divisor else ProgramRow(one)
        for one, took in zip(numbers, times, strict=True)
    ]


def _perplexity(numbers: Sequence[ProgramNumbers], steps: ProgramSteps) -> list[ProgramRow]:
    """Its own time of a pass; of perf lines it has one for all prompts, for it generates nothing."""
    rows = []
    for one in numbers:
        if one.label.startswith("pass ") and (took := perplexity_ns(one.n_prompt or 0, steps.passes)):
            ns, slack_ms = took
            rows.append(ProgramRow(one, (one.n_prompt or 0) / ns * 1e9, "steps", slack_ms))
        elif one.phase == "prefill" and not one.label.startswith("pass "):
            phases = ["prefill"] * len(steps.passes)
            ns = perf_ns(one.n_prompt or 0, 0, steps.passes, phases).get("prefill", 0)
            rows.append(ProgramRow(one, (one.n_prompt or 0) / ns * 1e9, "steps") if ns else ProgramRow(one))
        else:
            rows.append(ProgramRow(one))
    return rows


_MATCHERS: Final[dict[str, Callable[[Sequence[ProgramNumbers], ProgramSteps], list[ProgramRow]]]] = {
    "llama-bench": _bench,
    "llama-server": _served,
    "llama-batched-bench": _batched,
    "llama-perplexity": _perplexity,
}
