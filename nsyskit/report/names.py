"""Names of kernels and functions, short enough for a line."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(name: str) -> str:
    """A demangled name without return type and parameters: what tells one kernel from another fits a line."""
    bare = name.removeprefix("void ")
    depth = 0
    for index, char in enumerate(bare):
        depth += (char == "<") - (char == ">")
        if char == "(" and depth == 0 and index and not bare.startswith("(anonymous"):
            return bare[:index]
    return bare


def chain(frames: Sequence[str], most: int = 4, *, otherwise: str = "unresolved code") -> str:
    """The functions of a chain that say something: without unresolved addresses."""
    named = [shortened(frame) for frame in frames if frame and not frame.startswith(("0x", "[Unknown"))]
    return " ← ".join(named[:most]) or otherwise
