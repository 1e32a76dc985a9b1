"""Names of kernels, calls and functions in a table: cut to the cell, whole in its title."""

from __future__ import annotations

from typing import Final

from nsyskit.report.names import shortened
from nsyskit.report.page.tables import Column, words

NAME_CHARACTERS: Final = 110


def operation(head: str, key: str, characters: int = NAME_CHARACTERS, *, absent: str = "") -> Column:
    """What ran on the GPU, without its parameters."""
    return words(
        head,
        lambda row: cut(shortened(row[key] or absent), characters),
        full=lambda row: row[key] or absent,
    )


def cut(name: str, characters: int = NAME_CHARACTERS) -> str:
    return name if len(name) <= characters else f"{name[: characters - 1]}…"
