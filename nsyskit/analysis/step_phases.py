"""What kind of work a step was: prefill, decode or both, and how sure that is."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.forward_passes import MAX_VECTOR_BATCH
from nsyskit.trace import Trace

Phase = Literal["prefill", "decode", "mixed"]


_NEVER_MIXING_TOOLS: Final = frozenset({
    "llama-bench", "llama-cli", "llama-completion", "llama-simple", "llama-batched-bench", "llama-perplexity",
})  # fmt: skip


def phases_of(steps: pl.DataFrame, *, alone: bool) -> list[Phase]:
    """decode: every token has its output; prefill: fewer have; mixed: prompts and generating sequences share a ubatch.

    llama-server gives every generating sequence a token in each batch. So fewer outputs than tokens while sequences
    generate is mixed, unless the one that did has just finished, which the next step tells.
    """
    tokens, outputs, request = pl.col("n_tokens"), pl.col("n_outputs"), pl.col("request")
    decodes = (outputs == tokens).fill_null(value=False)
    rows = steps.select(
        (request != request.shift(1)).fill_null(value=False),
        "same_batch",
        tokens,
        outputs,
        next_decodes=decodes.shift(-1, fill_value=True) | (request != request.shift(-1)),
    )
    phases: list[Phase] = []
    generating = answered = 0  # sequences that may have a token in this batch; outputs of the batch so far
    for new_request, same_batch, n_tokens, n_outputs, next_decodes in rows.iter_rows():
        known = n_outputs or 0
        if new_request:
            generating = answered = 0
        if not same_batch:
            generating, answered = answered or generating, 0
            if n_outputs is not None:  # their tokens come first in a batch: those beyond its outputs have finished
                generating = min(generating, n_outputs)
        answered += known
        if n_outputs is None or n_outputs >= n_tokens:
            phases.append("decode" if known else "prefill")
        else:
            finished = generating == 1 and known == 1 and next_decodes
            mixed = not alone and generating > 0 and known > 0 and not finished
            phases.append("mixed" if mixed else "prefill")
        generating = max(0, generating - known)
    return phases


def never_mixes(trace: Trace) -> bool:
    """Whether no batch of the program holds prompts beside generating sequences, as its command line tells."""
    command = trace.meta.capture.command
    program = command[0].rsplit("/", 1)[-1] if command else ""
    if program in _NEVER_MIXING_TOOLS:
        return True
    slots = [value for flag, value in pairwise(command) if flag in {"-np", "--parallel", "--n-parallel"}]
    return program == "llama-server" and slots[-1:] == ["1"]


def confidence() -> tuple[pl.Expr, pl.Expr]:
    """``confidence`` and ``evidence``. Two witnesses: what was uploaded and copied back, and the kernels that ran."""
    outputs, products = pl.col("n_outputs"), pl.col("product_ns")
    family = (
        pl.when(2 * pl.col("vector_ns") > products).then(pl.lit("vector")).when(products > 0).then(pl.lit("matrix"))
    )
    said = pl.format(
        "{} tokens in, {} outputs{}",
        "n_tokens",
        outputs.cast(pl.String).fill_null("?"),
        pl.when((pl.col("phase") == "decode") & (pl.col("n_tokens") == 1))
        .then(pl.lit(" (a one-token prompt looks the same)"))
        .otherwise(pl.lit("")),
    )
    expected = pl.when(pl.col("n_tokens") <= MAX_VECTOR_BATCH).then(pl.lit("vector")).otherwise(pl.lit("matrix"))
    told = pl.when(outputs.is_null())
    return (
        told.then(pl.lit("low")).when(family == expected).then(pl.lit("high")).otherwise(pl.lit("medium"))
        .alias("confidence"),
        told.then(said).when(family.is_null()).then(pl.format("{}; kernels not visible", said))
        .when(family == expected).then(pl.format("{}; {} kernels", said, family))
        .otherwise(pl.format("{}, yet {} kernels", said, family))
        .alias("evidence"),
    )  # fmt: skip
