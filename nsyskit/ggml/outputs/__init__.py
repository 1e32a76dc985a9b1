"""The numbers that llama.cpp's tools print about themselves, out of their output."""

from __future__ import annotations

from functools import lru_cache

from nsyskit.ggml.outputs import llama_batched_bench, llama_bench, llama_cli, llama_server, perplexity
from nsyskit.ggml.outputs.shared import ProgramNumbers, clean

__all__ = ["ProgramNumbers", "parse_output"]

_TOOLS = (llama_bench, llama_batched_bench, llama_server, llama_cli, perplexity)


@lru_cache(maxsize=8)  # several analyses read the same output, and that of a busy server is long
def parse_output(text: str) -> tuple[ProgramNumbers, ...]:
    """Every measurement that a text holds, by tool and in the order printed.

    The text is stdout, stderr or a log file of any llama.cpp tool; other lines, colours and torn ends are no obstacle.
    What cannot be read is left out: an empty tuple means that no tool's numbers were found.
    """
    cleaned = clean(text)
    return tuple(numbers for tool in _TOOLS for numbers in tool.parse(cleaned))
