"""SQLite exports, read-only: the file is opened immutable, so that SQLite neither locks it nor puts files beside it.

Tables of some size are read on several threads: those of whole numbers from the pages of the file (``pages``), others,
and what is unusual, in ranges of row ids as Arrow batches (ADBC).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar
from urllib.parse import quote

import adbc_driver_manager as adbc
import adbc_driver_sqlite
import polars as pl

from nsyskit.errors import TraceFormatError
from nsyskit.frames import PIECE_ROWS, with_literals
from nsyskit.ingest.source import Shape, as_stored
from nsyskit.nsys_schema import SIGNATURE_TABLES, TEXT_COLUMNS

T = TypeVar("T")

MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_RANGE_ROWS: Final = 100_000
_LEAST_ROW: Final = 16
"""Bytes that a row takes, if not more."""
_BATCH_ROWS: Final = 16_384
_EXACT: Final = 2.0**53
_REEXPORT: Final = "export it again with `nsys export --type sqlite --force-overwrite true REPORT.nsys-rep`"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A table: the page that its rows are found from, its columns, and at which place of a record numbers may lie.

    No places are known of a key, which may be the id of the row, and none where a column is computed.
    """

    root: int
    columns: frozenset[str]
    places: Mapping[str, int]


class SqliteSource:
    """An nsys SQLite export. The constructor checks that it is one and whole; reads happen later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _check_whole(path)
        self._uri = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro&immutable=1"
        self._rows: dict[str, int] = {}
        self._reading = Lock()
        self._tables = self._read_catalogue()
        if not self._tables.keys() & SIGNATURE_TABLES:
            raise TraceFormatError(
                f"{path.name} is an SQLite file but no nsys export: it has none of nsys's tables",
                hint="make one with `nsys export --type sqlite REPORT.nsys-rep`",
            )

    def table_names(self) -> frozenset[str]:
        return frozenset(self._tables)

    def columns(self, table: str) -> frozenset[str]:
        return self._tables[table].columns if table in self._tables else frozenset()

    def row_count(self, table: str) -> int:
        if table not in self._tables:
            return 0
        if table not in self._rows:
            self._rows[table] = int(self._query(f"SELECT count(*) FROM {_quoted(table)}")[0][0] or 0)
        return self._rows[table]

    def has_rows(self, table: str) -> bool:
        return table in self._tables and bool(self._query(f"SELECT 1 FROM {_quoted(table)} LIMIT 1"))

    def read(self, table: str, columns: Sequence[str], shape: Shape = as_stored) -> pl.DataFrame:
        ranges = self._row_ranges(table)  # of a large table
        found = self._from_pages(table, columns, shape, ranges) if ranges else None
        return self._from_rows(table, columns, shape, ranges) if found is None else found

    def _from_pages(
        self, table: str, columns: Sequence[str], shape: Shape, ranges: Sequence[tuple[int, int]]
    ) -> pl.DataFrame | None:
        """A large table of whole numbers from the pages of the file; None where only SQLite can read it."""
        places = self._tables[table].places
        if not columns or not TEXT_COLUMNS.isdisjoint(columns) or not places.keys() >= set(columns):
            return None
        from nsyskit.ingest.pages import NotPlainError, PageFile

        fields = {column: places[column] for column in columns}
        try:
            with PageFile(self.path) as file:
                pieces = file.pieces(self._tables[table].root)
                return self._in_parallel(table, pieces, _ids(ranges), lambda leaves: file.rows(leaves, fields), shape)
        except (NotPlainError, OSError):
            return None

    def _from_rows(
        self, table: str, columns: Sequence[str], shape: Shape, ranges: Sequence[tuple[int, int]]
    ) -> pl.DataFrame:
        select = ", ".join(_selected(column) for column in columns)
        query = f"SELECT {select} FROM {_quoted(table)}"
        queries = [f"{query} WHERE rowid BETWEEN {low} AND {high}" for low, high in ranges] or [query]

        def fetch(query: str) -> pl.DataFrame:
            return _typed(self._fetch(query), table, columns, self.path)

        return self._in_parallel(table, queries, _ids(ranges), fetch, shape)

    def _in_parallel(
        self, table: str, parts: Sequence[T], most: int, fetch: Callable[[T], pl.DataFrame], shape: Shape
    ) -> pl.DataFrame:
        """The parts of a table, fetched and shaped on several threads where there are several, as one frame."""
        heights = []

        def piece(part: T) -> pl.DataFrame:
            rows = fetch(part)
            heights.append(rows.height)
            # in one chunk, it lets go of the reader's buffers, which are larger
            return shape(rows).rechunk()

        if len(parts) > 1:
            from nsyskit.ingest.pieces import gathered

            # one table after the other: all cores are at it, and pieces of two tables would fill the memory
            with self._reading, ThreadPoolExecutor(max_workers=min(len(parts), os.cpu_count() or 1)) as pool:
                frame = gathered(pool.map(piece, parts), most)
        else:
            frame = with_literals(piece(parts[0]))
        self._rows[table] = sum(heights)
        return frame

    def _row_ranges(self, table: str) -> list[tuple[int, int]]:
        """Ranges of row ids that together hold the table: one a core at least, each at most ``PIECE_ROWS`` ids."""
        if self._bytes < _RANGE_ROWS * _LEAST_ROW:
            return []
        try:
            # one query for each end: asked for both at once, SQLite looks at every row
            low, high = (self._query(f"SELECT {end}(rowid) FROM {_quoted(table)}")[0][0] for end in ("min", "max"))
        except TraceFormatError:  # a table WITHOUT ROWID
            return []
        # ids further apart than the file has bytes are of few rows, and there would be no end of ranges
        if low is None or high is None or not _RANGE_ROWS <= high - low <= self._bytes:
            return []
        pieces = max(min(os.cpu_count() or 1, 8), -(-(high - low + 1) // PIECE_ROWS))
        bounds = [low + (high - low + 1) * i // pieces for i in range(pieces + 1)]
        return [(a, b - 1) for a, b in pairwise(bounds)]

    def _fetch(self, query: str) -> pl.DataFrame:
        try:
            # not through ADBC's dbapi: importing that takes longer than reading many a trace
            with (
                adbc_driver_sqlite.connect(self._uri) as database,
                adbc.AdbcConnection(database) as connection,
                adbc.AdbcStatement(connection) as statement,
            ):
                statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(_BATCH_ROWS)})
                statement.set_sql_query(query)
                rows, _ = statement.execute_query()
                return pl.DataFrame(rows)
        except (adbc.Error, pl.exceptions.PolarsError, OSError, UnicodeError) as error:
            raise self._damaged(error) from error

    def _query(self, query: str) -> list[tuple[int | None, ...]]:
        try:
            with closing(sqlite3.connect(self._uri, uri=True)) as connection:
                return connection.execute(query).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._damaged(error) from error

    def _read_catalogue(self) -> dict[str, _Stored]:
        columns: dict[str, list[tuple[str, int, bool]]] = {}
        roots, computed = {}, set()
        for table, root, column, place, key, hidden in self._query(
            "SELECT m.name, m.rootpage, p.name, p.cid, p.pk, p.hidden"
            " FROM sqlite_master m, pragma_table_xinfo(m.name) p WHERE m.type = 'table'"
        ):
            columns.setdefault(str(table), []).append((str(column), place or 0, not key))
            roots[str(table)] = root or 0
            computed.update([str(table)] if hidden else [])
        return {
            table: _Stored(
                roots[table],
                frozenset(column for column, _, _ in own),
                {column: place for column, place, stored in own if stored and table not in computed},
            )
            for table, own in columns.items()
        }

    def _damaged(self, error: Exception) -> TraceFormatError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return TraceFormatError(f"{self.path.name} cannot be read as an nsys export ({reason})", hint=_REEXPORT)


def _check_whole(path: Path) -> int:
    """Refuse what SQLite would only trip over later: foreign bytes, a cut-off file, a file still being written.

    Returns how many bytes a whole one holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(MAGIC):
        raise TraceFormatError(f"{path.name} is no SQLite file", hint="give a trace that nsys wrote or exported")
    page_bytes, pages = struct.unpack(">H", header[16:18])[0], struct.unpack(">I", header[28:32])[0]
    expected = (65_536 if page_bytes == 1 else page_bytes) * pages
    if size < expected:
        raise TraceFormatError(f"{path.name} is truncated: {size:,} of {expected:,} bytes are there", hint=_REEXPORT)
    for suffix in ("-journal", "-wal"):
        companion = path.with_name(path.name + suffix)
        if companion.exists() and companion.stat().st_size > 0:
            raise TraceFormatError(
                f"{path.name} is being written: {companion.name} lies beside it",
                hint="wait until its writer has ended, or export the report again",
            )
    return size


def _ids(ranges: Sequence[tuple[int, int]]) -> int:
    """How many rows there are, if each id is one."""
    return ranges[-1][1] - ranges[0][0] + 1 if ranges else 0


def _selected(column: str) -> str:
    # ADBC takes a column's type from the first rows; a text column that starts with NULLs would be taken for numbers.
    # Text travels as bytes: a traced program's output need not be UTF-8, and Arrow would take it unchecked.
    return (
        f"ifnull(CAST({_quoted(column)} AS BLOB), x'') AS {_quoted(column)}"
        if column in TEXT_COLUMNS
        else _quoted(column)
    )


def _typed(frame: pl.DataFrame, table: str, columns: Sequence[str], path: Path) -> pl.DataFrame:
    try:
        return frame.select(_text(frame[name]) if name in TEXT_COLUMNS else _whole(frame[name]) for name in columns)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise TraceFormatError(
            f"table {table} of {path.name} holds text or fractions where whole numbers belong", hint=_REEXPORT
        ) from error


def _whole(stored: pl.Series) -> pl.Series:
    """Whole numbers, exactly. Anything else is not converted: text may be no UTF-8, large floats have lost digits."""
    if stored.dtype.is_integer() or stored.null_count() == len(stored):
        return stored.cast(pl.Int64, strict=True)
    if not stored.dtype.is_float() or not ((stored.abs() < _EXACT) & (stored == stored.floor())).all():
        raise ValueError(stored.name)
    return stored.cast(pl.Int64, strict=True)


def _text(stored: pl.Series) -> pl.Series:
    """Bytes as text; what is not UTF-8 in them becomes replacement characters."""
    try:
        return stored.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series(stored.name, [value.decode(errors="replace") for value in stored], pl.String)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
