"""Which steps llama-batched-bench and llama-perplexity timed, and how long the trace says they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nsyskit.analysis.program_runs import Depths, Pass, span_ns
from nsyskit.ggml.outputs import ProgramNumbers

_MOST_WARM_UP: Final = 4
_ROUNDED_MS: Final = 5.0
"""llama-perplexity prints hundredths of a second."""


def batched_ns(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> list[int | None]:
    """For each measurement, in the order printed, what its steps took, ns; None where they cannot be told apart.

    A row is a prompt of every sequence, in whatever pieces, and then a step a token with all sequences; rows follow
    each other after a warm-up of a few tokens. All of them must fit from one and only one step on.
    """
    times: list[int | None] = []
    for row in _laid_out(records, passes):
        parts = [span_ns(row.prompt), span_ns(row.tokens) if row.tokens else 0]
        times += [*parts, sum(parts)]
    return times or [None] * len(records)


def batched_depths(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> Depths:
    """The depths of all steps that a measurement tells of."""
    depths = Depths([0] * len(passes), [0] * len(passes))
    for row in _laid_out(records, passes):
        first = row.first + len(row.prompt)
        for at, one in enumerate(row.tokens):
            depths.sequences[first + at] = one.n_tokens
            depths.totals[first + at] = one.n_tokens * (row.n_prompt + at + 1)
    return depths


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's steps: ``first`` is the number of its first, ``n_prompt`` the length of each sequence's prompt."""

    first: int
    n_prompt: int
    prompt: Sequence[Pass]
    tokens: Sequence[Pass]


def _laid_out(records: Sequence[ProgramNumbers], passes: Sequence[Pass]) -> list[_Row]:
    """The rows of measurements laid over the steps; none unless they fit in exactly one place."""
    rows = [records[at : at + 3] for at in range(0, len(records), 3)]
    if any(len(row) < 3 for row in rows):
        return []
    found = [laid for first in range(_MOST_WARM_UP) if (laid := _from(first, rows, passes))]
    return found[0] if len(found) == 1 else []


def _from(at: int, rows: Sequence[Sequence[ProgramNumbers]], passes: Sequence[Pass]) -> list[_Row]:
    laid = []
    for prompt, gen, _ in rows:
        sequences = (gen.n_divisor or 0) // max(gen.n_gen or 0, 1)
        own = _worth(passes[at:], prompt.n_divisor or 0)
        tokens = passes[at + len(own) : at + len(own) + (gen.n_gen or 0)]
        if not own or len(tokens) != gen.n_gen or any(one.n_tokens != sequences for one in tokens):
            return []
        laid.append(_Row(at, prompt.n_prompt or 0, own, tokens))
        at += len(own) + len(tokens)
    return laid


def _worth(passes: Sequence[Pass], n_tokens: int) -> Sequence[Pass]:
    """The passes from the first on that hold so many tokens together; none when no number of them does."""
    total = 0
    for at, one in enumerate(passes):
        total += one.n_tokens
        if total >= n_tokens:
            return passes[: at + 1] if total == n_tokens else []
    return []


def perplexity_ns(n_tokens: int, passes: Sequence[Pass]) -> tuple[int, float] | None:
    """What the first pass over the text took, ns, and by how many ms the printed time may be off."""
    for first in range(min(_MOST_WARM_UP, len(passes))):
        warm_up = passes[:first]
        own = _worth(passes[first:], n_tokens)
        if own and all(one.n_tokens < n_tokens and one.n_tokens <= 2 for one in warm_up):
            return own[-1].forward_end - own[0].begin, _ROUNDED_MS
    return None
