"""Rows as they happen: single ones and whole arrays at once, frozen into columns sorted by time."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

I64: TypeAlias = npt.NDArray[np.int64]
F64: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Columns: TypeAlias = dict[str, I64]


class Tape:
    """An event table that grows. Scalars given to ``extend`` hold for all of its rows."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self._rows: list[tuple[int, ...]] = []
        self._chunks: list[tuple[int, dict[str, int | I64]]] = []

    def add(self, **values: int) -> None:
        self._rows.append(tuple(values[name] for name in self.names))

    def extend(self, count: int, **values: int | I64) -> None:
        if count:
            self._chunks.append((count, values))

    def __len__(self) -> int:
        return len(self._rows) + sum(count for count, _ in self._chunks)

    def freeze(self) -> Columns:
        """All rows as columns, sorted by start, then end, then the order in which they came."""
        single = np.array(self._rows, dtype=np.int64).reshape(len(self._rows), len(self.names))
        columns = {
            name: np.concatenate([single[:, at], *(_column(count, values[name]) for count, values in self._chunks)])
            for at, name in enumerate(self.names)
        }
        return take(columns, np.lexsort((columns["end"], columns["start"])))


def _column(count: int, value: int | I64) -> I64:
    return np.full(count, value, dtype=np.int64) if isinstance(value, int | np.integer) else value


def take(columns: Columns, which: I64 | Bools) -> Columns:
    """The rows of a table at these positions, or where true."""
    return {name: column[which] for name, column in columns.items()}


def count(columns: Columns) -> int:
    """Rows of a table."""
    return len(columns["start"])
