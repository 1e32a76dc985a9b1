"""Pieces of a large table, put together as they come.

Each value is written to its place at once: pieces that wait for one another and then for a copy of them all would take
the memory of the table twice, and memory that is touched for the first time costs more than reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nsyskit.frames import constants_of

_BELIEVED: Final = 64
"""For so many times the rows that came room is made at once: a damaged file may announce any number of them."""


def gathered(pieces: Iterable[pl.DataFrame], most: int) -> pl.DataFrame:
    """The rows of all pieces, of which there is one at least, in order, as one frame of one chunk a column.

    A column of whole numbers that says the same in every row is held as that one value. ``most`` is how many rows are
    expected: room for those that do not come is never touched, for more there will be some.
    """
    columns: dict[str, _Column] = {}
    for piece in pieces:
        columns = columns or {name: _Column(name, dtype, most) for name, dtype in piece.schema.items()}
        constants = constants_of([piece])
        for name, column in columns.items():
            column.add(piece, same=name in constants)
    literals = {
        name: pl.lit(column.value, column.dtype) for name, column in columns.items() if column.value is not None
    }
    varying = [name for name in columns if name not in literals] or columns  # literals alone do not tell the height
    return pl.DataFrame([columns[name].series() for name in varying]).with_columns(**literals).select(*columns)


class _Column:
    """A column that grows. ``value`` is what all rows say, as long as it is one whole number."""

    def __init__(self, name: str, dtype: pl.DataType, most: int) -> None:
        self.dtype = dtype
        self.value: int | bool | None = None
        self._name = name
        self._height = 0
        self._most = most
        self._array: NDArray[Any] | None = None
        self._others: list[pl.Series] = []

    def add(self, piece: pl.DataFrame, *, same: bool) -> None:
        """Append the piece's column, which may say the same in every row."""
        value = piece.item(0, self._name) if same else None
        if same and (value == self.value or not self._height):
            self.value = value
        elif piece.height:
            self._append(piece.get_column(self._name))
            self.value = None
        self._height += piece.height

    def series(self) -> pl.Series:
        if self._others:
            return pl.concat(self._others, rechunk=True)
        if self._array is not None:
            return pl.Series(self._name, self._array[: self._height])
        return pl.repeat(self.value, self._height, dtype=self.dtype, eager=True).alias(self._name)

    def _append(self, values: pl.Series) -> None:
        if self._others or not self.dtype.is_integer() or values.null_count():  # an array has no place for them
            self._others += [] if self._others or not self._height else [self.series()]
            self._others.append(values)
            return
        numbers, end = values.to_numpy(), self._height + len(values)
        if self._array is None or end > len(self._array):
            array = np.empty(max(min(self._most, _BELIEVED * end), 2 * end), numbers.dtype)
            array[: self._height] = self.series().to_numpy()
            self._array = array
        self._array[self._height : end] = numbers
