"""What a prompt costs the other slots: their tokens wait until the batch that holds a piece of it is through."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from nsyskit.analysis.positions import generating
from nsyskit.schema import Columns
from nsyskit.trace import Trace

CHUNKS: Final[Columns] = {
    "index": pl.Int64(), "generating": pl.Int64(), "prompt_tokens": pl.Int64(), "interval_ns": pl.Int64(),
    "usual_ns": pl.Float64(), "extra_ns": pl.Float64(),
}  # fmt: skip
"""Columns of ``PromptCost.chunks``."""


@dataclass(frozen=True, slots=True)
class PromptCost:
    """Batches that hold tokens of generating slots and a piece of another slot's prompt.

    Attributes:
        chunks: ``CHUNKS``, a row a batch: ``index`` of its first step; sequences ``generating`` in it, whose tokens
            wait; ``prompt_tokens`` of all its steps; ``interval_ns`` from its begin to the next batch's, the time
            between two tokens; ``usual_ns`` the median of such intervals for as many sequences without a prompt (of
            the nearest number of sequences that there are); ``extra_ns`` what the prompt added.
        counted: sequences that generate are known from the program's output; otherwise told from the outputs of the
            batch and of the one before, too many where slots end as others begin.
        tokens: generated tokens of all steps looked at.
        extra_ms: p50, p95 and max of what an affected token waits longer.
    """

    chunks: pl.DataFrame
    counted: bool
    tokens: int
    extra_ms: Mapping[str, float]

    @property
    def affected(self) -> int:
        """Generated tokens that a prompt delayed."""
        return int(self.chunks["generating"].sum())

    @property
    def affected_share(self) -> float:
        return self.affected / self.tokens if self.tokens else 0.0

    @property
    def us_per_prompt_token(self) -> float | None:
        """Time that a token of a prompt adds to the batch it comes in."""
        tokens = int(self.chunks["prompt_tokens"].sum())
        return float(self.chunks["extra_ns"].sum()) / tokens / 1e3 if tokens else None


def prompt_cost(trace: Trace, rows: pl.DataFrame, texts: tuple[str, ...] = ()) -> PromptCost | None:
    """The cost of prompts among ``rows`` (steps with their ``period_ns``); None where no batch holds both."""
    if not (rows["phase"] == "mixed").any():
        return None
    known = generating(trace, texts)
    decode = rows.filter((pl.col("phase") == "decode") & pl.col("period_ns").is_not_null())
    usual = dict(decode.group_by("n_tokens").agg(pl.col("period_ns").median()).sort("n_tokens").iter_rows())
    found = [
        chunk
        for _, own in rows.group_by("pid", "tid", maintain_order=True)
        for chunk in _chunks(own, known)
        if usual
    ]  # fmt: skip
    chunks = pl.DataFrame(found, schema={name: CHUNKS[name] for name in list(CHUNKS)[:4]}, orient="row")
    if chunks.is_empty():
        return None
    like = [usual[_nearest(list(usual), n)] for n in chunks["generating"]]
    chunks = chunks.with_columns(usual_ns=pl.Series(like, dtype=pl.Float64)).with_columns(
        extra_ns=pl.col("interval_ns") - pl.col("usual_ns")
    )
    waits = pl.select(pl.lit(chunks["extra_ns"]).repeat_by(chunks["generating"]).explode() / 1e6).to_series()
    mixed_only = rows.filter(pl.col("phase") == "mixed")["index"].to_list()
    counted = all(index in known for index in mixed_only)
    tokens = int(decode["n_tokens"].sum()) + int(chunks["generating"].sum())
    quantiles = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    extra = {name: float(waits.quantile(at, "nearest") or 0.0) for name, at in quantiles.items()}
    return PromptCost(chunks, counted, tokens, extra)


def _chunks(rows: pl.DataFrame, known: Mapping[int, int]) -> list[tuple[int, int, int, int]]:
    """Batches with both, of one thread: index, generating sequences, prompt tokens, interval.

    Later pieces of a long prompt in the same batch are steps of phase prefill: the generating slots' tokens come in its
    first step, and all are sampled at its end.
    """
    found: list[tuple[int, int, int, int]] = []
    answered = 0  # outputs of the batch before
    inside = False  # whether the step belongs to the batch of the last chunk
    columns = rows.select("index", "phase", "n_tokens", "n_outputs", "period_ns", later=pl.col("phase").shift(-1))
    for index, phase, n_tokens, n_outputs, period, later in columns.iter_rows():
        if phase == "mixed" and period is not None:
            ends = later != "prefill"  # then an output, at least one, is of a prompt
            count = known.get(index, max(1, min(answered or 1, (n_outputs or 1) - ends)))
            found.append((index, count, n_tokens - count, period))
            inside = True
        elif phase == "prefill" and inside and period is not None:
            first, count, tokens, interval = found[-1]
            found[-1] = (first, count, tokens + n_tokens, interval + period)
        else:
            inside = False
        answered = n_outputs or answered
    return found


def _nearest(sizes: list[int], n: int) -> int:
    at = bisect_left(sizes, n)
    return min(sizes[max(0, at - 1) : at + 1], key=lambda size: (abs(size - n), size))
