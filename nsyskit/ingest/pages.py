"""Whole numbers of large SQLite tables, decoded from the pages of the file a column at a time.

SQLite hands over one value after the other; with the driver behind it that is some 60 ns each, and once was a third of
all the work on a large trace (``bench/README.md``). A page holds a hundred rows, whose values numpy finds and decodes
together, in a fifth of the time.

What a database file looks like is documented, and promised not to change: https://www.sqlite.org/fileformat2.html,
"B-tree Pages" and "Record Format". Only what nsys writes millions of is read here: tables with row ids whose wanted
columns hold whole numbers or NULL, in records that lie within their page and of which each has as many fields as the
others beside it. Anything else raises `NotPlainError`: SQLite reads such a table, and finds the words where it cannot
be read. Row ids and the keys above them are not looked at: rows come in the order of their pages, as in a scan of the
whole table. Tests hold every value against such a scan.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

_Bytes = NDArray[np.uint8]
_Ints = NDArray[np.int64]
_Place = int | _Ints

_HEADER_BYTES: Final = 100
_LEAST_PAGE: Final = 512
_PIECE_BYTES: Final = 8 << 20
"""Pages decoded at once: enough rows that what is done once a piece does not count, in memory that is used again."""
_SLACK: Final = 4_096
"""Bytes after the last page, so that fields of a damaged record may be looked for beyond it."""
_MOST_BESIDE: Final = 128
"""Bytes of a row that are copied at most: more than a kernel's usual fields take."""
_DEEPEST: Final = 20
_LEAF, _INTERIOR = 13, 5
_ONE_BYTE: Final = 0x80
"""Smaller numbers are stored in a single byte."""
_LEAST_CELL: Final = 6
"""Bytes that a row takes in a page, if not more, with the two that say where it lies."""
_NULL: Final = 0
_FLOAT: Final = 7
_SAYS: Final = {8: 0, 9: 1}
"""Types that are the number themselves."""
_TEXT: Final = 12
"""From this type on a field holds bytes or text."""
_BYTES_OF: Final = np.array(
    [0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0, *((code - _TEXT) // 2 for code in range(_TEXT, _ONE_BYTE))], dtype=np.int64
)
"""How long a field of each type is. 10 and 11 are not used."""


class NotPlainError(Exception):
    """The table is not one of those that are read here: ask SQLite."""


class PageFile:
    """A database file, open for reading pages of it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        header = os.pread(self._file, _HEADER_BYTES, 0).ljust(_HEADER_BYTES, b"\x00")
        stored = struct.unpack(">H", header[16:18])[0]
        self.page_bytes = 65_536 if stored == 1 else max(stored, _LEAST_PAGE)
        self._pages = os.fstat(self._file).st_size // self.page_bytes
        self._reserved = header[20]
        self._own = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def pieces(self, root: int) -> list[_Ints]:
        """The numbers of a table's leaf pages in the order of its rows, in pieces to be read one at a time.

        Raises:
            NotPlainError: the table has no row ids, or its pages do not form a tree.
        """
        level = np.array([root], dtype=np.int64)
        for _ in range(_DEEPEST):
            if self._reserved or not 1 <= level.min() <= level.max() <= self._pages:
                raise NotPlainError
            if self._page(int(level[0]))[0] == _LEAF:
                count = -(-len(level) * self.page_bytes // _PIECE_BYTES)
                return np.array_split(level, count)
            level = self._below(level)
        raise NotPlainError

    def _below(self, level: _Ints) -> _Ints:
        found, count = [], 0
        for number in level:
            found.append(_children(self._page(int(number))))
            count += len(found[-1])
            if count > self._pages:  # some page would stand in two places
                raise NotPlainError
        return np.concatenate(found)

    def rows(self, leaves: _Ints, fields: Mapping[str, int]) -> pl.DataFrame:
        """The rows of some leaf pages: name -> Int64, of the named fields of their records.

        Raises:
            NotPlainError: a record holds something else.
        """
        try:
            return _decoded(self._read(leaves), len(leaves), self.page_bytes, fields)
        except IndexError as error:  # a field would lie far beyond its page
            raise NotPlainError from error

    def _page(self, number: int) -> _Bytes:
        page = os.pread(self._file, self.page_bytes, (number - 1) * self.page_bytes)
        if len(page) != self.page_bytes:
            raise NotPlainError
        return np.frombuffer(page, np.uint8)

    def _read(self, leaves: _Ints) -> _Bytes:
        """The pages one after the other, in memory that the thread uses again for the next ones."""
        size = self.page_bytes
        if not hasattr(self._own, "buffer") or len(self._own.buffer) < len(leaves) * size + _SLACK:
            self._own.buffer = np.zeros(len(leaves) * size + _SLACK, np.uint8)
        buffer: _Bytes = self._own.buffer
        ends = [0, *(np.flatnonzero(np.diff(leaves) != 1) + 1).tolist(), len(leaves)]
        for first, stop in pairwise(ends):
            part = memoryview(buffer.data)[first * size : stop * size]
            if os.preadv(self._file, [part], (int(leaves[first]) - 1) * size) != len(part):
                raise NotPlainError
        return buffer


def _children(page: _Bytes) -> _Ints:
    """The pages below an interior page, in order."""
    cells, start = int(page[3]) << 8 | int(page[4]), 12
    if page[0] != _INTERIOR or start + 2 * cells > len(page):
        raise NotPlainError
    places = page[start : start + 2 * cells].view(">u2").astype(np.int64)
    if cells and places.max() + 4 > len(page):
        raise NotPlainError
    last = int(page[8:12].view(">u4")[0])
    below = page[places[:, None] + np.arange(4)].view(">u4").astype(np.int64)
    return np.append(below.ravel(), last)


def _decoded(buffer: _Bytes, pages: int, page_bytes: int, fields: Mapping[str, int]) -> pl.DataFrame:
    cells = _cells(buffer[: pages * page_bytes].reshape(pages, page_bytes))
    if not len(cells):
        return pl.DataFrame(schema=dict.fromkeys(fields, pl.Int64))
    _, needed = _columns(_Rows(buffer, cells[:1], 1), page_bytes, fields)
    most = min(needed, _MOST_BESIDE, 2 * _PIECE_BYTES // len(cells) + 1)  # tiny rows may be very many
    columns, _ = _columns(_Rows(buffer, cells, most), page_bytes, fields)
    return pl.DataFrame(height=len(cells)).with_columns(**{name: columns[name] for name in fields})


def _cells(pages: _Bytes) -> _Ints:
    """Where the rows of leaf pages lie, in their order."""
    count, page_bytes = pages.shape
    rows = pages[:, 3].astype(np.int64) << 8 | pages[:, 4]
    most = int(rows.max())
    if (pages[:, 0] != _LEAF).any() or most > (page_bytes - 8) // _LEAST_CELL:
        raise NotPlainError
    within = np.ascontiguousarray(pages[:, 8 : 8 + 2 * most]).view(">u2").astype(np.int64)
    there = np.arange(most) < rows[:, None]
    if (within[there] >= page_bytes).any():
        raise NotPlainError
    places: _Ints = (within + page_bytes * np.arange(count)[:, None])[there]
    return places


class _Rows:
    """Rows of leaf pages. Each is a cell: the length of its record, the row's id, the record.

    A place is a number of bytes from where the cell begins: one for all rows, or one for each. ``most`` bytes of each
    cell are laid side by side; what stands there at one place in all of them is found in a fifth of the time.
    """

    def __init__(self, buffer: _Bytes, cells: _Ints, most: int) -> None:
        self.cells = cells
        self._buffer = buffer
        self._beside = _stretches(buffer, most)[cells].view(np.uint8).reshape(-1, most)

    def bytes_at(self, place: _Place) -> _Bytes:
        """One byte of each row."""
        if isinstance(place, int) and place < self._beside.shape[1]:
            return self._beside[:, place]
        found: _Bytes = self._buffer[self.cells + place]
        return found

    def numbers_at(self, place: _Place) -> _Ints:
        """Eight bytes of each row, the highest first, as one number."""
        if isinstance(place, int) and place + 8 <= self._beside.shape[1]:
            words = np.ndarray(self.cells.shape, ">i8", self._beside, place, self._beside.strides[:1])
        else:
            words = _stretches(self._buffer, 8)[self.cells + place].view(">i8")
        return words.astype(np.int64)


def _stretches(buffer: _Bytes, size: int) -> NDArray[np.void]:
    """So many bytes from each byte of a buffer on."""
    return np.ndarray((len(buffer) - size + 1,), f"V{size}", buffer, 0, (1,))


def _records(rows: _Rows, page_bytes: int) -> tuple[_Place, _Ints]:
    """Where the record of each row begins and ends. Before it stand its length and the row's id.

    Both are stored in as many bytes as they need: the last has its highest bit clear.
    """
    first, second = rows.bytes_at(0), rows.bytes_at(1)
    two = first >= _ONE_BYTE
    if (two & (second >= _ONE_BYTE)).any():
        raise NotPlainError
    record_bytes = np.where(two, (first.astype(np.int64) & (_ONE_BYTE - 1)) << 7 | second, first)
    begin = _one_for_all(1 + two.astype(np.int64))
    more, begin = rows.bytes_at(begin) >= _ONE_BYTE, begin + 1
    for _ in range(8):
        if not more.any():
            end = begin + record_bytes
            if (record_bytes > page_bytes - 35).any() or (end > page_bytes - rows.cells % page_bytes).any():
                raise NotPlainError  # or it goes on elsewhere
            return begin, end
        begin, more = _one_for_all(begin + more), more & (rows.bytes_at(begin) >= _ONE_BYTE)
    raise NotPlainError


def _one_for_all(places: _Ints) -> _Place:
    low = int(places.min())
    return low if low == places.max() else places


def _columns(rows: _Rows, page_bytes: int, fields: Mapping[str, int]) -> tuple[dict[str, pl.Series | pl.Expr], int]:
    """The wanted fields of the records, and how many bytes of the first row were looked at.

    A record begins with a header: its own length, then the type of each field. Most types are the same in all records,
    so that the first fields of all lie at the same place.
    """
    begin, end = _records(rows, page_bytes)
    wanted, last = {field: name for name, field in fields.items()}, max(fields.values())
    header = rows.bytes_at(begin)
    header_bytes = int(header[0])
    if (header != header_bytes).any() or not last + 1 < header_bytes < _ONE_BYTE:
        raise NotPlainError
    columns, place = {}, begin + header_bytes
    for field in range(last + 1):
        code = rows.bytes_at(begin + 1 + field)
        low, high = int(code.min()), int(code.max())
        if high >= _ONE_BYTE:
            raise NotPlainError
        if field in wanted:
            columns[wanted[field]] = _column(rows, place, code, low, high)
        place = place + (int(_BYTES_OF[low]) if low == high else _BYTES_OF[code])
    # what is not looked at may follow
    if np.any(place != end if header_bytes == last + 2 else place > end):
        raise NotPlainError
    return columns, 8 + int(np.ravel(place)[0])


def _column(rows: _Rows, place: _Place, code: _Bytes, low: int, high: int) -> pl.Series | pl.Expr:
    """Whole numbers as long as their types say; NULL, 0 and 1 have types of their own.

    A number that all rows have is a literal.
    """
    if low == high and (low == _NULL or low in _SAYS):
        return pl.lit(_SAYS.get(low), pl.Int64)
    if high > max(_SAYS) or (code == _FLOAT).any():
        raise NotPlainError
    values = rows.numbers_at(place)
    if low == high:
        values >>= 64 - 8 * int(_BYTES_OF[low])
        return pl.Series(values) if (values != values[0]).any() else pl.lit(int(values[0]), pl.Int64)
    values >>= np.minimum(64 - 8 * _BYTES_OF[code], 63)
    for stands_for, value in _SAYS.items():
        values[code == stands_for] = value
    numbers = pl.Series(values)
    return numbers if low != _NULL else pl.select(pl.when(pl.Series(code != _NULL)).then(numbers)).to_series()
