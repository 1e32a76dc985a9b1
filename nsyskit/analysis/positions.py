"""How many tokens lie in the context at each step: what attention has to read.

A trace shows how many tokens a step takes, not where they stand. What the program printed tells which test or request a
step belongs to; without that, one sequence alone can be counted from its prompt. Otherwise only the distance from the
last prompt is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.program import kept_output, request_counts, requests_of, steps_of
from nsyskit.analysis.program_batches import batched_depths
from nsyskit.analysis.program_runs import bench_depths, passes_of, served_depths
from nsyskit.analysis.steps import find_steps
from nsyskit.ggml.outputs import ProgramNumbers, parse_output
from nsyskit.schema import Columns
from nsyskit.trace import Trace

Basis = Literal["program", "prompt", "since_prefill"]

BASES: Final[dict[Basis, str]] = {
    "program": "told by the program's output and the order of steps",
    "prompt": "counted from the prompts in the trace; what a prompt cache held before them is not in it",
    "since_prefill": "unknown: counted from the last prompt instead, for neither the program's output nor a single "
    "sequence tells it",
}
"""Where depths come from, in words."""

_COLUMNS: Final[Columns] = {"index": pl.Int64(), "depth": pl.Float64(), "total": pl.Int64()}
_CELLS: Final = 256
_MASK_BYTES: Final = (2, 4)
_MASK_ROWS: Final = 64
_NOT_ONE_CONTEXT: Final = frozenset({"llama-bench", "llama-batched-bench", "llama-perplexity"})
"""Tools that empty the cache between tests, which no step shows."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Depths of decode steps.

    Attributes:
        basis: where they come from; one for all, so that they can be compared.
        rows: ``index depth total``: of each decode step the mean over its sequences of the tokens in context, itself
            among them, and their sum; steps whose depth is not known are left out.
        checked: decode steps that upload an attention mask of the size that follows from ``total``, as llama.cpp pads
            the cells it looks at; 0 where the masks tell nothing.
    """

    basis: Basis
    rows: pl.DataFrame
    checked: int


@once_per_trace
def positions(trace: Trace, texts: tuple[str, ...] = ()) -> Positions:
    """The depth of every decode step.

    Args:
        trace: with steps.
        texts: output of the program to read instead of what the trace kept.
    """
    steps = find_steps(trace).steps
    decode = steps.filter(pl.col("phase") == "decode")
    rules: dict[Basis, Iterable[tuple[int, tuple[int, ...]]]] = {
        "program": _by_program(trace, texts),
        "prompt": _by_prompt(trace, steps),
    }
    for basis, found in rules.items():
        rows = _frame(found).join(decode.select("index"), on="index", how="semi", maintain_order="left")
        if 2 * rows.height > decode.height:
            return Positions(basis, rows, _masks(trace, rows))
    return Positions("since_prefill", _frame(_since_prefill(steps)), 0)


@once_per_trace
def generating(trace: Trace, texts: tuple[str, ...] = ()) -> dict[int, int]:
    """For steps whose sequences the program's output tells: how many of them generate, by the step's index."""
    return {index: len(depths) for index, depths in _by_program(trace, texts) if depths}


def _frame(found: Iterable[tuple[int, tuple[int, ...]]]) -> pl.DataFrame:
    rows = [(index, sum(depths) / len(depths), sum(depths)) for index, depths in found if depths]
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row").sort("index")


@once_per_trace
def _by_program(trace: Trace, texts: tuple[str, ...]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Depths of a step's sequences, where the program's output tells which test or request it belongs to."""
    return tuple(_told(trace, texts))


def _told(trace: Trace, texts: tuple[str, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
    for pid, text in [(None, text) for text in texts] or kept_output(trace):
        numbers = parse_output(text)
        steps = steps_of(trace, pid)
        for tool, depths_of in _TELLING.items():
            own = [one for one in numbers if one.tool == tool]
            if own and steps.height:
                yield from zip(steps["index"], depths_of(own, steps), strict=True)


def _batched(numbers: Sequence[ProgramNumbers], steps: pl.DataFrame) -> list[tuple[int, ...]]:
    return batched_depths(numbers, passes_of(steps))


def _bench(numbers: Sequence[ProgramNumbers], steps: pl.DataFrame) -> list[tuple[int, ...]]:
    return [() if depth is None else (depth,) for depth in bench_depths(numbers, passes_of(steps))]


def _server(numbers: Sequence[ProgramNumbers], steps: pl.DataFrame) -> list[tuple[int, ...]]:
    requests = requests_of(numbers)
    counts = [request_counts(request) for request in requests]
    cached = [
        _cached(next(iter(request.values())), *count) for request, count in zip(requests, counts, strict=True)
    ]  # fmt: skip
    return [depths or () for depths in served_depths(counts, passes_of(steps), cached)]


_TELLING: Final = {"llama-bench": _bench, "llama-batched-bench": _batched, "llama-server": _server}
"""Tools whose output tells depths, and how."""


def _cached(one: ProgramNumbers, n_prompt: int, n_gen: int) -> int:
    """Tokens that a request's prompt found in the cache: what its slot held in the end, less what was computed."""
    held = one.extra.get("n_context")
    if isinstance(held, int):
        return max(0, held - n_prompt - n_gen)
    cache_n = one.extra.get("cache_n")
    return cache_n if isinstance(cache_n, int) else 0


def _by_prompt(trace: Trace, steps: pl.DataFrame) -> Iterator[tuple[int, tuple[int, ...]]]:
    """One sequence alone: its prompt, and a token a step."""
    programs = {trace.meta.program_of(pid) for pid in steps["pid"].unique()}
    if programs & _NOT_ONE_CONTEXT:
        return
    for _, own in steps.group_by("pid", "tid", maintain_order=True):
        batches = own.filter(pl.col("phase") == "decode")["n_tokens"]
        if own["phase"].is_in(["mixed"]).any() or (batches > 1).any():
            continue
        depth: int | None = None
        before = ""
        for index, phase, n_tokens in own.select("index", "phase", "n_tokens").iter_rows():
            if phase == "prefill":
                depth = n_tokens + ((depth or 0) if before == "prefill" else 0)
            elif depth is not None:
                depth += n_tokens
                yield index, (depth,)
            before = phase


def _since_prefill(steps: pl.DataFrame) -> Iterator[tuple[int, tuple[int, ...]]]:
    for _, own in steps.group_by("pid", "tid", maintain_order=True):
        count = 0
        for index, phase in own.select("index", "phase").iter_rows():
            count = count + 1 if phase == "decode" else 0
            if count:
                yield index, (count,)


def _masks(trace: Trace, rows: pl.DataFrame) -> int:
    """In how many steps an upload has the size of the attention mask; of the ways to lay it out the best fitting.

    llama.cpp looks at a multiple of 256 cells. Of each it uploads two or four bytes a token of the batch, in older
    versions for a multiple of 64 tokens.
    """
    found = find_steps(trace)
    sizes = trace.memcpys.select("bytes", "start_ns").collect()[found.input_copies]
    steps = found.steps.join(rows, on="index", how="inner", maintain_order="left")
    at = steps["begin_ns"].search_sorted(sizes["start_ns"], side="right").cast(pl.Int64) - 1
    uploads = sizes.select("bytes", at=at).filter(pl.col("at") >= 0).unique()
    wanted = steps.select("n_tokens", "total", at=pl.int_range(pl.len(), dtype=pl.Int64))
    best = 0
    for size in _MASK_BYTES:
        for row_block in (1, _MASK_ROWS):
            tokens = (pl.col("n_tokens") + (row_block - 1)) // row_block * row_block
            # the cell for the next token may be reserved already
            padded = [
                wanted.with_columns(bytes=size * tokens * ((pl.col("total") + more + _CELLS - 1) // _CELLS * _CELLS))
                for more in (0, 1)
            ]
            fitting = pl.concat(padded).join(uploads, on=["at", "bytes"], how="semi")
            best = max(best, fitting["at"].n_unique())
    return best
