"""Interval algebra, by hand on small numbers and against a reference that paints nanoseconds."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsyskit import ascending
from nsyskit import intervals as iv

LOW, HIGH = -8, 20

# Starts and lengths small enough that overlaps, duplicates, touching ends and empty rows all come up.
spans = st.lists(
    st.tuples(st.integers(LOW, HIGH - 6), st.integers(0, 6)).map(lambda s: (s[0], s[0] + s[1])), max_size=8
)
instants = st.integers(LOW - 2, HIGH + 2)


def frame(*rows: tuple[int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=iv.SPAN, orient="row")


def named(*rows: tuple[int, int, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=iv.SPAN | {"name": pl.String}, orient="row")


def painted(rows: list[tuple[int, int]]) -> set[int]:
    return {ns for start, end in rows for ns in range(start, end)}


def merged(instants_: set[int]) -> list[tuple[int, int]]:
    """The sorted disjoint spans that cover exactly these instants."""
    starts = sorted(ns for ns in instants_ if ns - 1 not in instants_)
    ends = sorted(ns + 1 for ns in instants_ if ns + 1 not in instants_)
    return list(zip(starts, ends, strict=True))


@pytest.fixture(autouse=True, scope="module", params=[(99, 99), (99, 2), (0, 99), (0, 2)])
def ways_of_large_frames(request):
    """Many rows are held against each other with numpy, whole or in pieces: tested on few, and without."""
    usual = iv.MANY, iv.PIECE_ROWS
    iv.MANY, iv.PIECE_ROWS = request.param
    ascending.PIECE_ROWS = iv.PIECE_ROWS
    yield
    iv.MANY, iv.PIECE_ROWS = usual
    ascending.PIECE_ROWS = iv.PIECE_ROWS


# --- by hand


def test_union_merges_what_overlaps_or_touches():
    assert iv.union(frame((9, 12), (3, 5), (5, 8), (4, 6), (3, 5))).rows() == [(3, 8), (9, 12)]


def test_union_spans_a_short_row_inside_a_long_one():
    assert iv.union(frame((0, 10), (2, 3), (5, 6))).rows() == [(0, 10)]


def test_union_drops_empty_rows():
    assert iv.union(frame((3, 3), (5, 8), (5, 5), (10, 10))).rows() == [(5, 8)]


def test_a_row_that_ends_before_it_starts_covers_nothing():
    assert iv.union(frame((3, 5), (8, 4))).rows() == [(3, 5)]
    assert iv.assign(pl.Series([2, 5]), frame((4, 1), (3, 8))).to_list() == [None, 1]


def test_union_by_keeps_groups_apart_and_sorts_by_group():
    rows = frame((3, 8), (5, 9), (0, 4)).with_columns(device=pl.Series([1, 0, 1]))
    assert iv.union(rows, by=["device"]).rows() == [(0, 5, 9), (1, 0, 8)]


def test_union_by_forgets_the_reach_of_the_group_before():
    rows = frame((0, 100), (3, 5)).with_columns(device=pl.Series([0, 1]), stream=pl.Series([7, 7]))
    result = iv.union(rows, by=["device", "stream"])
    assert result.columns == ["device", "stream", "start_ns", "end_ns"]
    assert result.rows() == [(0, 7, 0, 100), (1, 7, 3, 5)]


def test_length_adds_rows_up():
    assert iv.length(frame((3, 5), (3, 8), (9, 9))) == 7


def test_times_beyond_doubles_stay_exact():
    late = 2**53
    rows = frame((late, late + 1), (late + 2, late + 3))
    assert iv.union(rows).rows() == rows.rows()
    assert iv.covered_ns(frame((late, late + 3)), rows).to_list() == [2]


def test_clip_cuts_at_the_window_and_keeps_columns():
    rows = named((0, 4, "a"), (4, 9, "b"), (5, 6, "c"), (8, 12, "d"))
    assert iv.clip(rows, 4, 8).rows() == [(4, 8, "b"), (5, 6, "c")]


def test_clip_keeps_an_empty_row_inside():
    assert iv.clip(frame((3, 3), (5, 5), (8, 8)), 3, 8).rows() == [(3, 3), (5, 5)]


@pytest.mark.parametrize("window", [(5, 5), (6, 4)])
def test_clip_to_an_empty_window_leaves_nothing(window):
    assert iv.clip(frame((0, 10), (5, 5)), *window).is_empty()


def test_complement_is_the_gaps():
    assert iv.complement(frame((3, 5), (4, 8), (20, 30)), 0, 10).rows() == [(0, 3), (8, 10)]


def test_intersect_cuts_a_row_into_pieces_and_keeps_its_columns():
    rows = named((0, 10, "a"), (4, 6, "b"), (9, 9, "c"), (6, 6, "d"))
    assert iv.intersect(rows, frame((1, 3), (5, 8))).rows() == [(1, 3, "a"), (5, 8, "a"), (5, 6, "b")]


def test_subtract_leaves_the_rest_of_each_row():
    rows = named((0, 10, "a"), (4, 6, "b"))
    assert iv.subtract(rows, frame((1, 3), (5, 8))).rows() == [(0, 1, "a"), (3, 5, "a"), (8, 10, "a"), (4, 5, "b")]


def test_partition_gives_each_instant_to_the_first_layer():
    layers = [("sync", frame((2, 5))), ("cuda", frame((4, 8), (0, 1)))]
    assert iv.partition(0, 10, layers, rest="host").rows() == [
        (0, 1, "cuda"),
        (1, 2, "host"),
        (2, 5, "sync"),
        (5, 8, "cuda"),
        (8, 10, "host"),
    ]


def test_partition_splits_further_by_a_busy_set():
    parts = iv.partition(0, 10, [("sync", frame((2, 8)))])
    busy = frame((3, 5))
    assert iv.intersect(parts, busy).rows() == [(3, 5, "sync")]
    assert iv.length(iv.subtract(parts, busy)) == 8


def test_covered_ns_counts_per_query():
    queries = frame((0, 10), (3, 4), (4, 6), (5, 5), (8, 9), (-9, 0))
    assert iv.covered_ns(queries, frame((1, 3), (5, 8))).to_list() == [5, 0, 1, 0, 0, 0]


def test_covered_before_counts_up_to_each_instant():
    times = pl.Series([0, 1, 2, 3, 6, 8, 9, 20])
    assert iv.covered_before(times, frame((1, 3), (5, 8), (9, 10))).to_list() == [0, 0, 1, 2, 3, 5, 5, 6]
    assert iv.covered_before(times, NOTHING).to_list() == [0] * 8


def test_the_neighbourhood_is_what_meets_a_stretch_and_one_more_on_either_side():
    rows = frame((0, 1), (2, 3), (4, 6), (7, 8), (9, 10))
    assert iv.neighbourhood(rows, 5, 6).rows() == [(2, 3), (4, 6), (7, 8)]
    assert iv.neighbourhood(rows, 3, 4).rows() == [(2, 3), (4, 6)]  # neither holds an instant of it
    assert iv.neighbourhood(rows, 20, 30).rows() == [(9, 10)]
    assert iv.neighbourhood(NOTHING, 3, 4).rows() == []


def test_sweep_counts_open_rows():
    assert iv.sweep(frame((2, 5), (4, 8), (8, 9), (6, 6)), 0, 12).rows() == [
        (0, 2, 0),
        (2, 4, 1),
        (4, 5, 2),
        (5, 9, 1),
        (9, 12, 0),
    ]


def test_cover_sets_name_the_frames_by_their_bits():
    sets = iv.cover_sets([frame((0, 5), (8, 12)), frame((3, 10))], 1, 11)
    assert sets.rows() == [(1, 3, 1), (3, 5, 3), (5, 8, 2), (8, 10, 3), (10, 11, 1)]
    assert iv.cover_sets([], 2, 5).rows() == [(2, 5, 0)]
    assert iv.cover_sets([frame((0, 5))], 5, 5).rows() == []


@given(st.lists(spans, max_size=4), instants, instants)
def test_cover_sets_at_each_instant(layers, start, end):
    sets = iv.cover_sets([iv.union(frame(*rows)) for rows in layers], start, end)
    covered = {ns: mask for low, high, mask in sets.rows() for ns in range(low, high)}
    expected = {ns: sum(1 << bit for bit, rows in enumerate(layers) if ns in painted(rows)) for ns in range(start, end)}
    assert covered == expected
    assert sum(high - low for low, high, _ in sets.rows()) == max(end - start, 0)


def test_sweep_begins_with_what_is_already_open():
    assert iv.sweep(frame((0, 9), (3, 9)), 3, 8).rows() == [(3, 8, 2)]


def test_count_at_is_half_open():
    assert iv.count_at(pl.Series([1, 2, 4, 5, 8]), frame((2, 5), (4, 8), (4, 4))).to_list() == [0, 1, 2, 1, 0]


def test_assign_finds_the_row_in_the_order_given():
    steps = frame((5, 8), (0, 3), (5, 5))
    assert iv.assign(pl.Series([0, 2, 3, 5, 7, 8, -1]), steps).to_list() == [1, 1, None, 0, 0, None, None]


# --- nothing in, nothing out

NOTHING = frame()


def test_empty_frames():
    some = frame((0, 5))
    assert iv.union(NOTHING).rows() == []
    assert iv.union(NOTHING.with_columns(device=pl.lit(0)), by=["device"]).rows() == []
    assert iv.length(NOTHING) == 0
    assert iv.clip(NOTHING, 0, 5).rows() == []
    assert iv.complement(NOTHING, 0, 5).rows() == [(0, 5)]
    assert iv.intersect(NOTHING, some).rows() == iv.intersect(some, NOTHING).rows() == []
    assert iv.subtract(NOTHING, some).rows() == []
    assert iv.subtract(some, NOTHING).rows() == [(0, 5)]
    assert iv.partition(0, 5, [("sync", NOTHING)]).rows() == [(0, 5, "rest")]
    assert iv.partition(0, 5, []).rows() == [(0, 5, "rest")]
    assert iv.covered_ns(some, NOTHING).to_list() == [0]
    assert iv.covered_ns(NOTHING, some).to_list() == []
    assert iv.sweep(NOTHING, 0, 5).rows() == [(0, 5, 0)]
    assert iv.count_at(pl.Series([1]), NOTHING).to_list() == [0]
    assert iv.assign(pl.Series([1]), NOTHING).to_list() == [None]
    assert iv.assign(pl.Series([], dtype=pl.Int64), some).to_list() == []


@pytest.mark.parametrize("window", [(5, 5), (6, 4)])
def test_empty_windows(window):
    some = frame((0, 9))
    assert iv.span(*window).rows() == []
    assert iv.complement(NOTHING, *window).rows() == []
    assert iv.partition(*window, [("sync", some)]).rows() == []
    assert iv.sweep(some, *window).rows() == []


@pytest.mark.parametrize("rows", [[], [(0, 9)]])
def test_schemas_do_not_depend_on_rows(rows):
    some = frame(*rows)
    assert iv.union(some).schema == iv.complement(some, 0, 5).schema == pl.Schema(iv.SPAN)
    assert iv.partition(0, 5, [("a", some)]).schema == pl.Schema(iv.SPAN | {"part": pl.String})
    assert iv.sweep(some, 0, 5).schema == iv.sweep(some, 5, 5).schema == pl.Schema(iv.SPAN | {"open": pl.Int64})
    assert iv.intersect(named(), some).schema == named().schema
    points = pl.Series([1] * len(rows), dtype=pl.Int64)
    assert iv.covered_ns(some, some).dtype == iv.count_at(points, some).dtype == iv.assign(points, some).dtype


# --- against painted nanoseconds


@given(spans)
def test_union_covers_the_same_instants(rows):
    assert iv.union(frame(*rows)).rows() == merged(painted(rows))


@given(spans, spans)
def test_union_by_is_the_union_of_each_group(first, second):
    rows = pl.concat([frame(*first).with_columns(device=1), frame(*second).with_columns(device=0)])
    expected = [(0, *row) for row in merged(painted(second))] + [(1, *row) for row in merged(painted(first))]
    assert iv.union(rows, by=["device"]).rows() == expected


@given(spans, instants, instants)
def test_clip_and_complement_split_the_window(rows, start, end):
    window, covered = set(range(start, end)), painted(rows)
    assert painted(iv.clip(frame(*rows), start, end).rows()) == covered & window
    assert iv.complement(frame(*rows), start, end).rows() == merged(window - covered)


@given(spans, spans)
def test_intersect_and_subtract_of_merged_sets(first, second):
    a, b = painted(first), painted(second)
    ours, theirs = frame(*merged(a)), frame(*merged(b))
    assert iv.intersect(ours, theirs).rows() == merged(a & b)
    assert iv.subtract(ours, theirs).rows() == merged(a - b)
    assert iv.common(ours, theirs).rows() == merged(a & b)
    assert [part.rows() for part in iv.split(ours, theirs)] == [merged(a & b), merged(a - b)]


@given(spans, spans)
def test_pieces_of_overlapping_rows_add_up(first, second):
    rows = frame(*first).with_row_index("row")
    other = frame(*merged(painted(second)))
    pieces = pl.concat([iv.intersect(rows, other), iv.subtract(rows, other)])
    for row, span in enumerate(first):
        assert iv.union(pieces.filter(row=row)).rows() == merged(painted([span]))
    assert iv.length(pieces) == iv.length(rows)


@given(instants, instants, st.lists(st.tuples(st.sampled_from("abc"), spans), max_size=4))
def test_partition_sums_to_the_window(start, end, layers):
    owner = {}
    for part, rows in layers:
        for ns in painted(rows):
            owner.setdefault(ns, part)
    parts = iv.partition(start, end, [(part, frame(*rows)) for part, rows in layers])
    assert {ns: part for a, b, part in parts.rows() for ns in range(a, b)} == {
        ns: owner.get(ns, "rest") for ns in range(start, end)
    }
    assert iv.length(parts) == max(0, end - start)
    assert parts.get_column("start_ns").is_sorted()


@given(spans, spans)
def test_covered_ns_of_each_query(queries, rows):
    covered = painted(rows)
    expected = [len(covered & painted([query])) for query in queries]
    assert iv.covered_ns(frame(*queries), frame(*merged(covered))).to_list() == expected
    before = iv.covered_before(pl.Series(range(30), dtype=pl.Int64), frame(*merged(covered)))
    assert before.to_list() == [sum(ns < at for ns in covered) for at in range(30)]


@given(spans, instants, instants)
def test_sweep_is_the_count_at_each_instant(rows, start, end):
    steps = iv.sweep(frame(*rows), start, end)
    expected = [sum(a <= ns < b for a, b in rows) for ns in range(start, end)]
    assert [n for a, b, n in steps.rows() for _ in range(a, b)] == expected
    assert steps.get_column("open").diff().drop_nulls().ne(0).all()
    points = pl.Series(range(start, end), dtype=pl.Int64)
    assert iv.count_at(points, frame(*rows)).to_list() == expected


@given(spans, st.randoms())
def test_assign_names_the_row_that_contains_the_point(rows, random):
    disjoint = merged(painted(rows)) + [(ns, ns) for ns in (0, 3)]
    random.shuffle(disjoint)
    points = list(range(LOW - 2, HIGH + 2))
    expected = [next((i for i, (a, b) in enumerate(disjoint) if a <= ns < b), None) for ns in points]
    assert iv.assign(pl.Series(points), frame(*disjoint)).to_list() == expected
