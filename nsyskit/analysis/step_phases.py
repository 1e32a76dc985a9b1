"""What kind of work a step was: prefill, decode or both, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import polars as pl

from nsyskit.analysis.forward_passes import MAX_VECTOR_BATCH, ForwardPass
from nsyskit.analysis.hotspots import kernel_facts
from nsyskit.analysis.pairing import op_calls
from nsyskit.analysis.step_events import of_thread
from nsyskit.intervals import count_upto
from nsyskit.trace import Trace

Phase = Literal["prefill", "decode", "mixed"]


_NEVER_MIXING_TOOLS: Final = frozenset({
    "llama-bench", "llama-cli", "llama-completion", "llama-simple", "llama-batched-bench", "llama-perplexity",
})  # fmt: skip


@dataclass(slots=True)
class TimedPass:
    """A forward pass with when it was waited for (``forward_end``) and where its step ends, ns.

    ``last`` of its ``request``: nothing followed before idling.
    """

    one: ForwardPass
    forward_end: int
    end: int
    last: bool
    request: int
    same_batch: bool  # as the step before: nobody waited for that one before handing over this one's inputs


def phases_of(steps: Sequence[TimedPass], outputs: Sequence[int | None], *, alone: bool) -> list[Phase]:
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


def _next_decodes(steps: Sequence[TimedPass], outputs: Sequence[int | None], position: int) -> bool:
    if position + 1 >= len(steps) or steps[position + 1].request != steps[position].request:
        return True
    return outputs[position + 1] == steps[position + 1].one.n_tokens


def never_mixes(trace: Trace) -> bool:
    """Whether no batch of the program holds prompts beside generating sequences, as its command line tells."""
    command = trace.meta.capture.command
    program = command[0].rsplit("/", 1)[-1] if command else ""
    if program in _NEVER_MIXING_TOOLS:
        return True
    slots = [value for flag, value in pairwise(command) if flag in {"-np", "--parallel", "--n-parallel"}]
    return program == "llama-server" and slots[-1:] == ["1"]


def families_of(trace: Trace, key: tuple[object, ...], steps: Sequence[TimedPass]) -> list[str | None]:
    """Which family did most of each step's matrix products: ``vector``, ``matrix``, None where kernels are hidden."""
    facts = kernel_facts(trace).select("name_id", "family", "category")
    products = facts.filter(pl.col("category").str.starts_with("matmul"))
    kernels = op_calls(trace).select("start_ns", "end_ns", "kind", "pid", "tid", "row", "call_start_ns")
    kernels = kernels.filter((pl.col("kind") == "kernel") & of_thread(key))
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


def confidence_of(one: ForwardPass, n_outputs: int | None, phase: Phase, family: str | None) -> tuple[str, str]:
    """Two witnesses: what was uploaded and copied back, and the kernels that ran."""
    expected = "vector" if one.n_tokens <= MAX_VECTOR_BATCH else "matrix"
    said = f"{one.n_tokens} tokens in, {'?' if n_outputs is None else n_outputs} outputs"
    if phase == "decode" and one.n_tokens == 1:
        said += " (a one-token prompt looks the same)"
    if n_outputs is None:
        return "low", said
    if family is None:
        return "medium", f"{said}; kernels not visible"
    return ("high", f"{said}; {family} kernels") if family == expected else ("medium", f"{said}, yet {family} kernels")
