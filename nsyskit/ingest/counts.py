"""How many rows the tables of a trace hold, counted when somebody asks: SQLite reads a whole table to count it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

import polars as pl

from nsyskit.ingest.columns import ColumnStore
from nsyskit.ingest.source import RawSource
from nsyskit.schema import Columns

_NAME: Final = "rows"
_KEPT: Final[Columns] = {"table": pl.String(), "rows": pl.Int64()}


class RowCounts(Mapping[str, int]):
    """Rows of each table that has some, by nsys's name. Labels of nsys's own enumerations say nothing about a trace."""

    def __init__(self, source: RawSource, kept: ColumnStore | None) -> None:
        self._source = source
        self._store = kept

    @cached_property
    def _counts(self) -> dict[str, int]:
        found = self._store.load(_NAME, _KEPT) if self._store else None
        if found is not None:
            return dict(found.iter_rows())
        names = [name for name in sorted(self._source.table_names()) if not name.startswith("ENUM_")]
        counts = {name: rows for name in names if (rows := self._source.row_count(name))}
        if self._store:
            self._store.keep(_NAME, pl.DataFrame(list(counts.items()), schema=_KEPT, orient="row"))
        return counts

    def __getitem__(self, table: str) -> int:
        return self._counts[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)
