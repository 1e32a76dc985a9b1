"""Interval algebra: frames in, frames out.

An interval is a row ``[start_ns, end_ns)`` of Int64 nanoseconds. ``start_ns == end_ns`` is legal and covers nothing.
A *merged* frame is what `union` returns: sorted, disjoint, nothing empty, neighbours never touching; so two merged
frames are equal exactly when they cover the same instants. Everything is integer arithmetic over whole columns: sums
are exact, and no function loops over rows but where they are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from nsyskit.frames import PIECE_ROWS, kept, summed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPAN: Final = {"start_ns": pl.Int64, "end_ns": pl.Int64}
"""Schema of a frame of bare intervals."""

_start, _end = pl.col("start_ns"), pl.col("end_ns")
MANY: Final = 65_536
"""From so many rows on numpy is worth the tenth of a second that it takes to import."""
_A_QUERY: Final = 5_000
"""For so many rows looking up one interval on its own takes as long as adding them up."""


def span(start_ns: int, end_ns: int) -> pl.DataFrame:
    """A frame of one interval, or of none when it would be empty."""
    return pl.DataFrame({"start_ns": [start_ns], "end_ns": [end_ns]}, schema=SPAN).filter(_start < _end)


def union(frame: pl.DataFrame, *, by: Sequence[str] = ()) -> pl.DataFrame:
    """The instants that any row covers, as a merged frame: by*, start_ns, end_ns.

    With ``by`` each group of rows is merged on its own, and the result is sorted by group, then by start.
    """
    keys = list(by)
    rows = kept(frame.select(*keys, _start, _end), _start < _end)
    if not keys and _is_merged(rows):  # as operations of one stream are; nothing is copied
        return rows
    if keys or not rows.get_column("start_ns").is_sorted():
        rows = rows.sort(*keys, "start_ns")
    # Row order inside equal starts does not matter: the running maximum of the ends takes care of it.
    reach, before = _end.cum_max(), _end.shift(1)
    if keys:
        reach, before = reach.over(keys), before.over(keys)
    rows = rows.with_columns(reach)
    head = rows.select((_start > before).fill_null(value=True)).to_series()
    if head.all():
        return rows
    ends = rows.get_column("end_ns").filter(head.shift(-1, fill_value=True))
    return rows.filter(head).with_columns(ends)


def _is_merged(rows: pl.DataFrame) -> bool:
    (touching,) = summed(rows, (_start <= _end.shift()).sum(), before=1)
    return not touching


def length(frame: pl.DataFrame) -> int:
    """The sum of the rows' lengths in ns; of a merged frame, what it covers."""
    return int(frame.get_column("end_ns").sum()) - int(frame.get_column("start_ns").sum())


def clip(frame: pl.DataFrame, window_start: int, window_end: int) -> pl.DataFrame:
    """The rows that lie in the window, cut at its edges; all columns stay.

    An empty row stays when its instant is in ``[window_start, window_end)``.
    """
    if frame.is_empty() or window_start >= window_end:
        return frame.clear()
    starts, ends = frame.get_column("start_ns"), frame.get_column("end_ns")
    if starts.is_sorted() and ends.is_sorted():  # nothing is copied but where an edge cuts a row
        first = min(ends.search_sorted(window_start, side="right"), starts.search_sorted(window_start, side="left"))
        rows = frame.slice(first, max(0, starts.search_sorted(window_end, side="left") - first))
    else:
        rows = frame.filter((_start < window_end) & ((_end > window_start) | (_start >= window_start)))
    if rows.is_empty() or (rows["start_ns"].min() >= window_start and rows["end_ns"].max() <= window_end):  # type: ignore[operator]
        return rows
    return rows.with_columns(_start.clip(lower_bound=window_start), _end.clip(upper_bound=window_end))


def complement(frame: pl.DataFrame, window_start: int, window_end: int) -> pl.DataFrame:
    """The part of the window that no row covers, merged: start_ns, end_ns."""
    busy = union(clip(frame, window_start, window_end))
    if busy.is_empty():
        return span(window_start, window_end)
    starts = pl.concat([pl.Series("start_ns", [window_start]), busy.get_column("end_ns").alias("start_ns")])
    ends = pl.concat([busy.get_column("start_ns").alias("end_ns"), pl.Series("end_ns", [window_end])])
    # between merged rows there is always something; before the first and after the last there need not be
    first, last = int(starts[0] == ends[0]), int(starts[-1] == ends[-1])
    return pl.DataFrame([starts, ends], schema=SPAN).slice(first, len(starts) - first - last).rechunk()


def intersect(rows: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
    """Each row cut down to what a merged frame covers: one row a piece, all columns of ``rows``, in their order.

    ``rows`` may overlap one another; of two merged frames the result is merged.
    """
    if rows.is_empty() or merged.is_empty():
        return rows.clear()
    return pl.concat([_intersect(piece, near) for piece, near in _side_by_side(rows, merged)]).rechunk()


def _intersect(rows: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
    starts, ends = merged.get_column("start_ns"), merged.get_column("end_ns")
    first = count_upto(ends, rows.get_column("start_ns"))
    stop = count_before(starts, rows.get_column("end_ns"))
    places = rows.with_columns(first.alias("_first"), stop.alias("_stop")).filter(pl.col("_first") < pl.col("_stop"))
    # Most rows meet one piece; making lists for them would cost more than all the rest.
    several = places.get_column("_stop") - places.get_column("_first") > 1
    if several.any():
        places = places.with_columns(pl.int_ranges("_first", "_stop").alias("_first")).explode("_first")
    return (
        places.with_columns(
            pl.max_horizontal(_start, pl.lit(starts).gather("_first")).alias("start_ns"),
            pl.min_horizontal(_end, pl.lit(ends).gather("_first")).alias("end_ns"),
        )
        .drop("_first", "_stop")
        .filter(_start < _end)
    )


def _side_by_side(rows: pl.DataFrame, merged: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Rows by start a piece at a time, each piece with what of a merged frame may touch it; other rows as they are.

    Millions of rows are worked through in memory that a core's cache holds, instead of column by column.
    """
    if rows.height <= PIECE_ROWS or not rows.get_column("start_ns").is_sorted():
        yield rows, merged
        return
    starts, ends = merged.get_column("start_ns"), merged.get_column("end_ns")
    for piece in rows.iter_slices(PIECE_ROWS):
        low, high = piece.select(_start.first().alias("low"), _end.max()).row(0)
        first, stop = ends.search_sorted(low, side="right"), starts.search_sorted(high, side="left")
        yield piece, merged.slice(first, max(0, stop - first))


def common(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """What both of two merged frames cover, merged: the longer one is only searched."""
    return intersect(one, other) if one.height < other.height else intersect(other, one)


def neighbourhood(merged: pl.DataFrame, start_ns: int, end_ns: int) -> pl.DataFrame:
    """The rows of a merged frame that meet the stretch, uncut, and one more on either side; nothing is copied."""
    first = merged.get_column("end_ns").search_sorted(start_ns, side="right") - 1
    stop = merged.get_column("start_ns").search_sorted(end_ns, side="left") + 1
    return merged[max(first, 0) : stop]


def split(rows: pl.DataFrame, merged: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What one merged frame shares with another, and what is left of it: both merged, ``start_ns end_ns``.

    As `intersect` and `subtract`, for little more than the price of one.
    """
    inside = intersect(rows, merged).select(_start, _end)
    return inside, _left(rows, inside)


def _left(rows: pl.DataFrame, inside: pl.DataFrame) -> pl.DataFrame:
    """A merged frame less another that lies within it: merged, ``start_ns end_ns``."""
    if inside.is_empty():
        return rows.select(_start, _end)
    return pl.concat([_without(piece, near) for piece, near in _side_by_side(rows, inside)]).rechunk()


def _without(rows: pl.DataFrame, inside: pl.DataFrame) -> pl.DataFrame:
    # What is left begins where a row begins or a piece taken out ends, and ends where one begins or a row ends.
    starts = _merged_sorted(rows.get_column("start_ns"), inside.get_column("end_ns"))
    ends = _merged_sorted(inside.get_column("start_ns"), rows.get_column("end_ns"))
    return pl.DataFrame([starts.alias("start_ns"), ends.alias("end_ns")]).filter(_start < _end)


def _merged_sorted(one: pl.Series, other: pl.Series) -> pl.Series:
    return one.to_frame("at").merge_sorted(other.to_frame("at"), key="at").get_column("at")


def subtract(rows: pl.DataFrame, merged: pl.DataFrame) -> pl.DataFrame:
    """Each row cut down to what a merged frame leaves uncovered; as `intersect` otherwise."""
    if rows.is_empty() or merged.is_empty():
        return rows.filter(_start < _end)
    low, high = rows.get_column("start_ns").min(), rows.get_column("end_ns").max()
    return intersect(rows, complement(merged, int(low), int(high)))  # type: ignore[arg-type]


def partition(
    window_start: int, window_end: int, layers: Sequence[tuple[str, pl.DataFrame]], *, rest: str = "rest"
) -> pl.DataFrame:
    """The window split by the first layer that covers each instant: start_ns, end_ns, part; sorted by start.

    ``layers`` are (part, any intervals) in order of priority; ``rest`` names what none of them covers. The parts sum
    to the window exactly. To split parts further, `intersect` and `subtract` the result: they keep ``part``.
    """
    left = span(window_start, window_end)
    pieces = []
    for part, frame in layers:
        merged = union(clip(frame, window_start, window_end))
        pieces.append(intersect(left, merged).with_columns(pl.lit(part).alias("part")))
        left = subtract(left, merged)
    pieces.append(left.with_columns(pl.lit(rest).alias("part")))
    return pl.concat(pieces).sort("start_ns")


def covered_ns(queries: pl.DataFrame, merged: pl.DataFrame) -> pl.Series:
    """For each row of ``queries``, how many of its ns a merged frame covers: Int64, in the order of ``queries``."""
    if queries.is_empty() or merged.is_empty():
        return pl.repeat(0, queries.height, dtype=pl.Int64, eager=True).alias("covered_ns")
    if queries.height == 1:
        return pl.Series("covered_ns", [length(clip(merged, *queries.select(_start, _end).row(0)))])
    if _are_few(queries, merged):
        return _covered_one_by_one(queries, merged)
    return pl.concat([_covered(piece, near) for piece, near in _side_by_side(queries, merged)]).rechunk()


def _are_few(queries: pl.DataFrame, merged: pl.DataFrame) -> bool:
    """Whether to look up one query after the other: other ways add up all rows, these no more than that."""
    if queries.height * _A_QUERY > merged.height:
        return False
    return length(queries) <= int(merged.item(-1, "end_ns")) - int(merged.item(0, "start_ns"))


def overlap_ns(rows: pl.DataFrame, merged: pl.DataFrame) -> int:
    """How many ns of all rows together a merged frame covers."""
    if rows.is_empty() or merged.is_empty():
        return 0
    return sum(int(covered_ns(piece, near).sum()) for piece, near in _side_by_side(rows, merged))


def _covered(queries: pl.DataFrame, merged: pl.DataFrame) -> pl.Series:
    upto_start, upto_end = _covered_before([queries.get_column(edge) for edge in SPAN], merged)
    return (upto_end - upto_start).alias("covered_ns")


def _covered_one_by_one(queries: pl.DataFrame, merged: pl.DataFrame) -> pl.Series:
    """As `covered_ns`; of a merged frame only what the queries meet is looked at."""
    starts, ends = merged.get_column("start_ns"), merged.get_column("end_ns")
    first = count_upto(ends, queries.get_column("start_ns"))
    stop = count_before(starts, queries.get_column("end_ns"))
    met = [(at, max(0, until - at)) for at, until in zip(first, stop, strict=True)]
    whole = pl.Series([int(ends.slice(*rows).sum()) - int(starts.slice(*rows).sum()) for rows in met], dtype=pl.Int64)
    last_row = merged.height - 1
    before = queries.get_column("start_ns") - starts.gather(first.clip(0, last_row))
    after = ends.gather((stop - 1).clip(0, last_row)) - queries.get_column("end_ns")
    # of rows that reach beyond a query its part is taken off; where none is met, whole is 0
    inside = whole - before.clip(lower_bound=0) - after.clip(lower_bound=0)
    return pl.select(pl.when(first < stop).then(inside).otherwise(0).alias("covered_ns")).to_series()


def sweep(frame: pl.DataFrame, window_start: int, window_end: int) -> pl.DataFrame:
    """How many rows are open at each instant of the window: start_ns, end_ns, open; sorted, sums to the window."""
    if window_start >= window_end:
        return pl.DataFrame(schema=SPAN | {"open": pl.Int64})
    rows = clip(frame, window_start, window_end)
    events = pl.concat(
        [
            pl.DataFrame({"start_ns": [window_start], "open": [0]}, schema={"start_ns": pl.Int64, "open": pl.Int64}),
            rows.select("start_ns", pl.lit(1, pl.Int64).alias("open")),
            rows.select(_end.alias("start_ns"), pl.lit(-1, pl.Int64).alias("open")),
        ]
    )
    steps = events.sort("start_ns").with_columns(pl.col("open").cum_sum())
    # Of the events at one instant the last holds the count after all of them, whatever their order.
    steps = steps.filter(_start != _start.shift(-1, fill_value=window_end))
    steps = steps.filter(pl.col("open").ne_missing(pl.col("open").shift(1)))
    return steps.select(_start, _start.shift(-1, fill_value=window_end).alias("end_ns"), "open")


def cover_sets(layers: Sequence[pl.DataFrame], window_start: int, window_end: int) -> pl.DataFrame:
    """Which merged frames cover each instant of the window: start_ns, end_ns, mask; sorted, sums to the window.

    Bit i of ``mask`` (Int64) says that ``layers[i]`` covers it; there are at most 62.
    """
    if window_start >= window_end:
        return pl.DataFrame(schema=SPAN | {"mask": pl.Int64})
    events = [pl.DataFrame({"start_ns": [window_start], "mask": [0]}, schema={"start_ns": pl.Int64, "mask": pl.Int64})]
    for bit, layer in enumerate(layers):
        rows = clip(layer, window_start, window_end)
        events.append(rows.select("start_ns", pl.lit(1 << bit, pl.Int64).alias("mask")))
        events.append(rows.select(_end.alias("start_ns"), pl.lit(-(1 << bit), pl.Int64).alias("mask")))
    steps = pl.concat(events).sort("start_ns").with_columns(pl.col("mask").cum_sum())
    steps = steps.filter(_start != _start.shift(-1, fill_value=window_end))
    steps = steps.filter(pl.col("mask").ne_missing(pl.col("mask").shift(1)))
    return steps.select(_start, _start.shift(-1, fill_value=window_end).alias("end_ns"), "mask")


def count_at(points: pl.Series, frame: pl.DataFrame) -> pl.Series:
    """How many rows are open at each instant of ``points``: Int64, in their order."""
    begun = count_upto(frame.get_column("start_ns").sort(), points)
    return (begun - count_upto(frame.get_column("end_ns").sort(), points)).alias("open")


def assign(points: pl.Series, intervals: pl.DataFrame) -> pl.Series:
    """For each instant the index of the row of ``intervals`` that contains it: Int64, null where none does.

    ``intervals`` are disjoint, in any order; the index counts them as they are given.
    """
    rows = intervals.select(pl.int_range(pl.len()).alias("row"), _start, _end).filter(_start < _end).sort("start_ns")
    found = count_upto(rows.get_column("start_ns"), points).alias("found") - 1
    at = pl.DataFrame([points.alias("point"), found])
    # A negative index would count from the end of the frame.
    at = at.with_columns(pl.when(pl.col("found") >= 0).then("found"))
    at = at.with_columns(
        pl.lit(rows.get_column("end_ns")).gather("found").alias("end_ns"),
        pl.lit(rows.get_column("row")).gather("found").alias("row"),
    )
    return at.select(pl.when(pl.col("point") < _end).then("row").alias("row")).get_column("row")


def covered_before(instants: pl.Series, merged: pl.DataFrame) -> pl.Series:
    """How many ns of a merged frame lie before each instant: Int64, in the order of ``instants``."""
    (found,) = _covered_before([instants], merged)
    return found


def _covered_before(columns: Sequence[pl.Series], merged: pl.DataFrame) -> list[pl.Series]:
    """As ``covered_before`` for each of some columns of instants; what is summed of a frame is summed once for all."""
    if max(merged.height, *map(len, columns)) >= MANY and all(map(_ascends, columns)):
        from nsyskit import ascending

        return ascending.covered_before(columns, merged)
    rows = merged.select(_start, _end, (_end - _start).cum_sum().alias("total"))
    starts = rows.get_column("start_ns")
    found = [count_upto(starts, instants).alias("found") - 1 for instants in columns]
    return [_upto(instants, rows, at) for instants, at in zip(columns, found, strict=True)]


def _upto(instants: pl.Series, rows: pl.DataFrame, found: pl.Series) -> pl.Series:
    """What is covered before each instant, by the row that is the last to begin before it."""
    at = pl.DataFrame([instants.alias("instant"), found]).with_columns(pl.when(pl.col("found") >= 0).then("found"))
    at = at.with_columns(pl.lit(rows.get_column(name)).gather("found").alias(name) for name in ("end_ns", "total"))
    unfinished = (_end - pl.col("instant")).clip(lower_bound=0)
    return at.select((pl.col("total") - unfinished).fill_null(0).alias("before")).get_column("before")


def count_upto(values: pl.Series, instants: pl.Series) -> pl.Series:
    """How many of the sorted ``values`` are at or before each instant: Int64, in the order of ``instants``."""
    return _count(values, instants, "right")


def count_before(values: pl.Series, instants: pl.Series) -> pl.Series:
    """How many of the sorted ``values`` are before each instant: Int64, in the order of ``instants``."""
    return _count(values, instants, "left")


def _count(values: pl.Series, instants: pl.Series, side: Literal["left", "right"]) -> pl.Series:
    if max(len(values), len(instants)) >= MANY and _ascends(instants) and not values.null_count():
        from nsyskit import ascending

        return ascending.count(values, instants, side)
    found = values.search_sorted(instants, side=side)
    # its own counts are unsigned and would wrap below zero
    return pl.Series([found] if isinstance(found, int) else found).cast(pl.Int64)


def _ascends(instants: pl.Series) -> bool:
    return not instants.null_count() and instants.is_sorted()
