"""Frames of millions of rows, held small: memory that is touched for the first time costs more than computing.

What changes is how rows lie in memory and how they are walked through, not what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import polars as pl

_LOWS: Final = 1 << 32
"""As many as there are of Int32."""
PIECE_ROWS: Final = 524_288
"""Small enough that a piece takes little memory, which the next one uses again; a quarter of it costs a tenth more."""
_FEW_GROUPS: Final = 500
"""So many frames are made sooner than one is looked through at random."""


def with_literals(frame: pl.DataFrame) -> pl.DataFrame:
    """The same frame; a column of whole numbers that says the same in every row is held as that one value."""
    return frame.with_columns(constants_of([frame]).values())


def by_time(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of frames that are each by ``start_ns``, then ``end_ns``, as one frame so ordered.

    Columns as in ``with_literals``. Rows of equal times stand in the order of their frames.
    """
    names, times = frames[0].columns, ("start_ns", "end_ns")
    constants = {name: value for name, value in constants_of(frames).items() if name not in times}
    filled = [frame.drop(*constants) for frame in frames if frame.height] or [frames[0]]
    rows, *others = filled
    if others:
        # the first are nearly all: merging walks both once, sorting would copy and compare them all
        rows = rows.merge_sorted(pl.concat(others).sort(times, maintain_order=True), key="start_ns")
        if not is_by_time(rows):
            rows = rows.sort(times, maintain_order=True)
    return rows.with_columns(constants.values()).select(names)


def is_by_time(frame: pl.DataFrame, *, end: str = "end_ns") -> bool:
    """Whether the rows are by ``start_ns``, then by ``end``."""
    if not frame["start_ns"].is_sorted():
        return False
    same = pl.col("start_ns") == pl.col("start_ns").shift()
    (descents,) = summed(frame, (same & (pl.col(end) < pl.col(end).shift())).sum(), before=1)
    return not descents


def ascends(values: pl.Series) -> bool:
    """Whether each value is larger than the one before."""
    return not values.null_count() and values.is_sorted() and values.set_sorted().n_unique() == len(values)


def kept(frame: pl.DataFrame, condition: pl.Expr) -> pl.DataFrame:
    """As ``filter``, without a copy where all rows stay, as nearly always."""
    stays = frame.select(condition.alias("stays")).get_column("stays")
    return frame if stays.all(ignore_nulls=False) else frame.filter(stays)


def distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """The distinct rows, in no order: a piece at a time, since hashing all of them at once takes memory by the row."""
    constants = constants_of([frame])
    varying = frame.drop(*constants)
    if not varying.width:
        return frame.head(1)
    rows = pl.concat([piece.unique() for piece in varying.iter_slices(PIECE_ROWS)] or [varying]).unique()
    return rows.with_columns(constants.values()).select(frame.columns)


def groups(frame: pl.DataFrame, *keys: str) -> Iterator[tuple[tuple[object, ...], pl.DataFrame]]:
    """The rows of each key, in order: not copied where all have the same one, as nearly always."""
    ids = frame.select(keys)
    if frame.height and len(constants_of([ids])) == len(keys):
        return iter([(ids.row(0), frame)])
    return iter(frame.group_by(keys, maintain_order=True))


def slices(frame: pl.DataFrame, rows: int | None = None) -> Iterator[pl.DataFrame]:
    """The frame in pieces of so many rows (``PIECE_ROWS``), of which there is one at least."""
    return frame.iter_slices(rows or PIECE_ROWS) if frame.height else iter([frame])


def by_group(pieces: Iterable[pl.DataFrame], keys: Sequence[str], *aggregates: pl.Expr) -> pl.DataFrame:
    """As ``group_by(keys).agg(aggregates)`` of all pieces together, of which there is one at least; in no order.

    Few groups are taken apart first: what lies side by side is added up in a quarter of the time.
    """
    apart: dict[tuple[object, ...], list[pl.DataFrame]] = {}
    mixed: list[pl.DataFrame] = []
    for piece in pieces:
        same = constants_of([piece.select(keys)])
        varying = [key for key in keys if key not in same] or keys[:1]  # one key is told apart faster than five
        if not piece.height or max(len(apart), piece.select(varying).n_unique()) > _FEW_GROUPS:
            mixed.append(piece)
            continue
        for rows in piece.partition_by(varying):
            apart.setdefault(rows.select(keys).row(0), []).append(with_literals(rows))  # keys take no memory
    if not apart or any(piece.height for piece in mixed):
        rest = [rows for parts in apart.values() for rows in parts]
        return pl.concat([*rest, *mixed], how="vertical_relaxed").group_by(keys).agg(*aggregates)
    found = []
    while apart:  # the parts of a group are let go before those of the next are put together
        _, parts = apart.popitem()
        group = pl.concat([rows.drop(keys) for rows in parts], how="vertical_relaxed", rechunk=True)
        found.append(parts[0].select(keys).head(1).hstack(group.select(*aggregates)))
    return pl.concat(found)


def narrowed(frame: pl.DataFrame) -> pl.DataFrame:
    """The same numbers; columns of Int64 whose numbers are small take half the memory, as Int32."""
    wide = frame.select(pl.col(pl.Int64))
    if not frame.height or not wide.width:
        return frame
    lows, highs = (wide.select(end).row(0, named=True) for end in (pl.all().min(), pl.all().max()))
    small = [name for name in wide.columns if -_LOWS // 2 <= (lows[name] or 0) <= (highs[name] or 0) < _LOWS // 2]
    return frame.with_columns(pl.col(small).cast(pl.Int32))


def in_runs(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """The same frame; rows of a key that ascends need not be hashed to be grouped."""
    return frame.with_columns(pl.col(key).set_sorted()) if frame.get_column(key).is_sorted() else frame


def selected(
    frame: pl.DataFrame, where: pl.Expr, *names: str, narrow: bool = False, **columns: pl.Expr
) -> pl.DataFrame:
    """Columns of the rows for which a condition holds, in order, a piece at a time: nothing else of them is copied.

    They may be ``narrowed``.
    """
    looked_at = {name for expression in (where, *columns.values()) for name in expression.meta.root_names()}
    rows = frame.select(*{*names, *looked_at})
    found = (piece.filter(where).select(*names, **columns) for piece in slices(rows))
    return pl.concat([narrowed(piece) if narrow else piece for piece in found], how="vertical_relaxed").rechunk()


def marked(height: int, rows: pl.Series) -> pl.Series:
    """Which of so many rows are named: Boolean. Bits are slow to set one by one, bytes are not."""
    return pl.repeat(0, height, dtype=pl.UInt8, eager=True).scatter(rows, 1).cast(pl.Boolean)


def packed(high: pl.Expr, low: pl.Expr) -> pl.Expr:
    """Two columns as one Int64, which is grouped by much faster: numbers from 0 to 2^30 - 1, and any Int32 or null."""
    return high.cast(pl.Int64) * (2 * _LOWS) + (low.cast(pl.Int64) + _LOWS // 2).fill_null(_LOWS)


def unpacked(key: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """What ``packed`` made one column of: Int64 and Int32."""
    low = key % (2 * _LOWS)
    return key // (2 * _LOWS), pl.when(low < _LOWS).then(low - _LOWS // 2).cast(pl.Int32)


def summed(frame: pl.DataFrame, *aggregates: pl.Expr, before: int = 0) -> tuple[Any, ...]:
    """What aggregates come to over all rows, worked out a piece at a time and added up.

    ``before`` rows of the piece before are seen again, for expressions that look back.
    """
    starts = range(0, max(frame.height, 1), PIECE_ROWS)
    pieces = [frame.slice(max(first - before, 0), PIECE_ROWS + min(first, before)) for first in starts]
    numbered = [aggregate.alias(str(at)) for at, aggregate in enumerate(aggregates)]
    return pl.concat([piece.select(numbered) for piece in pieces]).sum().row(0)


def constants_of(parts: Sequence[pl.DataFrame]) -> dict[str, pl.Expr]:
    """The columns of whole numbers that say the same in every row of all parts: name -> literal."""
    filled = [part for part in parts if part.height]
    if not filled:
        return {}
    schema, said = filled[0].schema, filled[0].row(0, named=True)
    ends = [part.row(at, named=True) for part in filled for at in (0, -1)]
    # most columns differ at once, and need not be looked through
    names = [name for name, dtype in schema.items() if dtype.is_integer() or dtype == pl.Boolean]
    names = [name for name in names if said[name] is not None and all(end[name] == said[name] for end in ends)]
    everywhere = [(pl.col(name) == pl.lit(said[name], schema[name])).all(ignore_nulls=False) for name in names]
    found = [part.select(everywhere).row(0, named=True) for part in filled] if names else []
    return {name: pl.lit(said[name], schema[name]).alias(name) for name in names if all(same[name] for same in found)}
