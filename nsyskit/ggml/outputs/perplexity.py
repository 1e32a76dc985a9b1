"""llama-perplexity: the final estimate and what it was made from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nsyskit.ggml.outputs.shared import NUMBER, ProgramNumbers, Value, number

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = "llama-perplexity"

# Not at the start of a line: the running estimate before it ends without one.
_FINAL = re.compile(rf"Final estimate: PPL = ({NUMBER})(?: \+/- ({NUMBER}))?(?=\s|$)")
_OVER = re.compile(r"calculating perplexity over (\d{1,12}) chunks, n_ctx=(\d{1,12}), batch_size=(\d{1,12})")


def parse(text: str) -> Iterator[ProgramNumbers]:
    """The final perplexity of each run in a text, as ``extra["ppl"]`` and ``extra["ppl_stderr"]``."""
    over = _OVER.search(text)
    facts: dict[str, Value] = (
        dict(zip(("n_chunks", "n_ctx", "n_batch"), map(int, over.groups()), strict=True)) if over else {}
    )
    for match in _FINAL.finditer(text):
        extra = {"ppl": number(match[1]), "ppl_stderr": number(match[2]), **facts}
        yield ProgramNumbers(tool=TOOL, label="ppl", n_prompt=0, n_gen=0, extra=extra)
