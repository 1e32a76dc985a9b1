"""Ascending columns of very many instants, held against each other with numpy.

Polars searches for each value anew; numpy goes on from where it found the last one, which is three times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import polars as pl

from nsyskit.frames import PIECE_ROWS

_REPEATED: Final = 4
"""Instants a value from which on counts are repeated, instead of looked up for each."""


def count(values: pl.Series, instants: pl.Series, side: Literal["left", "right"]) -> pl.Series:
    """How many of the values are before (left) each instant, or also at it (right): Int64. Both ascend."""
    looked_for, sought = values.to_numpy(), instants.to_numpy()
    if not len(sought):
        return pl.Series(dtype=pl.Int64)
    low, high = np.searchsorted(looked_for, sought[[0, -1]], side).tolist()
    near = looked_for[low:high]
    if len(near) * _REPEATED > len(sought):
        return pl.Series(low + np.searchsorted(near, sought, side))
    # from one value to the next the count is the same
    other: Literal["left", "right"] = "left" if side == "right" else "right"
    runs = np.diff(np.searchsorted(sought, near, other), prepend=0, append=len(sought))
    return pl.Series(np.repeat(np.arange(low, high + 1), runs))


def covered_before(columns: Sequence[pl.Series], merged: pl.DataFrame) -> list[pl.Series]:
    """How many ns of a merged frame lie before each instant of each column: Int64.

    The instants ascend. The frame is added up a piece at a time, for all columns at once.
    """
    starts, ends = (merged.get_column(edge).to_numpy() for edge in ("start_ns", "end_ns"))
    instants = [column.to_numpy() for column in columns]
    found = [np.zeros(len(column), np.int64) for column in columns]
    # up to the first start of the next piece an instant belongs to this one
    firsts = starts[PIECE_ROWS::PIECE_ROWS]
    bounds = [[0, *np.searchsorted(column, firsts).tolist(), len(column)] for column in instants]
    upto = 0
    for piece, first in enumerate(range(0, len(starts), PIECE_ROWS)):
        begins, stops = starts[first : first + PIECE_ROWS], ends[first : first + PIECE_ROWS]
        sums = np.cumsum(stops - begins)
        for column, before, bound in zip(instants, found, bounds, strict=True):
            own = slice(bound[piece], bound[piece + 1])
            last = np.searchsorted(begins, column[own], "right") - 1
            unfinished = np.maximum(stops[last] - column[own], 0)
            before[own] = np.where(last >= 0, upto + sums[last] - unfinished, 0)
        upto += int(sums[-1])
    return [pl.Series(before) for before in found]
