"""What every container must offer: tables by nsys's names, columns as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl


class RawSource(Protocol):
    """An opened container of nsys tables. Names are nsys's; nothing is renamed, sorted or filtered here."""

    def columns(self, table: str) -> frozenset[str]:
        """Columns of a table; empty when the table does not exist."""
        ...

    def table_names(self) -> frozenset[str]: ...

    def row_count(self, table: str) -> int:
        """Rows of a table; 0 when it does not exist."""
        ...

    def read(self, table: str, columns: Sequence[str]) -> pl.DataFrame:
        """The named columns, which must exist, in file order: Int64 for numbers, String for text.

        Raises:
            TraceFormatError: the table is damaged or holds values of another type.
        """
        ...
