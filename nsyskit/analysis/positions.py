"""How many tokens lie in the context at each step: what attention has to read.

A trace shows how many tokens a step takes, not where they stand. What the program printed tells which test or request a
step belongs to; without that, one sequence alone can be counted from its prompt. Otherwise only the distance from the
last prompt is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.memo import once_per_trace
from nsyskit.analysis.program import asked_by, kept_output, requests_of, steps_of
from nsyskit.analysis.program_batches import batched_depths
from nsyskit.analysis.program_runs import Depths, Pass, bench_depths, served_depths
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

_COLUMNS: Final[Columns] = {"index": pl.Int64(), "sequences": pl.Int64(), "total": pl.Int64()}
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
    rules: dict[Basis, Callable[[], pl.DataFrame]] = {
        "program": lambda: _by_program(trace, texts),
        "prompt": lambda: _by_prompt(trace, steps),
    }
    for basis, find in rules.items():
        rows = _means(find()).join(decode.select("index"), on="index", how="semi", maintain_order="left")
        if 2 * rows.height > decode.height:
            return Positions(basis, rows, _masks(trace, rows))
    return Positions("since_prefill", _means(_since_prefill(steps)), 0)


@once_per_trace
def generating(trace: Trace, texts: tuple[str, ...] = ()) -> Mapping[int, int]:
    """For steps whose sequences the program's output tells: how many of them generate, by the step's index."""
    return dict(_by_program(trace, texts).select("index", "sequences").iter_rows())


def _means(found: pl.DataFrame) -> pl.DataFrame:
    return found.select("index", (pl.col("total") / pl.col("sequences")).alias("depth"), "total").sort("index")


@once_per_trace
def _by_program(trace: Trace, texts: tuple[str, ...]) -> pl.DataFrame:
    """Depths where the program's output tells which test or request a step belongs to: ``index sequences total``."""
    found = [pl.DataFrame(schema=_COLUMNS)]
    for pid, text in [(None, text) for text in texts] or kept_output(trace):
        numbers = parse_output(text)
        steps = steps_of(trace, pid)
        for tool, depths_of in _TELLING.items():
            own = [one for one in numbers if one.tool == tool]
            if own and steps.passes:
                depths = depths_of(own, steps.passes)
                columns = {"index": steps.rows["index"], "sequences": depths.sequences, "total": depths.totals}
                found.append(pl.DataFrame(columns, schema=_COLUMNS).filter(pl.col("sequences") > 0))
    return pl.concat(found)


def _server(numbers: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> Depths:
    return served_depths([asked_by(request) for request in requests_of(numbers)], passes)


_TELLING: Final = {"llama-bench": bench_depths, "llama-batched-bench": batched_depths, "llama-server": _server}
"""Tools whose output tells depths, and how."""


def _by_prompt(trace: Trace, steps: pl.DataFrame) -> pl.DataFrame:
    """One sequence alone: its prompt, and a token a step."""
    found = [pl.DataFrame(schema=_COLUMNS)]
    if {trace.meta.program_of(pid) for pid in steps["pid"].unique()} & _NOT_ONE_CONTEXT:
        return found[0]
    for _, own in steps.group_by("pid", "tid", maintain_order=True):
        decodes, prefills = own["phase"] == "decode", own["phase"] == "prefill"
        if not (decodes | prefills).all() or (own.filter(decodes)["n_tokens"] > 1).any():
            continue
        prompts = (prefills & ~prefills.shift(1, fill_value=False)).cum_sum()  # 0 before the first
        counted = own.with_columns(total=pl.col("n_tokens").cum_sum().over(prompts))
        found.append(_alone(counted.filter(decodes & (prompts > 0))))
    return pl.concat(found)


def _since_prefill(steps: pl.DataFrame) -> pl.DataFrame:
    """Steps of decode since the last other one of their thread."""
    decodes = pl.col("phase") == "decode"
    thread = ["pid", "tid"]
    counted = steps.with_columns(run=(~decodes).cum_sum().over(thread)).filter(decodes)
    return _alone(counted.with_columns(total=pl.int_range(1, pl.len() + 1).over(*thread, "run")))


def _alone(rows: pl.DataFrame) -> pl.DataFrame:
    """As of one sequence."""
    return rows.select("index", pl.lit(1, pl.Int64).alias("sequences"), pl.col("total").cast(pl.Int64))


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
