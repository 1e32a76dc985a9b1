"""llama-perplexity: the final estimate, what it was made from, and how long a pass over the text took."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import NUMBER, ProgramNumbers, Value, integer, number

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = "llama-perplexity"

# Not at the start of a line: the running estimate before it ends without one.
_FINAL = re.compile(rf"Final estimate: PPL = ({NUMBER})(?: \+/- ({NUMBER}))?(?=\s|$)")
_OVER = re.compile(
    r"calculating perplexity over (\d{1,12}) chunks, n_ctx=(\d{1,12}), batch_size=(\d{1,12})(?:, n_seq=(\d{1,12}))?"
)
_PASS = re.compile(rf"perplexity: ({NUMBER}) seconds per pass")


def parse(text: str) -> Iterator[ProgramNumbers]:
    """Of each run in a text the time of its first pass, and the final perplexity.

    The first is printed in hundredths of a second, and its rate follows from that; the second is ``extra["ppl"]`` and
    ``extra["ppl_stderr"]``. A pass takes ``n_seq`` chunks of ``n_ctx`` tokens at once.
    """
    facts: dict[str, Value] = {}
    for line in text.splitlines():
        if over := _OVER.search(line):
            names = ("n_chunks", "n_ctx", "n_batch", "n_seq")
            facts = {name: int(value) for name, value in zip(names, over.groups(), strict=True) if value}
        if (timed := _PASS.search(line)) and facts:
            yield from _pass(facts, number(timed[1]))
        for match in _FINAL.finditer(line):
            extra = {"ppl": number(match[1]), "ppl_stderr": number(match[2]), **facts}
            yield ProgramNumbers(tool=TOOL, label="ppl", n_prompt=0, n_gen=0, extra=extra)


def _pass(facts: dict[str, Value], seconds: float | None) -> Iterator[ProgramNumbers]:
    n_chunks, n_ctx, n_seq = (integer(facts.get(name, 1)) or 0 for name in ("n_chunks", "n_ctx", "n_seq"))
    chunks = min(n_chunks, max(n_seq, 1))
    n_tokens = chunks * n_ctx
    if seconds and n_tokens:
        yield ProgramNumbers(
            tool=TOOL,
            label=f"pass {chunks}x{n_ctx}",
            n_prompt=n_tokens,
            n_gen=0,
            tokens_per_s=n_tokens / seconds,
            ms=seconds * 1e3,
            n_divisor=n_tokens,
            extra=facts,
        )
