"""Interval algebra: frames in, frames out.

An interval is a row ``[start_ns, end_ns)`` of Int64 nanoseconds. ``start_ns == end_ns`` is legal and covers nothing.
A *merged* frame is what `union` returns: sorted, disjoint, nothing empty, neighbours never touching; so two merged
frames are equal exactly when they cover the same instants. Everything is integer arithmetic over whole columns: sums
are exact, and no function loops over rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from nsyskit.frames import PIECE_ROWS, kept, summed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPAN: Final = {"start_ns": pl.Int64, "end_ns": pl.Int64}
"""Schema of a frame of bare intervals."""

_start, _end = pl.col("start_ns"), pl.col("end_ns")
_MANY: Final = 4_096
_MANY_FOR: Final = 16
"""From so many instants on, and one for so many values, walking two sorted columns beats searching."""


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
    first, latest, last = frame.select(_start.min().alias("first"), _start.max().alias("latest"), _end.max()).row(0)
    if first is not None and window_start <= first and latest < window_end and last <= window_end:
        return frame
    inside = (_start < window_end) & ((_end > window_start) | (_start >= window_start))
    return frame.filter(inside & pl.lit(window_start < window_end)).with_columns(
        _start.clip(lower_bound=window_start), _end.clip(upper_bound=window_end)
    )


def complement(frame: pl.DataFrame, window_start: int, window_end: int) -> pl.DataFrame:
    """The part of the window that no row covers, merged: start_ns, end_ns."""
    busy = union(clip(frame, window_start, window_end))
    edges = pl.Series("start_ns", [window_start]), pl.Series("end_ns", [window_end])
    starts = pl.concat([edges[0], busy.get_column("end_ns").alias("start_ns")])
    ends = pl.concat([busy.get_column("start_ns").alias("end_ns"), edges[1]])
    return kept(pl.DataFrame([starts, ends], schema=SPAN), _start < _end)


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
    return inside, without(rows, inside)


def without(rows: pl.DataFrame, inside: pl.DataFrame) -> pl.DataFrame:
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
    if queries.height == 1:
        start_ns, end_ns = queries.select(_start, _end).row(0)
        return pl.Series("covered_ns", [_covered_within(start_ns, end_ns, merged)], dtype=pl.Int64)
    return pl.concat([_covered(piece, near) for piece, near in _side_by_side(queries, merged)]).rechunk()


def overlap_ns(rows: pl.DataFrame, merged: pl.DataFrame) -> int:
    """How many ns of all rows together a merged frame covers."""
    total = 0
    for piece, near in _side_by_side(rows, merged):
        # cutting rows that meet few others is faster than looking up both ends of each
        few = near.height <= 2 * piece.height
        total += length(_intersect(piece.select(_start, _end), near)) if few else int(covered_ns(piece, near).sum())
    return total


def _covered(queries: pl.DataFrame, merged: pl.DataFrame) -> pl.Series:
    upto_end = covered_before(queries.get_column("end_ns"), merged)
    return (upto_end - covered_before(queries.get_column("start_ns"), merged)).alias("covered_ns")


def _covered_within(start_ns: int, end_ns: int, merged: pl.DataFrame) -> int:
    """How many ns between two instants a merged frame covers; most of it is neither copied nor looked at."""
    starts, ends = merged.get_column("start_ns"), merged.get_column("end_ns")
    first, stop = ends.search_sorted(start_ns, side="right"), starts.search_sorted(end_ns, side="left")
    if first >= stop:
        return 0
    before, after = max(0, start_ns - int(starts[first])), max(0, int(ends[stop - 1]) - end_ns)
    return int(ends[first:stop].sum()) - int(starts[first:stop].sum()) - before - after


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
    if merged.height <= PIECE_ROWS or not instants.is_sorted():
        return _covered_before(instants, merged)
    found, upto, done = [], 0, 0
    for piece in merged.iter_slices(PIECE_ROWS):
        done_before, done = done, int(instants.search_sorted(piece.item(-1, "end_ns"), side="left"))
        found.append(_covered_before(instants.slice(done_before, done - done_before), piece) + upto)
        upto += length(piece)
    beyond = pl.repeat(upto, len(instants) - done, dtype=pl.Int64, eager=True).alias("before")
    return pl.concat([*found, beyond]).rechunk()


def _covered_before(instants: pl.Series, merged: pl.DataFrame) -> pl.Series:
    rows = merged.select(_start, _end, (_end - _start).cum_sum().alias("total"))
    found = count_upto(rows.get_column("start_ns"), instants).alias("found") - 1
    at = pl.DataFrame([instants.alias("instant"), found]).with_columns(pl.when(pl.col("found") >= 0).then("found"))
    at = at.with_columns(pl.lit(rows.get_column(name)).gather("found").alias(name) for name in ("end_ns", "total"))
    unfinished = (_end - pl.col("instant")).clip(lower_bound=0)
    return at.select((pl.col("total") - unfinished).fill_null(0).alias("before")).get_column("before")


def count_upto(values: pl.Series, instants: pl.Series) -> pl.Series:
    """How many of the sorted ``values`` are at or before each instant: Int64, in the order of ``instants``."""
    return _count(values, instants, at_too=True)


def count_before(values: pl.Series, instants: pl.Series) -> pl.Series:
    """How many of the sorted ``values`` are before each instant: Int64, in the order of ``instants``."""
    return _count(values, instants, at_too=False)


def _count(values: pl.Series, instants: pl.Series, *, at_too: bool) -> pl.Series:
    few = len(instants) < max(_MANY, len(values) // _MANY_FOR)
    if few or instants.null_count() or not instants.is_sorted():
        found = values.search_sorted(instants, side="right" if at_too else "left")
        # its own counts are unsigned and would wrap below zero
        return pl.Series([found] if isinstance(found, int) else found).cast(pl.Int64)
    # Two sorted columns are walked side by side in a third of the time that as many binary searches take.
    left = pl.DataFrame([instants.alias("at").set_sorted()])
    right = pl.DataFrame([values.alias("at").set_sorted(), pl.int_range(1, len(values) + 1, eager=True).alias("count")])
    found = left.join_asof(right, on="at", strategy="backward", allow_exact_matches=at_too).get_column("count")
    return found.fill_null(0)
