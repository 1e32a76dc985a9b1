"""Directories of Parquet files, one a table, as ``nsys export --type parquetdir`` of 2023.4 and later writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from nsyskit.errors import TraceFormatError
from nsyskit.frames import with_literals
from nsyskit.ingest.source import Shape, as_stored
from nsyskit.nsys_schema import SIGNATURE_TABLES, TEXT_COLUMNS

_REEXPORT = "export it again with `nsys export --type parquetdir --force-overwrite true REPORT.nsys-rep`"

_PIECE_ROWS = 1_000_000

T = TypeVar("T")


def is_export(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is a Parquet export."""
    return any(name.endswith(".parquet") and name[: -len(".parquet")] in SIGNATURE_TABLES for name in names)


class ParquetSource:
    """A Parquet export. Numbers come in many widths there; they leave here as Int64."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = {file.stem: file for file in sorted(path.glob("*.parquet"))}
        if not self._files.keys() & SIGNATURE_TABLES:
            raise TraceFormatError(
                f"{path.name} is a directory but no nsys export: it holds none of nsys's tables as Parquet",
                hint="give a .nsys-rep, an SQLite export, or what `nsys export --type parquetdir` wrote",
            )

    def table_names(self) -> frozenset[str]:
        return frozenset(self._files)

    def columns(self, table: str) -> frozenset[str]:
        file = self._files.get(table)
        return frozenset(self._guarded(table, lambda: _scan(file).collect_schema())) if file else frozenset()

    def row_count(self, table: str) -> int:
        file = self._files.get(table)
        if file is None:
            return 0
        return int(self._guarded(table, lambda: _scan(file).select(pl.len()).collect().item()))

    def has_rows(self, table: str) -> bool:
        return self.row_count(table) > 0

    def read(self, table: str, columns: Sequence[str], shape: Shape = as_stored) -> pl.DataFrame:
        file = self._files[table]
        rows = self.row_count(table)

        def piece(first: int) -> pl.DataFrame:
            scan = _scan(file).select(columns).slice(first, _PIECE_ROWS)
            frame = self._guarded(table, scan.collect)
            return shape(self._guarded(table, lambda: frame.select(_plain(frame[name]) for name in columns)))

        if rows <= _PIECE_ROWS:
            return with_literals(piece(0).rechunk())
        from nsyskit.ingest.pieces import gathered

        return gathered((piece(first) for first in range(0, rows, _PIECE_ROWS)), rows)

    def _guarded(self, table: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError) as error:
            # its Parquet reader panics on some damaged files, which is no Exception
            raise TraceFormatError(f"{self._path.name}/{table}.parquet cannot be read", hint=_REEXPORT) from error


def _scan(file: Path) -> pl.LazyFrame:
    return pl.scan_parquet(file, glob=False)


def _plain(column: pl.Series) -> pl.Series:
    if column.name in TEXT_COLUMNS:
        return column.cast(pl.String).fill_null("")
    if column.dtype == pl.UInt64:  # ids may use all bits; SQLite shows the same ones as negative numbers
        return column.reinterpret(signed=True)
    return column.cast(pl.Int64, strict=True)
