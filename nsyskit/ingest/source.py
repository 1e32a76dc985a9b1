"""What every container must offer: tables by nsys's names, columns as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import polars as pl

Shape = Callable[[pl.DataFrame], pl.DataFrame]
"""What is made of rows as they come, each on its own."""


def as_stored(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


class RawSource(Protocol):
    """An opened container of nsys tables. Names are nsys's; nothing is renamed, sorted or filtered here."""

    def columns(self, table: str) -> frozenset[str]:
        """Columns of a table; empty when the table does not exist."""
        ...

    def table_names(self) -> frozenset[str]: ...

    def row_count(self, table: str) -> int:
        """Rows of a table; 0 when it does not exist. An SQLite file is read whole for it."""
        ...

    def has_rows(self, table: str) -> bool:
        """Whether a table exists and holds anything."""
        ...

    def read(self, table: str, columns: Sequence[str], shape: Shape = as_stored) -> pl.DataFrame:
        """The named columns, which must exist, in file order: Int64 for numbers, String for text.

        ``shape`` is given the rows a piece at a time, so that a large table is never held as wide as it is stored.

        Raises:
            TraceFormatError: the table is damaged or holds values of another type.
        """
        ...
